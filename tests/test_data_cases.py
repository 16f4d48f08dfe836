"""Inputs from practice that once gave a wrong number or a crash, each with its right value."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import SHARED, needs_shared
from data_files import EXIF_ORIENTATION, chunk, class_map, encoded, make_folder, make_pascal_context, picture, png, save
from PIL import Image

from lightning_expedite.data import Demo, Folder, PascalContext, reading
from lightning_expedite.data.palettes import class_table
from lightning_expedite.data.reading import image_header, label_table, read_image, read_label
from lightning_expedite.data.sources import IMAGE_SUFFIXES, list_folder
from lightning_expedite.errors import DataError

# Orientation -> what has to be done to upright pixels so that the tag turns them back.
TAGGED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: np.swapaxes(upright, 0, 1),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: np.swapaxes(upright[::-1, ::-1], 0, 1),
    8: lambda upright: np.rot90(upright, -1),
}
SMOOTH = np.kron(picture(3, 4, seed=1), np.ones((8, 8, 1), np.uint8))
LABEL = class_map(24, 32, classes=3)


def tagged(pixels, orientation, kind):
    """The content of a file whose tag says how its pixels, turned here, are brought upright."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    best = {"quality": 100, "subsampling": "4:4:4"}
    options = {"AVIF": best, "JPEG": best, "WEBP": {"lossless": True}}.get(kind, {})
    options |= {"tiffinfo": {EXIF_ORIENTATION: orientation}} if kind == "TIFF" else {"exif": exif}
    return encoded(np.ascontiguousarray(TAGGED[orientation](pixels)), kind, **options)


