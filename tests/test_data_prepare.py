import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import picture, save
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from lightning_expedite.data import PascalContext
from lightning_expedite.data.prepare_pascal_context import CATEGORY_IDS, decode_mask, prepare_pascal_context
from lightning_expedite.errors import ConfigError, DataError

HEIGHT, WIDTH = 12, 16
IDS = {"train": [2008000002, 2010000019], "val": [2009000001]}


def runs_of(mask):
    """Lengths of the runs of a mask column by column, zeros first."""
    flat = np.concatenate(([0], mask.T.ravel().astype(int), [-1]))
    ends = np.flatnonzero(np.diff(flat)) if mask.size else np.array([], int)
    return np.diff(np.concatenate(([0], ends))).tolist()


def string_of(runs):
    """COCO's string of run lengths, character by character as in its C code."""
    characters = []
    for position, run in enumerate(runs):
        number = run - (runs[position - 2] if position > 2 else 0)
        more = True
        while more:
            digit = number & 0x1F
            number >>= 5
            more = number != -1 if digit & 0x10 else number != 0
            characters.append(chr((digit | (0x20 if more else 0)) + 48))
    return "".join(characters)


@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 60))))
def test_masks_survive_both_encodings(mask):
    runs = runs_of(mask)
    np.testing.assert_array_equal(decode_mask(mask.shape, runs), mask)
    np.testing.assert_array_equal(decode_mask(mask.shape, string_of(runs)), mask)


def test_large_runs_survive():
    mask = np.zeros((700, 900), bool)
    mask[100:650, 300:305] = True
    np.testing.assert_array_equal(decode_mask(mask.shape, string_of(runs_of(mask))), mask)


@pytest.mark.parametrize("counts", ["", "`", "5`", "\x01", "é", [5], [193], [-1, 193], [2**62, 2**62, 2**63 - 64]])
def test_damaged_runs_are_refused(counts):
    with pytest.raises(ValueError, match=r"runs|ascii"):
        decode_mask((HEIGHT, WIDTH), counts)


def label_of(image_id):
    return np.random.default_rng(image_id).integers(0, 60, (HEIGHT, WIDTH), dtype=np.uint8)


def name_of(image_id):
    return f"{image_id // 10**6}_{image_id % 10**6:06d}"


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "VOCdevkit/VOC2010"
    for image_id in [*IDS["train"], *IDS["val"]]:
        save(root / f"JPEGImages/{name_of(image_id)}.jpg", picture(HEIGHT, WIDTH))
    return root


def write_masks(folder, legacy=True):
    folder.mkdir(exist_ok=True)
    for split, ids in IDS.items():
        masks = {image_id: Image.fromarray(label_of(image_id)) for image_id in ids}
        torch.save(masks, folder / f"{split}.pth", _use_new_zipfile_serialization=not legacy)
    return folder


def write_json(path, as_strings=True):
    images, segments = [], []
    for split, ids in [*IDS.items(), ("test", [2010006086])]:
        for image_id in ids:
            images.append(
                {
                    "image_id": image_id,
                    "file_name": f"{name_of(image_id)}.jpg",
                    "phase": split,
                    "height": HEIGHT,
                    "width": WIDTH,
                }
            )
            for index, category in enumerate(CATEGORY_IDS):
                mask = label_of(image_id) >= index  # each is drawn over by the next ones
                runs = runs_of(mask)
                counts = string_of(runs) if as_strings else runs
                segmentation = {"size": [HEIGHT, WIDTH], "counts": counts}
                segments.append({"image_id": image_id, "category_id": category, "segmentation": segmentation})
    path.write_text(json.dumps({"images": images, "annos_segmentation": segments, "categories": []}))
    return path


def assert_prepared(output: Path):
    for split, ids in IDS.items():
        listed = (output / f"ImageSets/SegmentationContext/{split}.txt").read_text()
        assert listed == "".join(f"{name_of(image_id)}\n" for image_id in sorted(ids))
        for image_id in ids:
            with Image.open(output / f"SegmentationClassContext/{name_of(image_id)}.png") as label:
                np.testing.assert_array_equal(np.asarray(label), label_of(image_id))
    assert not list(output.rglob(".*"))


