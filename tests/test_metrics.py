"""Scores against the reference implementation's and a naive count."""

import json
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from reference import DATA

from lightning_expedite.evaluation.metrics import SegmentationScores, class_counts, scores_of

NAMES = [f"ADE_val_{number:08d}.png" for number in (1, 2, 3)]


def ade_maps(name):
    prediction = np.asarray(Image.open(DATA / "metrics" / "prediction" / name)).astype(np.int64)
    label = np.asarray(Image.open(DATA / "metrics" / "label" / name)).astype(np.int64) - 1
    label[label < 0] = 255
    return torch.from_numpy(prediction)[None], torch.from_numpy(label)[None]


def test_scores_of_three_ade20k_images_equal_the_reference():
    reference = json.loads((DATA / "metrics" / "expected.json").read_text())
    metric = SegmentationScores(150)
    for name, single in zip(NAMES, reference["per_image"], strict=True):
        metric.update(*ade_maps(name))
        found = scores_of(class_counts(*ade_maps(name), 150)[0])
        for key, wanted in single.items():
            assert found[key].item() == pytest.approx(wanted, abs=1e-4)
    expected, scores = reference["overall"], metric.compute()
    for name in ("mIoU", "aAcc", "mAcc"):
        assert scores[name].item() == pytest.approx(expected[name], abs=1e-4)
    assert scores["intersection"].tolist() == expected["intersect"]
    assert scores["union"].tolist() == expected["union"]
    for iou, wanted in zip(scores["IoU"].tolist(), expected["IoU"], strict=True):
        assert np.isnan(iou) if wanted is None else iou == pytest.approx(wanted, abs=1e-4)


def naive_counts(prediction, target, classes):
    valid = target != 255
    return [
        [int((valid & (prediction == k) & (target == k)).sum()) for k in range(classes)],
        [int((valid & (prediction == k)).sum()) for k in range(classes)],
        [int((valid & (target == k)).sum()) for k in range(classes)],
    ]


@st.composite
def maps(draw):
    classes = draw(st.integers(1, 7))
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)))
    prediction = draw(arrays.arrays(np.int64, shape, elements=st.integers(0, classes - 1)))
    label = st.one_of(st.integers(0, classes - 1), st.just(255))
    return classes, prediction, draw(arrays.arrays(np.int64, shape, elements=label))


@given(maps())
@settings(max_examples=150, deadline=None)
def test_counts_and_scores_equal_naive_ones(drawn):
    classes, prediction, target = drawn
    counts = class_counts(torch.from_numpy(prediction), torch.from_numpy(target), classes)
    assert counts.dtype == torch.int64
    assert counts.tolist() == [naive_counts(*pair, classes) for pair in zip(prediction, target, strict=True)]
    scores = scores_of(counts.sum(0))
    hit, predicted, labelled = map(np.array, naive_counts(prediction, target, classes))
    union = predicted + labelled - hit
    assert scores["union"].tolist() == union.tolist()
    assert scores["intersection"].tolist() == hit.tolist()
    assert scores["prediction"].tolist() == predicted.tolist()
    assert scores["label"].tolist() == labelled.tolist()
    if labelled.sum() == 0:
        assert scores["aAcc"].isnan()
        assert scores["mAcc"].isnan()
        return
    assert scores["mIoU"].item() == pytest.approx(100 * np.mean(hit[union > 0] / union[union > 0]))
    assert scores["mAcc"].item() == pytest.approx(100 * np.mean(hit[labelled > 0] / labelled[labelled > 0]))
    assert scores["aAcc"].item() == pytest.approx(100 * hit.sum() / labelled.sum())


def test_absent_classes_are_left_out_of_the_means():
    metric = SegmentationScores(4)
    # class 1 is predicted and never labelled: it counts for the mIoU, not for the mAcc; 2 and 3 do not occur
    metric.update(torch.tensor([[[0, 0, 0, 1]]]), torch.tensor([[[0, 0, 0, 0]]]))
    scores = metric.compute()
    assert scores["IoU"].tolist()[:2] == [75, 0]
    assert scores["IoU"][2:].isnan().all()
    assert scores["Acc"].isnan().tolist() == [False, True, True, True]
    assert scores["mIoU"] == 37.5
    assert scores["mAcc"] == 75