@pytest.fixture
def folder(tmp_path):
    """Writes one image and its label; reads them as a sample."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()

    def read(image, label, label_suffix=".png"):
        (tmp_path / "images/a.png").write_bytes(image)
        (tmp_path / "labels/a").with_suffix(label_suffix).write_bytes(label)
        return Folder(tmp_path / "images", tmp_path / "labels", ["a", "b", "c"]).open_dataset()[0]

    return read


def pixels_of(sample):
    return (sample["views"][0]["image"] * 127.5 + 127.5).round().byte().permute(1, 2, 0).numpy()


@pytest.mark.parametrize("orientation", TAGGED)
@pytest.mark.parametrize("kind", ["AVIF", "JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("label_kind", ["PNG", "TIFF"])
def test_image_and_label_are_turned_each_by_its_own_tag(folder, orientation, kind, label_kind):
    other = orientation % 8 + 1
    for image_tag, label_tag in ((orientation, 1), (1, orientation), (orientation, orientation), (orientation, other)):
        sample = folder(tagged(SMOOTH, image_tag, kind), tagged(LABEL, label_tag, label_kind))
        assert np.abs(pixels_of(sample).astype(int) - SMOOTH).max() <= {"AVIF": 3, "JPEG": 3}.get(kind, 0)
        assert np.array_equal(sample["label"], LABEL)


@pytest.mark.parametrize("orientation", TAGGED)
def test_an_exif_chunk_behind_the_pixels_of_a_png_counts(tmp_path, orientation):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    late = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    for upright, read, header in (
        (SMOOTH, read_image, image_header),
        (LABEL, lambda path: read_label(path, label_table(3)), lambda path: image_header(path, "label")),
    ):
        content = encoded(np.ascontiguousarray(TAGGED[orientation](upright)), "PNG")
        (tmp_path / "late.png").write_bytes(content[:-12] + late + content[-12:])
        assert header(tmp_path / "late.png") == (24, 32)
        assert np.array_equal(read(tmp_path / "late.png"), upright)


@needs_shared
@pytest.mark.parametrize("case", ["exif3_both", "formats"])
def test_the_demo_scenes_are_the_same_in_other_files(case):
    root = SHARED / "cases" / case
    found = Folder(root / "images", root / "labels", root / "classes.txt").open_dataset()
    scenes = Demo(count=4).open_dataset()
    assert len(found) == 4
    for position in range(4):
        sample, scene = found[position], scenes[position]
        lossy = case == "formats" and position == 1  # a JPEG
        assert np.abs(pixels_of(sample).astype(int) - pixels_of(scene)).mean() <= (6 if lossy else 0)
        assert np.array_equal(sample["label"], scene["label"])
        assert sample["warnings"] == ()


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES - {".dib", ".ras"}))  # which Pillow cannot write
def test_every_format_is_listed_and_read(tmp_path, suffix):
    mode = {".pbm": "1", ".pgm": "L"}.get(suffix, "RGB")
    path = tmp_path / f"image{suffix}"
    Image.fromarray(SMOOTH).convert(mode).save(path)
    source = list_folder(tmp_path)
    assert len(source) == 1
    with Image.open(path) as image:
        assert np.array_equal(source.image(0), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("suffix", [".tif", ".bmp", ".gif", ".pgm"])
def test_labels_may_have_another_lossless_format_but_one_file_each(folder, tmp_path, suffix):
    stored = encoded(LABEL, {".tif": "TIFF", ".pgm": "PPM"}.get(suffix, suffix[1:]))
    assert np.array_equal(folder(encoded(SMOOTH, "PNG"), stored, suffix)["label"], LABEL)
    (tmp_path / "labels/a.png").write_bytes(encoded(LABEL // 2, "PNG"))
    names = sorted(("a.png", f"a{suffix}"))
    with pytest.raises(DataError, match=rf"labels/{names[0]} and {names[1]} are both labels of .*images/a\.png: keep"):
        folder(encoded(SMOOTH, "PNG"), stored, suffix)


@pytest.mark.promise("warnings")
def test_files_that_are_not_used_are_named(run, data, config):
    (data / "images/part0/more.heic").write_bytes(b"1")
    save(data / "labels/part0/lonely.png", LABEL)
    status, out, _ = run("test", "--config", config, "--output", "out")
    assert status == 0
    warnings = json.loads(Path("out/results.json").read_text())["warnings"]
    assert any("1 images have formats that are not read: more.heic" in text for text in warnings)
    assert any("1 labels have no image and are not used: lonely" in text for text in warnings)
    assert "more.heic" in out


def test_a_folder_of_images_that_cannot_be_read_says_which(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"1")
    with pytest.raises(DataError, match=r"no images there.*1 images have formats that are not read: a\.heic"):
        list_folder(tmp_path)


def test_a_file_name_that_is_not_utf_8(tmp_path):
    images, labels = make_folder(tmp_path)
    for parent, pixels in ((images, SMOOTH), (labels, LABEL)):
        (parent / os.fsdecode(b"stra\xdfe.png")).write_bytes(encoded(pixels, "PNG"))
    data = Folder(images, labels, ["a", "b", "c"])
    sample = next(sample for sample in map(data.open_dataset().__getitem__, range(4)) if "stra" in sample["name"])
    assert sample["name"] == r"stra\xdfe"
    assert sample["name"] in [image.name for image in data.list_images(labels=True)]
    assert np.array_equal(sample["label"], LABEL)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [".png", ".tiff"])
def test_few_bits_in_16_bit_files_are_warned_of(folder, channels, kind):
    values = np.random.default_rng(0).integers(0, 4096, (24, 32, channels), dtype=np.uint16)
    dark = folder(cv2.imencode(kind, values)[1].tobytes(), encoded(LABEL, "PNG"))
    assert any("12 bits or fewer" in text for text in dark["warnings"])
    full = folder(cv2.imencode(kind, values << 4)[1].tobytes(), encoded(LABEL, "PNG"))
    assert full["warnings"] == ()


def test_one_image_and_hidden_folders(run, config, tmp_path):
    save(tmp_path / "photos/photo.png", picture(64, 64))
    save(tmp_path / "photos/.ipynb_checkpoints/photo-checkpoint.png", picture(64, 64))
    assert len(list_folder(tmp_path / "photos")) == 1
    one = ("predict", "--config", config, "--images", tmp_path / "photos/photo.png", "--output", "out")
    assert run(*one)[0] == 0
    assert sorted(path.name for path in (tmp_path / "out/labels").iterdir()) == ["photo.png"]


def test_images_beyond_pillows_limit_are_read_up_to_ours(tmp_path, monkeypatch):
    path = save(tmp_path / "large.png", picture(24, 32))
    assert Image.MAX_IMAGE_PIXELS >= reading.MOST_PIXELS > 179_000_000
    monkeypatch.setattr(reading, "MOST_PIXELS", 24 * 32 - 1)
    with pytest.raises(DataError, match=r"large.png: 32 x 24 pixels are more than 767; cut the image into tiles"):
        read_image(path)


def test_two_hundred_million_pixels_have_a_size(tmp_path):
    (tmp_path / "huge.png").write_bytes(png(20_000, 10_000, bytes(10_000 * 2501), depth=1, colour=0))
    assert image_header(tmp_path / "huge.png") == (10_000, 20_000)


def test_pascal_context_without_background(tmp_path):
    make_pascal_context(tmp_path)
    data = PascalContext(tmp_path, background=False)
    assert (data.num_classes, data.classes[0], data.palette[0]) == (59, "aeroplane", PascalContext.palette[1])
    stored = class_map(classes=60, seed=0)
    label = data.open_dataset()[0]["label"].numpy()
    np.testing.assert_array_equal(label, np.where(stored == 0, 255, stored - 1))
    assert class_table("pascal_context", 59) == (data.classes, data.palette)


@pytest.mark.parametrize("command", ["test", "predict"])
def test_commands_take_names_that_are_not_utf_8(run, data, config, command):
    name = os.fsdecode(b"stra\xdfe.png")
    (data / "images/part0/0.png").rename(data / "images/part0" / name)
    (data / "labels/part0/0.png").rename(data / "labels/part0" / name)
    status, _, err = run(command, "--config", config, "--output", "out")
    assert status == 0, err
    if command == "test":
        rows = [json.loads(line) for line in Path("out/images.jsonl").read_text().splitlines()]
        assert r"part0/stra\xdfe" in [row["name"] for row in rows]
    else:
        assert Path("out/labels", r"part0/stra\xdfe.png").exists()
    (data / "images/part0" / name).write_bytes(b"damaged")
    status, _, err = run(command, "--config", config, "--output", "other")
    assert status == 2
    err.encode()  # raises for what a terminal cannot show
    assert "not a readable image" in err