def test_category_ids_are_the_sixty_in_ascending_order():
    assert len(CATEGORY_IDS) == len(PascalContext.classes) == 60
    assert list(CATEGORY_IDS) == sorted(set(CATEGORY_IDS))
    known = {0: "background", 2: "aeroplane", 23: "bicycle", 284: "person", 427: "tvmonitor", 458: "wood"}
    assert {category: PascalContext.classes[CATEGORY_IDS.index(category)] for category in known} == known


@pytest.mark.parametrize("legacy", [True, False])
def test_from_masks(tmp_path, voc, legacy):
    summary = prepare_pascal_context(tmp_path, masks=write_masks(tmp_path / "masks", legacy))
    assert summary.output == voc
    assert summary.images == {"train": 2, "val": 1}
    assert (summary.written, summary.unchanged) == (3, 0)
    assert_prepared(voc)
    data = PascalContext(tmp_path, num_workers=0)
    data.setup("test")
    ((sample,),) = data.test_dataloader()
    assert sample["name"] == "2009_000001"
    np.testing.assert_array_equal(sample["label"].numpy(), label_of(2009000001))


@pytest.mark.parametrize("as_strings", [True, False])
def test_from_json(tmp_path, voc, as_strings):
    prepare_pascal_context(voc, json=write_json(tmp_path / "trainval_merged.json", as_strings))
    assert_prepared(voc)


def test_annotations_are_found_in_the_data_sets_folder(voc):
    write_json(voc / "trainval_merged.json")
    assert prepare_pascal_context(voc).written == 3
    write_masks(voc)
    assert prepare_pascal_context(voc).unchanged == 3


def test_another_output(tmp_path, voc):
    prepare_pascal_context(voc, masks=write_masks(tmp_path / "masks"), output=tmp_path / "out")
    assert_prepared(tmp_path / "out")
    assert not (voc / "SegmentationClassContext").exists()