def test_another_ignore_index():
    metric = SegmentationScores(2, ignore_index=-1)
    metric.update(torch.tensor([[[0, 1]]]), torch.tensor([[[0, -1]]]))
    assert metric.compute()["label"].tolist() == [1, 0]
    with pytest.raises(ValueError, match="target holds 255"):
        metric.update(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 255]]]))
    with pytest.raises(ValueError, match="ignore_index=1 is one of the 2 classes"):
        SegmentationScores(2, ignore_index=1)


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        ([[[0, 3]]], [[[0, 0]]], "prediction holds 3, which is none of the classes 0 to 2"),
        ([[[0, 255]]], [[[0, 255]]], "prediction holds 255"),
        ([[[-1, 0]]], [[[255, 0]]], "prediction holds -1"),
        ([[[0, 1]]], [[[0, 3]]], "target holds 3, which is none of the classes 0 to 2"),
        ([[[0, 1]]], [[[-1, 0]]], "target holds -1"),
        ([[[0.0, 1.0]]], [[[0, 0]]], "prediction has dtype torch.float32; it must hold integer"),
        ([[[0, 1]]], [[[0.0, 0.0]]], "target has dtype torch.float32; it must hold integer"),
        ([[[0, 1]]], [[[0, 1, 1]]], r"prediction \(1, 1, 2\) and target \(1, 1, 3\) must both be"),
        ([[0, 1]], [[0, 1]], r"prediction \(1, 2\) and target \(1, 2\) must both be \(B, H, W\)"),
    ],
)
def test_maps_that_cannot_be_scored_are_refused_and_leave_the_state_alone(prediction, target, message):
    metric = SegmentationScores(3)
    with pytest.raises(ValueError, match=message):
        metric.update(torch.tensor(prediction), torch.tensor(target))
    assert not metric.counts.any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_every_integer_type_counts_alike(dtype):
    prediction = torch.tensor([[[0, 1, 1]], [[1, 0, 0]]], dtype=dtype)
    target = torch.tensor([[[0, 1, 0]], [[1, 1, 1]]], dtype=dtype)
    assert class_counts(prediction, target, 2).tolist() == [
        [[1, 1], [1, 2], [2, 1]],
        [[0, 1], [2, 1], [0, 3]],
    ]


def test_more_pixels_than_float32_can_count_are_counted_exactly():
    side = 4100
    assert side * side > 1 << 24
    prediction = torch.zeros(1, side, side, dtype=torch.int64)
    target = torch.zeros(1, side, side, dtype=torch.int64)
    prediction[0, -1, -3:] = 1
    target[0, 0, 0] = 255
    start = time.process_time()
    counts = class_counts(prediction, target, 2)[0]
    assert time.process_time() - start < 5
    assert counts.tolist() == [[side**2 - 4, 0], [side**2 - 4, 3], [side**2 - 1, 0]]


def test_the_state_is_int64_and_grows_beyond_float32():
    metric = SegmentationScores(2)
    assert metric.counts.dtype == torch.int64
    step = torch.tensor([[1, 0], [1, 0], [2**40 + 1, 0]])
    for _ in range(3):
        metric.add_counts(step)
    assert metric.compute()["label"].tolist() == [3 * (2**40 + 1), 0]
    metric.to(torch.float32)
    metric.half()
    assert metric.counts.dtype == torch.int64
    metric.reset()
    assert metric.counts.dtype == torch.int64
    assert not metric.counts.any()


def test_counts_added_one_by_one_equal_one_update():
    one, other = SegmentationScores(150), SegmentationScores(150)
    for name in NAMES:
        one.update(*ade_maps(name))
        other.add_counts(class_counts(*ade_maps(name), 150)[0])
        other.compute()  # a score asked for in between is not kept
    assert torch.equal(one.compute()["mIoU"], other.compute()["mIoU"])
    assert torch.equal(one.counts, other.counts)
