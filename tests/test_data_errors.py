"""Mistakes in data sets and their settings: one line that names the folder, file or value, before hours of work."""

import re

import pytest
from data_files import class_map, encoded, make_ade20k, make_camvid, make_cityscapes, make_folder, picture, save
from data_files import make_pascal_context as make_context

from lightning_expedite.data import ADE20K, CamVid, Cityscapes, Demo, Folder, PascalContext
from lightning_expedite.data.reading import image_header, label_table, read_image, read_label
from lightning_expedite.errors import ConfigError, DataError

TABLE = label_table(3)
LAYOUTS = [
    (ADE20K, make_ade20k, "images", "validation"),
    (Cityscapes, make_cityscapes, "leftImg8bit", "val"),
    (PascalContext, make_context, "JPEGImages", "val"),
    (CamVid, make_camvid, "*annot", "val"),
]


@pytest.mark.promise("bad-lists")
@pytest.mark.parametrize(("data_set", "make", "marker", "existing"), LAYOUTS)
def test_a_missing_root_or_split(tmp_path, data_set, make, marker, existing):
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'nowhere'}: no such folder")):
        data_set(tmp_path / "nowhere").setup("test")
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}: no folder {marker} in it")):
        data_set(tmp_path).setup("test")
    make(tmp_path)
    for split in ("testing", "../val", ""):
        with pytest.raises(DataError, match=re.escape(f"no split {split!r}; there are: {existing}")):
            data_set(tmp_path, split=split).setup("test")


def without(root, pattern):
    for path in root.rglob(pattern):
        path.unlink()
    return root


def emptied(path):
    path.write_bytes(b"")
    return Folder(path.parents[1] / "images", path.parents[1] / "labels", ["a", "b", "c"])


MISTAKES = {  # a data set in a folder, and the message of its setup
    "an empty split": (lambda root: ADE20K(without(make_ade20k(root), "*.jpg")), r"images/validation: no images there"),
    "no images": (lambda root: Folder(root / "nowhere", make_folder(root)[1], ["a"]), r"nowhere: no such folder"),
    "no labels": (
        lambda root: Folder(make_folder(root)[0], root / "nowhere", ["a"]),
        r"nowhere: no such folder; labels are expected",
    ),
    "too few labels": (
        lambda root: ADE20K(without(make_ade20k(root, count=6), "*_0000000[1-5].png")),
        r"5 of 6 label files are missing: .*ADE_val_00000001.png.* and 2 more",
    ),
    "scores without labels": (
        lambda root: Folder(make_folder(root)[0], classes=["a"]),
        r"images: these images have no labels",
    ),
    "PASCAL-Context as distributed": (
        lambda root: PascalContext(save(root / "JPEGImages/a.jpg", picture()).parents[1]),
        r"SegmentationContext: no such folder; make it with 'python -m lightning_expedite prepare",
    ),
    "an empty image": (
        lambda root: emptied(make_folder(root)[0] / "b.png"),
        r"1 of 3 image files are empty: .*images/b.png",
    ),
    "an empty label": (
        lambda root: emptied(make_folder(root)[1] / "b.png"),
        r"1 of 3 label files are empty: .*labels/b.png",
    ),
    "an unknown split of the demo": (
        lambda _: Demo("testing"),
        r"no split 'testing'; there are: train, validation",
    ),
}


@pytest.mark.promise("bad-labels")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found_at_once(tmp_path, mistake):
    make, message = MISTAKES[mistake]
    with pytest.raises(DataError, match=message):
        make(tmp_path).setup("test")


@pytest.mark.promise("bad-labels")
def test_label_of_another_size_is_found_when_read(tmp_path):
    images, labels = make_folder(tmp_path)
    dataset = Folder(images, labels, ["a", "b", "c"]).open_dataset()
    save(labels / "b.png", class_map(16, 12))
    with pytest.raises(DataError, match=r"b: the label is 12 x 16 pixels"):
        dataset[0]


@pytest.mark.promise("bad-images")
def test_bytes_after_the_end_of_an_image_are_fine(tmp_path):
    path = tmp_path / "long.jpg"
    path.write_bytes(encoded(picture(), "JPEG") + b"\0" * 200)
    assert read_image(path).shape == (12, 16, 3)


@pytest.mark.promise("bad-images")
@pytest.mark.parametrize(
    "read", [read_image, image_header, lambda path: image_header(path, "label"), lambda path: read_label(path, TABLE)]
)
def test_missing_files(tmp_path, read):
    with pytest.raises(DataError, match=r"gone.png"):
        read(tmp_path / "gone.png")


def test_errors_in_worker_processes_keep_their_kind_and_message(tmp_path):
    images, _ = make_folder(tmp_path)
    content = encoded(picture(64, 64))
    (images / "b.png").write_bytes(content[: len(content) // 2])
    data = Folder(images, classes=["a"], num_workers=1)
    data.setup("predict")
    with pytest.raises(DataError, match=r"images/b.png"):
        list(data.predict_dataloader())


@pytest.mark.promise("bad-configs")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"short_side": 0}, "short_side is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"scales": []}, "scales is"),
        ({"scales": [1.0, 0.0]}, "scales is"),
        ({"scales": [float("nan")]}, "scales is"),
        ({"normalization": "imagenet"}, "normalization is 'imagenet'"),
        ({"classes": []}, "classes has 0 names"),
        ({"classes": [str(number) for number in range(255)]}, "classes has 255 names"),
        ({"ignore": [256]}, "ignore is"),
        ({"long_side": 100}, "set short_side as well"),
        ({"short_side": 20, "long_side": 10}, "long_side 10 is below short_side 20"),
    ],
)
def test_settings_out_of_range(tmp_path, settings, message):
    images, labels = make_folder(tmp_path)
    with pytest.raises(ConfigError, match=message):
        Folder(images, labels, **{"classes": ["a"], **settings}).setup("test")


@pytest.mark.promise("bad-configs")
@pytest.mark.parametrize("count", [0, 65])
def test_demo_count_out_of_range(count):
    with pytest.raises(ConfigError, match=rf"count is {count}: validation has 1 to 64 scenes"):
        Demo(count=count).setup("test")
