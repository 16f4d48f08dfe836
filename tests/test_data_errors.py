import re

import pytest
from data_files import (
    class_map,
    encoded,
    make_ade20k,
    make_camvid,
    make_cityscapes,
    make_folder,
    make_pascal_context,
    picture,
    save,
)

from lightning_expedite.data import ADE20K, CamVid, Cityscapes, Demo, Folder, PascalContext
from lightning_expedite.data.reading import image_header, label_header, label_table, read_image, read_label
from lightning_expedite.errors import ConfigError, DataError


def folder(tmp_path, classes=("a", "b", "c")):
    return Folder(tmp_path / "images", tmp_path / "labels", classes, num_workers=0)


def run(data):
    data.setup("test")
    return list(data.test_dataloader())


@pytest.mark.parametrize(
    ("data_set", "marker"),
    [
        (ADE20K, "images"),
        (Cityscapes, "leftImg8bit"),
        (PascalContext, "JPEGImages"),
        (CamVid, "valannot"),
    ],
)
def test_missing_root(tmp_path, data_set, marker):
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'nowhere'}: no such folder")):
        data_set(tmp_path / "nowhere").setup("test")
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}: no folder {marker} in it")):
        data_set(tmp_path).setup("test")


@pytest.mark.promise("bad-lists")
@pytest.mark.parametrize(
    ("data_set", "make", "existing"),
    [
        (ADE20K, make_ade20k, "validation"),
        (Cityscapes, make_cityscapes, "val"),
        (PascalContext, make_pascal_context, "val"),
        (CamVid, make_camvid, "val"),
        (lambda _, split: Demo(split), lambda root: root, "train, validation"),
    ],
)
@pytest.mark.parametrize("split", ["testing", "../val", ""])
def test_unknown_split_lists_the_existing_ones(tmp_path, data_set, make, existing, split):
    with pytest.raises(DataError, match=re.escape(f"no split {split!r}; there are: {existing}")):
        data_set(make(tmp_path), split=split).setup("test")


@pytest.mark.promise("bad-lists")
def test_empty_split(tmp_path):
    (tmp_path / "images/validation").mkdir(parents=True)
    (tmp_path / "annotations/validation").mkdir(parents=True)
    with pytest.raises(DataError, match=r"images/validation: no images there"):
        ADE20K(tmp_path).setup("test")


@pytest.mark.promise("bad-labels")
def test_missing_folders_of_images_and_labels(tmp_path):
    images, labels = make_folder(tmp_path)
    with pytest.raises(DataError, match=r"nowhere: no such folder"):
        Folder(tmp_path / "nowhere", labels, ["a"]).setup("test")
    with pytest.raises(DataError, match=r"nowhere: no such folder; labels are expected"):
        Folder(images, tmp_path / "nowhere", ["a"]).setup("test")


@pytest.mark.promise("bad-labels")
def test_images_without_labels_are_counted_and_named(tmp_path):
    make_ade20k(tmp_path, count=6)
    for number in range(1, 6):
        (tmp_path / f"annotations/validation/ADE_val_{number:08d}.png").unlink()
    with pytest.raises(DataError, match=r"5 of 6 label files are missing: .*ADE_val_00000001.png.* and 2 more"):
        ADE20K(tmp_path).setup("test")


@pytest.mark.promise("bad-images")
def test_labels_without_images_are_fine(tmp_path):
    make_ade20k(tmp_path, count=2)
    save(tmp_path / "annotations/validation/more.png", class_map())
    assert len(run(ADE20K(tmp_path, num_workers=0))) == 2


@pytest.mark.promise("bad-labels")
def test_scoring_without_any_labels(tmp_path):
    images, _ = make_folder(tmp_path)
    with pytest.raises(DataError, match=r"images: these images have no labels"):
        Folder(images, classes=["a"]).setup("test")


def test_pascal_context_before_preparation(tmp_path):
    save(tmp_path / "JPEGImages/2008_000002.jpg", picture())
    with pytest.raises(
        DataError, match=r"SegmentationContext: no such folder; make it with 'python -m lightning_expedite prepare"
    ):
        PascalContext(tmp_path).setup("test")


@pytest.mark.promise("bad-images")
@pytest.mark.parametrize("kind", ["image", "label"])
def test_empty_file_is_found_at_once(tmp_path, kind):
    make_folder(tmp_path)
    (tmp_path / f"{kind}s/b.png").write_bytes(b"")
    with pytest.raises(DataError, match=rf"1 of 3 {kind} files are empty: .*{kind}s/b.png"):
        folder(tmp_path).setup("test")


@pytest.mark.promise("bad-labels")
def test_label_of_another_size_is_found_when_read(tmp_path):
    make_folder(tmp_path)
    data = folder(tmp_path)
    data.setup("test")
    save(tmp_path / "labels/b.png", class_map(16, 12))
    with pytest.raises(DataError, match=r"b: the label is 12 x 16 pixels"):
        list(data.test_dataloader())


@pytest.mark.promise("bad-images")
def test_bytes_after_the_end_of_an_image_are_fine(tmp_path):
    path = tmp_path / "long.jpg"
    path.write_bytes(encoded(picture(), "JPEG") + b"\0" * 200)
    assert read_image(path).shape == (12, 16, 3)


@pytest.mark.promise("bad-images")
@pytest.mark.parametrize(
    "read", [read_image, image_header, label_header, lambda path: read_label(path, label_table(3))]
)
def test_missing_files(tmp_path, read):
    with pytest.raises(DataError, match=r"gone.png"):
        read(tmp_path / "gone.png")


def test_errors_in_worker_processes_keep_their_kind_and_message(tmp_path):
    images, _ = make_folder(tmp_path)
    content = encoded(picture(64, 64), "PNG")
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
    ],
)
def test_settings_out_of_range(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        Folder(tmp_path, **{"classes": ["a"], **settings})


@pytest.mark.promise("bad-configs")
@pytest.mark.parametrize("count", [0, 65])
def test_demo_count_out_of_range(count):
    with pytest.raises(ConfigError, match=rf"count is {count}: validation has 1 to 64 scenes"):
        Demo(count=count).setup("test")
