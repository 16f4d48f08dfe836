import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import encoded, picture, save
from hypothesis import example, given
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


LARGE = np.zeros((700, 900), bool)
LARGE[100:650, 300:305] = True


@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 60))))
@example(LARGE)
def test_masks_survive_both_encodings(mask):
    runs = runs_of(mask)
    np.testing.assert_array_equal(decode_mask(mask.shape, runs), mask)
    np.testing.assert_array_equal(decode_mask(mask.shape, string_of(runs)), mask)


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
            images.append({"image_id": image_id, "phase": split, "height": HEIGHT, "width": WIDTH})
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
    assert summary == (voc, {"train": 2, "val": 1}, 3, 0)
    assert_prepared(voc)
    (sample,) = PascalContext(tmp_path).open_dataset()
    assert sample["name"] == "2009_000001"
    np.testing.assert_array_equal(sample["label"].numpy(), label_of(2009000001))


@pytest.mark.parametrize("as_strings", [True, False])
def test_from_json(tmp_path, voc, as_strings):
    prepare_pascal_context(voc, json=write_json(tmp_path / "trainval_merged.json", as_strings))
    assert_prepared(voc)


def test_annotations_are_found_in_the_data_sets_folder_and_may_go_to_another(tmp_path, voc):
    write_json(voc / "trainval_merged.json")
    assert prepare_pascal_context(voc, output=tmp_path / "out").written == 3
    assert_prepared(tmp_path / "out")
    assert not (voc / "SegmentationClassContext").exists()
    write_masks(voc)
    assert prepare_pascal_context(voc).written == 3
    assert prepare_pascal_context(voc).unchanged == 3


def test_other_labels_and_lists_are_replaced_only_on_request(tmp_path, voc):
    masks = write_masks(tmp_path / "masks")
    prepare_pascal_context(voc, masks=masks)
    label, listed = voc / "SegmentationClassContext/2010_000019.png", voc / "ImageSets/SegmentationContext/val.txt"
    for path, content in ((label, encoded(np.zeros((HEIGHT, WIDTH), np.uint8))), (label, b""), (listed, b"other")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{path.name}: exists with other content"):
            prepare_pascal_context(voc, masks=masks)
        assert path.read_bytes() == content
        summary = prepare_pascal_context(voc, masks=masks, overwrite=True)
        assert summary.written == (path == label)
        assert_prepared(voc)


class Payload:
    """Code that a careless unpickling would run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


LABEL = Image.fromarray(label_of(1))
MASKS = {  # what stands in the place of val.pth, and the message
    "nothing": (None, "no such file"),
    "an empty file": (b"", "damaged"),
    "a page of HTML": (b"<html>", "damaged"),
    "a list": ([1, 2], "not a table of label images"),
    "a tensor": ({2009000001: torch.zeros(2)}, "not a table of label images"),
    "a path": ({"../../evil": LABEL}, "is not an image id"),
    "colours": ({2009000001: Image.fromarray(picture(HEIGHT, WIDTH))}, "image 2009000001 has not one byte per pixel"),
    "no classes": ({2009000001: Image.fromarray(label_of(1) + 60)}, "image 2009000001 has values that are not classes"),
    "code": ({2009000001: Payload("ran")}, "damaged, or holds more than label images"),
    "code alone": (pickle.dumps(Payload("ran")), "damaged, or holds more than label images"),
}


@pytest.mark.parametrize("kind", [*MASKS, "a file cut short"])
@pytest.mark.parametrize("legacy", [True, False])
def test_a_damaged_file_of_masks(tmp_path, voc, monkeypatch, kind, legacy):
    monkeypatch.chdir(tmp_path)
    masks = write_masks(tmp_path / "masks", legacy)
    content, message = MASKS.get(kind, ((masks / "val.pth").read_bytes()[:-50], "damaged"))
    (masks / "val.pth").unlink()
    if isinstance(content, bytes):
        (masks / "val.pth").write_bytes(content)
    elif content is not None:
        torch.save(content, masks / "val.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(DataError, match=rf"val.pth: .*{message}"):
        prepare_pascal_context(voc, masks=masks)
    assert not (tmp_path / "ran").exists()


def test_images_that_do_not_fit_are_named_before_a_list_is_written(tmp_path, voc):
    masks = write_masks(tmp_path / "masks")
    image = save(voc / "JPEGImages/2009_000001.jpg", picture(WIDTH, HEIGHT))
    with pytest.raises(DataError, match=r"2009_000001.jpg: the label is 16 x 12 pixels, its image 12 x 16"):
        prepare_pascal_context(voc, masks=masks)
    assert not (voc / "ImageSets/SegmentationContext/val.txt").exists()
    image.unlink()
    with pytest.raises(DataError, match=r"JPEGImages: 1 annotated images are missing: 2009_000001.jpg"):
        prepare_pascal_context(voc, masks=masks, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_folders_and_too_many_annotations(tmp_path, voc):
    with pytest.raises(DataError, match=r"VOC2010: neither train.pth and val.pth nor trainval_merged.json"):
        prepare_pascal_context(voc)
    with pytest.raises(DataError, match=r"no folder JPEGImages in it"):
        prepare_pascal_context(voc / "JPEGImages")
    with pytest.raises(ConfigError, match="choose one"):
        prepare_pascal_context(voc, masks=voc, json=voc / "trainval_merged.json")


def first_segment(change):
    return lambda content: change(content["annos_segmentation"][0])


JSON = {  # what stands in the place of the file, or changes it, and the message
    "nothing": (None, "cannot be read"),
    "an empty file": (b"", "cannot be read as JSON"),
    "half a list": (b"[1, 2", "cannot be read as JSON"),
    "bytes": (b"\xff", "cannot be read as JSON"),
    "a list": (b"[1, 2]", "not the annotations of PASCAL in Detail"),
    "no segments": (lambda content: content.pop("annos_segmentation"), "not the annotations of PASCAL in Detail"),
    "no split": (lambda content: content["images"][0].pop("phase"), "not the annotations of PASCAL in Detail"),
    "a path": (lambda content: content["images"][0].update(image_id="../x"), "is not an image id"),
    "no class": (first_segment(lambda segment: segment.update(category_id=1)), "segments of 2008_000002"),
    "no mask": (first_segment(lambda segment: segment.pop("segmentation")), "segments of 2008_000002"),
    "too few runs": (first_segment(lambda segment: segment["segmentation"].update(counts="5")), "2008_000002"),
    "another size": (first_segment(lambda segment: segment["segmentation"].update(size=[1, 192])), "2008_000002"),
}


@pytest.mark.parametrize("kind", JSON)
def test_damaged_json(tmp_path, voc, kind):
    content, message = JSON[kind]
    path = tmp_path / "trainval_merged.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        annotations = json.loads(write_json(path).read_text())
        content(annotations)
        path.write_text(json.dumps(annotations))
    with pytest.raises(DataError, match=rf"trainval_merged.json: .*{message}"):
        prepare_pascal_context(voc, json=path)
