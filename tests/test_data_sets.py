import numpy as np
import pytest
from conftest import SHARED, needs_shared
from data_files import (
    class_map,
    make_ade20k,
    make_camvid,
    make_cityscapes,
    make_folder,
    make_pascal_context,
    picture,
    save,
)

from lightning_expedite.data import ADE20K, CamVid, Cityscapes, Demo, Folder, PascalContext

CITYSCAPES_TRAIN_IDS = {
    **{7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9},
    **{23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18},
}


def samples(data):
    data.num_workers = 0
    data.setup("test")
    return [sample for batch in data.test_dataloader() for sample in batch]


@pytest.mark.parametrize(("data_set", "classes"), [(ADE20K, 150), (Cityscapes, 19), (PascalContext, 60), (CamVid, 11)])
def test_class_tables_are_complete(data_set, classes):
    assert data_set().num_classes == len(data_set.classes) == len(set(data_set.classes)) == classes
    assert len(data_set.palette) == classes
    assert all(0 <= channel <= 255 for colour in data_set.palette for channel in colour)


def test_classes_stand_at_their_known_indices():
    assert ADE20K.classes[0] == "wall"
    assert ADE20K.classes[12] == "person"
    assert ADE20K.classes[149] == "flag"
    assert ADE20K.palette[2] == (6, 230, 230)
    assert Cityscapes.classes[13] == "car"
    assert Cityscapes.palette[13] == (0, 0, 142)
    assert PascalContext.classes[0] == "background"
    assert PascalContext.classes[1:] == tuple(sorted(PascalContext.classes[1:]))  # as the category ids are
    assert PascalContext.classes[55] == "tvmonitor"


@pytest.mark.parametrize("nested", ["", "ADEChallengeData2016"])
def test_ade20k(tmp_path, nested):
    make_ade20k(tmp_path / nested)
    found = samples(ADE20K(tmp_path))
    assert [sample["name"] for sample in found] == [f"ADE_val_{number:08d}" for number in range(3)]
    assert [sample["index"] for sample in found] == [0, 1, 2]
    for number, sample in enumerate(found):
        stored = class_map(classes=151, seed=number)
        assert sample["size"] == (12, 16)
        np.testing.assert_array_equal(sample["label"].numpy(), np.where(stored == 0, 255, stored - 1))


@pytest.mark.parametrize("label_ending", ["labelIds", "labelTrainIds"])
def test_cityscapes(tmp_path, label_ending):
    classes = 34 if label_ending == "labelIds" else 19
    make_cityscapes(tmp_path, label_ending, classes)
    found = samples(Cityscapes(tmp_path))
    assert [sample["name"] for sample in found] == [
        "aachen/aachen_000000_000019_leftImg8bit",
        "aachen/aachen_000002_000019_leftImg8bit",
        "ulm/ulm_000001_000019_leftImg8bit",
    ]
    for sample, seed in zip(found, (0, 2, 1), strict=True):
        stored = class_map(classes=classes, seed=seed)
        if label_ending == "labelIds":
            stored = np.vectorize(lambda value: CITYSCAPES_TRAIN_IDS.get(value, 255))(stored)
        np.testing.assert_array_equal(sample["label"].numpy(), stored)


def test_cityscapes_prefers_train_ids(tmp_path):
    make_cityscapes(tmp_path, "labelIds")
    make_cityscapes(tmp_path, "labelTrainIds", classes=1)
    assert all((sample["label"] == 0).all() for sample in samples(Cityscapes(tmp_path)))


@pytest.mark.parametrize("nested", ["", "VOCdevkit/VOC2010"])
def test_pascal_context(tmp_path, nested):
    make_pascal_context(tmp_path / nested)
    found = samples(PascalContext(tmp_path))
    assert [sample["name"] for sample in found] == ["2008_000002", "2008_000007"]
    for number, sample in enumerate(found):
        np.testing.assert_array_equal(sample["label"].numpy(), class_map(classes=60, seed=number))


@pytest.mark.parametrize("nested", ["", "CamVid"])
def test_camvid(tmp_path, nested):
    make_camvid(tmp_path / nested)
    for number, sample in enumerate(samples(CamVid(tmp_path))):
        stored = class_map(classes=12, seed=number)
        np.testing.assert_array_equal(sample["label"].numpy(), np.where(stored == 11, 255, stored))
        image = (sample["views"][0]["image"] * 127.5 + 127.5).round().byte().permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(image, picture(seed=number))


def test_folder(tmp_path):
    images, labels = make_folder(tmp_path)
    save(images / "._b.png", picture())  # hidden, not an image of the data set
    found = samples(Folder(images, labels, ["a", "b", "c"]))
    assert [sample["name"] for sample in found] == ["b", "nested/deep/a", "with.dot"]
    np.testing.assert_array_equal(found[1]["label"].numpy(), class_map(classes=3))


def test_folder_takes_class_names_from_a_file(tmp_path):
    names = tmp_path / "classes.txt"
    names.write_bytes("\ufeffroad\r\ngrüne Wiese\r\n\r\nsky\n".encode())
    data = Folder(tmp_path, classes=names)
    assert data.classes == ("road", "grüne Wiese", "sky")
    assert data.num_classes == len(data.palette) == 3


def test_folder_ignores_further_values_and_shifts_labels_that_start_at_one(tmp_path):
    save(tmp_path / "images/a.png", picture(1, 5))
    save(tmp_path / "labels/a.png", np.array([[0, 1, 2, 7, 255]], np.uint8))
    arguments = {"images": tmp_path / "images", "labels": tmp_path / "labels", "ignore": [7]}
    (plain,) = samples(Folder(classes=["a", "b", "c"], **arguments))
    assert plain["label"].tolist() == [[0, 1, 2, 255, 255]]
    (shifted,) = samples(Folder(classes=["a", "b"], reduce_zero_label=True, **arguments))
    assert shifted["label"].tolist() == [[255, 0, 1, 255, 255]]


def test_demo():
    found = samples(Demo())
    assert len(found) == 64
    assert found[3]["name"] == "scene_00003"
    assert found[0]["label"].shape == found[0]["size"] == found[0]["views"][0]["image"].shape[1:]
    classes = Demo().num_classes
    assert all(int(sample["label"][sample["label"] != 255].max()) < classes for sample in found)


def test_demo_train_split_is_separate_and_counted():
    validation, training = Demo(count=3), Demo(split="train", count=5)
    assert len(samples(validation)) == 3
    names = {sample["name"] for sample in samples(training)}
    assert len(names) == 5
    assert not names & {f"scene_{number:05d}" for number in range(64)}


@needs_shared
def test_real_ade20k_images():
    found = samples(ADE20K(SHARED / "ade_sample", short_side=640))
    assert [sample["size"] for sample in found] == [(512, 683), (364, 500), (300, 400)]
    assert [tuple(sample["views"][0]["image"].shape) for sample in found] == [
        (3, 640, 854),
        (3, 640, 879),
        (3, 640, 853),
    ]
    assert all(len(sample["label"].unique()) > 3 for sample in found)


@needs_shared
def test_real_camvid_images():
    data = CamVid(SHARED / "camvid")
    data.setup("test")
    dataset = data.test_dataloader().dataset
    assert len(dataset) == 101
    sample = dataset[100]
    assert sample["views"][0]["image"].shape == (3, 360, 480)
    assert set(sample["label"].unique().tolist()) <= {*range(11), 255}
