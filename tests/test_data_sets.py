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
CITIES = [f"{city}_leftImg8bit" for city in ("aachen/aachen_000000_000019", "aachen/aachen_000002_000019")]
CITIES += ["ulm/ulm_000001_000019_leftImg8bit"]


def samples(data):
    data.num_workers = 0
    return [sample for batch in data.test_dataloader() for sample in batch]


@pytest.mark.parametrize(("data_set", "classes"), [(ADE20K, 150), (Cityscapes, 19), (PascalContext, 60), (CamVid, 11)])
def test_class_tables_are_complete(data_set, classes):
    assert data_set().num_classes == len(data_set.classes) == len(set(data_set.classes)) == classes
    assert len(data_set.palette) == classes
    assert all(0 <= channel <= 255 for colour in data_set.palette for channel in colour)


def test_classes_stand_at_their_known_indices():
    known = {
        ADE20K: {0: "wall", 12: "person", 149: "flag"},
        Cityscapes: {0: "road", 13: "car"},
        PascalContext: {0: "background", 55: "tvmonitor"},
        CamVid: {0: "sky", 10: "bicyclist"},
    }
    for data_set, names in known.items():
        assert {index: data_set.classes[index] for index in names} == names
    assert (ADE20K.palette[2], Cityscapes.palette[13]) == ((6, 230, 230), (0, 0, 142))
    assert PascalContext.classes[1:] == tuple(sorted(PascalContext.classes[1:]))  # as the category ids are


ADE_NAMES = [f"ADE_val_{number:08d}" for number in range(3)]
VOC_NAMES = ["2008_000002", "2008_000007"]
# What makes a data set, folders that its archives unpack to, names, and the class of a stored value.
LAYOUTS = [
    (ADE20K, make_ade20k, ["", "ADEChallengeData2016"], ADE_NAMES, 151, lambda value: value - 1 if value else 255),
    (Cityscapes, make_cityscapes, [""], CITIES, 34, lambda value: CITYSCAPES_TRAIN_IDS.get(value, 255)),
    (Cityscapes, lambda root: make_cityscapes(root, "labelTrainIds", 19), [""], CITIES, 19, int),
    (PascalContext, make_pascal_context, ["", "VOC2010", "VOCdevkit/VOC2010"], VOC_NAMES, 60, int),
    (CamVid, make_camvid, ["", "CamVid"], ["0000", "0001"], 12, lambda value: value if value != 11 else 255),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout[0].__name__)
def test_images_and_labels_are_found_in_order(tmp_path, layout):
    data_set, make, archives, names, stored, class_of = layout
    seeds = [0, 2, 1] if data_set is Cityscapes else range(3)
    for number, below in enumerate(archives):
        root = tmp_path / str(number)
        make(root / below)
        found = samples(data_set(root))
        assert [(sample["index"], sample["name"]) for sample in found] == list(enumerate(names))
        for sample, seed in zip(found, seeds, strict=False):
            assert sample["size"] == (12, 16)
            label = np.vectorize(class_of)(class_map(classes=stored, seed=seed))
            np.testing.assert_array_equal(sample["label"].numpy(), label)
            pixels = (sample["views"][0]["image"] * 127.5 + 127.5).round().byte().permute(1, 2, 0).numpy()
            assert data_set is not CamVid or np.array_equal(pixels, picture(seed=seed))


def test_cityscapes_prefers_train_ids(tmp_path):
    make_cityscapes(tmp_path, "labelIds")
    make_cityscapes(tmp_path, "labelTrainIds", classes=1)
    assert all((sample["label"] == 0).all() for sample in samples(Cityscapes(tmp_path)))


def test_folder(tmp_path):
    images, labels = make_folder(tmp_path)
    save(images / "._b.png", picture())  # hidden, not an image of the data set
    found = samples(Folder(images, labels, ["a", "b", "c"]))
    assert [sample["name"] for sample in found] == ["b", "nested/deep/a", "with.dot"]
    np.testing.assert_array_equal(found[1]["label"].numpy(), class_map(classes=3))


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
    assert [sample["name"] for sample in found] == [f"scene_{number:05d}" for number in range(64)]
    assert found[0]["label"].shape == found[0]["size"] == found[0]["views"][0]["image"].shape[1:]
    assert all(int(sample["label"][sample["label"] != 255].max()) < Demo().num_classes for sample in found)
    training = {sample["name"] for sample in samples(Demo(split="train", count=5))}
    assert len(training) == 5
    assert not training & {sample["name"] for sample in found}


@needs_shared
def test_real_images():
    found = samples(ADE20K(SHARED / "ade_sample", short_side=640))
    assert [sample["size"] for sample in found] == [(512, 683), (364, 500), (300, 400)]
    assert [sample["views"][0]["image"].shape[1:] for sample in found] == [(640, 854), (640, 879), (640, 853)]
    assert all(len(sample["label"].unique()) > 3 for sample in found)
    camvid = CamVid(SHARED / "camvid").open_dataset()
    assert len(camvid) == 101
    assert camvid[100]["views"][0]["image"].shape == (3, 360, 480)
    assert set(camvid[100]["label"].unique().tolist()) <= {*range(11), 255}