def test_existing_labels_are_kept_or_replaced_only_on_request(tmp_path, voc):
    masks = write_masks(tmp_path / "masks")
    changed = save(voc / "SegmentationClassContext/2010_000019.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    with pytest.raises(DataError, match=r"2010_000019.png: exists with other content"):
        prepare_pascal_context(voc, masks=masks)
    assert not (voc / "ImageSets/SegmentationContext/train.txt").exists()
    with Image.open(changed) as label:
        assert np.asarray(label).max() == 0
    summary = prepare_pascal_context(voc, masks=masks, overwrite=True)
    assert (summary.written, summary.unchanged) == (2, 1)
    assert_prepared(voc)
    assert prepare_pascal_context(voc, masks=masks).unchanged == 3


def test_existing_list_is_replaced_only_on_request(tmp_path, voc):
    masks = write_masks(tmp_path / "masks")
    prepare_pascal_context(voc, masks=masks)
    (voc / "ImageSets/SegmentationContext/val.txt").write_text("2010_000019\n")
    with pytest.raises(DataError, match=r"val.txt: exists with other content"):
        prepare_pascal_context(voc, masks=masks)
    prepare_pascal_context(voc, masks=masks, overwrite=True)
    assert_prepared(voc)


def test_damaged_existing_label_counts_as_other_content(tmp_path, voc):
    (voc / "SegmentationClassContext").mkdir()
    (voc / "SegmentationClassContext/2009_000001.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2009_000001.png: exists with other content"):
        prepare_pascal_context(voc, masks=write_masks(tmp_path / "masks"))


def test_missing_images_are_named_before_anything_is_written(tmp_path, voc):
    (voc / "JPEGImages/2009_000001.jpg").unlink()
    with pytest.raises(DataError, match=r"JPEGImages: 1 annotated images are missing: 2009_000001.jpg"):
        prepare_pascal_context(voc, masks=write_masks(tmp_path / "masks"))
    assert not (voc / "SegmentationClassContext").exists()


def test_label_of_another_size(tmp_path, voc):
    save(voc / "JPEGImages/2009_000001.jpg", picture(WIDTH, HEIGHT))
    with pytest.raises(DataError, match=r"2009_000001.jpg: the label is 16 x 12 pixels, its image 12 x 16"):
        prepare_pascal_context(voc, masks=write_masks(tmp_path / "masks"))


def test_no_annotations(voc):
    with pytest.raises(DataError, match=r"VOC2010: neither train.pth and val.pth nor trainval_merged.json"):
        prepare_pascal_context(voc)


def test_no_images(tmp_path):
    with pytest.raises(DataError, match=r"no folder JPEGImages in it"):
        prepare_pascal_context(tmp_path)


def test_both_sources(voc):
    with pytest.raises(ConfigError, match="choose one"):
        prepare_pascal_context(voc, masks=voc, json=voc / "trainval_merged.json")


def test_missing_mask_file(tmp_path, voc):
    (write_masks(tmp_path / "masks") / "val.pth").unlink()
    with pytest.raises(DataError, match=r"val.pth: no such file"):
        prepare_pascal_context(voc, masks=tmp_path / "masks")


class Payload:
    """Code that a careless unpickling would run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("legacy", [True, False])
def test_pickled_code_is_not_run(tmp_path, voc, legacy):
    masks = write_masks(tmp_path / "masks")
    ran = tmp_path / "ran"
    torch.save({2009000001: Payload(ran)}, masks / "val.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(DataError, match=r"val.pth: damaged, or holds more than label images"):
        prepare_pascal_context(voc, masks=masks)
    assert not ran.exists()
    (masks / "val.pth").write_bytes(pickle.dumps(Payload(ran)))
    with pytest.raises(DataError, match=r"val.pth"):
        prepare_pascal_context(voc, masks=masks)
    assert not ran.exists()


@pytest.mark.parametrize("content", [b"", b"<html>", None])
def test_damaged_mask_files(tmp_path, voc, content):
    masks = write_masks(tmp_path / "masks")
    if content is None:
        content = (masks / "val.pth").read_bytes()[:-50]
    (masks / "val.pth").write_bytes(content)
    with pytest.raises(DataError, match=r"val.pth: damaged"):
        prepare_pascal_context(voc, masks=masks)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "not a table of label images"),
        ({2009000001: torch.zeros(2)}, "not a table of label images"),
        ({"../../evil": Image.fromarray(label_of(1))}, "is no image id"),
        (
            {2009000001: Image.fromarray(picture(HEIGHT, WIDTH))},
            "image 2009000001 has not one byte per pixel",
        ),
        ({2009000001: Image.fromarray(label_of(1) + 60)}, "image 2009000001 has values that are no class"),
    ],
)
def test_mask_files_with_other_content(tmp_path, voc, content, message):
    masks = write_masks(tmp_path / "masks")
    torch.save(content, masks / "val.pth")
    with pytest.raises(DataError, match=rf"val.pth: .*{message}"):
        prepare_pascal_context(voc, masks=masks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("annos_segmentation"), "not the annotations of PASCAL in Detail"),
        (lambda content: content["images"][0].pop("phase"), "not the annotations of PASCAL in Detail"),
        (lambda content: content["images"][0].update(image_id="../x"), "is no image id"),
        (lambda content: content["annos_segmentation"][0].update(category_id=1), "segments of 2008_000002"),
        (lambda content: content["annos_segmentation"][0].pop("segmentation"), "segments of 2008_000002"),
        (lambda content: content["annos_segmentation"][0]["segmentation"].update(counts="5"), "2008_000002"),
        (
            lambda content: content["annos_segmentation"][0]["segmentation"].update(size=[1, 192]),
            "2008_000002",
        ),
    ],
)
def test_damaged_json(tmp_path, voc, change, message):
    path = write_json(tmp_path / "trainval_merged.json")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"trainval_merged.json: .*{message}"):
        prepare_pascal_context(voc, json=path)


@pytest.mark.parametrize("content", [None, b"", b"[1, 2", b"[1, 2]", b"\xff"])
def test_unreadable_json(tmp_path, voc, content):
    path = tmp_path / "trainval_merged.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"trainval_merged.json"):
        prepare_pascal_context(voc, json=path)
