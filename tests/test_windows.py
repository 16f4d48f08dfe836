"""Sliding windows: where they lie, how logits become labels, and how much memory that takes."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import noise, tiny_model

from lightning_expedite.errors import ConfigError
from lightning_expedite.evaluation import SlidingWindow, inference
from lightning_expedite.evaluation.inference import label_map
from lightning_expedite.evaluation.upsampling import interpolate_rows
from lightning_expedite.evaluation.windows import plan_windows, size_for_windows
from lightning_expedite.reducers import ACT, TokenClustering

CONVENTIONS = ("mmseg", "official")
sides = st.integers(1, 700)
windows_and_strides = st.integers(1, 300).flatmap(lambda window: st.tuples(st.just(window), st.integers(1, window)))


def starts_by_the_table(side, window, stride, convention):
    """The reference document's table, one window after the other."""
    starts = []
    if convention == "mmseg":
        for index in range(max(side - window + stride - 1, 0) // stride + 1):
            start = index * stride
            if start + window > side:
                start = max(side - window, 0)
            starts.append(start)
        return starts
    start = 0
    while start + window < side:
        starts.append(start)
        start += stride
    return [*starts, max(side - window, 0)]


@pytest.mark.parametrize("convention", CONVENTIONS)
@given(height=sides, width=sides, placed=windows_and_strides)
@settings(max_examples=200, deadline=None)
def test_windows_lie_where_the_convention_says_and_cover_every_pixel(convention, height, width, placed):
    plan = plan_windows((height, width), *placed, convention)
    assert plan.rows == tuple(starts_by_the_table(height, *placed, convention))
    assert plan.columns == tuple(starts_by_the_table(width, *placed, convention))
    assert plan.origins == [(row, column) for row in plan.rows for column in plan.columns]
    assert plan.window == (min(placed[0], height), min(placed[0], width))
    for starts, side, window in ((plan.rows, height, plan.window[0]), (plan.columns, width, plan.window[1])):
        assert sorted(set(starts)) == list(starts)
        covered = [position for start in starts for position in range(start, start + window)]
        assert set(covered) == set(range(side))


@pytest.mark.parametrize(
    ("image", "window", "stride", "mmseg", "official"),
    [
        ((640, 640), 640, 640, 1, 1),
        ((640, 960), 640, 640, 2, 2),
        ((1024, 2048), 768, 512, 8, 8),
        ((520, 693), 480, 320, 4, 4),
        ((1280, 640), 640, 640, 2, 2),
    ],
)
def test_numbers_of_windows_of_the_published_protocols(image, window, stride, mmseg, official):
    assert len(plan_windows(image, window, stride, "mmseg").origins) == mmseg
    assert len(plan_windows(image, window, stride, "official").origins) == official


@pytest.mark.parametrize("stride", [0, -1, 65])
def test_a_stride_that_leaves_gaps_is_refused(stride):
    with pytest.raises(ConfigError, match=rf"stride {stride} must lie between 1 and the window of 64"):
        plan_windows((100, 100), 64, stride, "mmseg")


def test_images_smaller_than_the_window_are_enlarged_in_the_official_convention_alone():
    assert size_for_windows((100, 200), 64, "official") == (100, 200)
    assert size_for_windows((64, 200), 64, "official") == (64, 200)
    assert size_for_windows((50, 201), 64, "official") == (64, int(201 / 50 * 64))
    assert size_for_windows((201, 50), 64, "official") == (int(201 / 50 * 64), 64)
    assert size_for_windows((33, 33), 64, "official") == (64, 64)
    assert size_for_windows((50, 201), 64, "mmseg") == (50, 201)


# --- Upsampling --------------------------------------------------------------------------------------


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    target=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    cuts=st.lists(st.integers(1, 149), max_size=4),
    seed=st.integers(0, 1000),
)
@settings(max_examples=300, deadline=None)
def test_bands_of_rows_equal_one_interpolation(height, width, target, cuts, seed):
    logits = noise(3, height, width, seed=seed)
    expected = F.interpolate(logits[None], target, mode="bilinear", align_corners=False)[0]
    borders = [0, *sorted({cut for cut in cuts if cut < target[0]}), target[0]]
    asked = []

    def rows(start, stop):
        asked.append((start, stop))
        return logits[:, start:stop]

    bands = [
        interpolate_rows(rows, (height, width), target, start, stop, logits.device)
        for start, stop in itertools.pairwise(borders)
    ]
    assert (torch.cat(bands, dim=1) - expected).abs().max() <= 1e-6 * max(1.0, expected.abs().max().item())
    assert all(0 <= start < stop <= height for start, stop in asked)


@pytest.mark.parametrize(
    ("size", "target"),
    [((40, 40), (640, 640)), ((640, 853), (512, 683)), ((520, 693), (375, 500)), ((48, 48), (768, 768))],
)
def test_bands_equal_one_interpolation_at_sizes_of_the_published_protocols(size, target):
    logits = noise(2, *size)
    expected = F.interpolate(logits[None], target, mode="bilinear")[0]
    bands = [
        interpolate_rows(lambda a, b: logits[:, a:b], size, target, start, min(start + 100, target[0]), logits.device)
        for start in range(0, target[0], 100)
    ]
    assert (torch.cat(bands, dim=1) - expected).abs().max() <= 1e-6 * expected.abs().max()


# --- Labels ------------------------------------------------------------------------------------------


def naive_scores(model, image, window, stride, convention, size):
    """Averaged logits ``(K, *size)`` of one image, everything held whole."""
    height, width = image.shape[1:]
    if convention == "official" and min(height, width) < window:
        height, width = (
            (window, int(width / height * window)) if height < width else (int(height / width * window), window)
        )
        image = F.interpolate(image[None], (height, width), mode="bilinear")[0]
    total, count = torch.zeros(model.num_classes, height, width), torch.zeros(height, width)
    for top in starts_by_the_table(height, window, stride, convention):
        for left in starts_by_the_table(width, window, stride, convention):
            crop = image[:, top : top + window, left : left + window]
            logits = model(crop[None])[0]
            total[:, top : top + window, left : left + window] += logits
            count[top : top + window, left : left + window] += 1
    return F.interpolate((total / count)[None], size, mode="bilinear")[0]


def same_labels(labels, scores, tolerance=1e-5):
    """Labels equal the argmax wherever the two best scores are not within the tolerance."""
    best = scores.topk(2, dim=0).values
    clear = best[0] - best[1] > tolerance
    assert clear.float().mean() > 0.99
    return torch.equal(labels[clear], scores.argmax(0)[clear])


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(
    ("image", "window", "stride", "size"),
    [
        ((64, 64), 64, 64, (64, 64)),
        ((90, 130), 64, 40, (90, 130)),
        ((90, 130), 64, 40, (217, 301)),
        ((100, 75), 60, 60, (50, 38)),
        ((40, 100), 64, 48, (80, 200)),
        ((70, 30), 64, 32, (70, 30)),
    ],
)
@pytest.mark.parametrize("band_bytes", [1, 40_000, 64 << 20])
@torch.inference_mode()
def test_labels_equal_a_full_size_implementation(monkeypatch, convention, image, window, stride, size, band_bytes):
    monkeypatch.setattr(inference, "BAND_BYTES", band_bytes)
    model = tiny_model(convention=convention)
    pixels = noise(3, *image)
    prediction = SlidingWindow(window, stride, 3, convention).predict(model, [(pixels, False)], size)
    assert prediction.labels.shape == size
    assert prediction.labels.dtype == torch.int64
    assert len(prediction.labels.unique()) > 2
    assert same_labels(prediction.labels, naive_scores(model, pixels, window, stride, convention, size))


@pytest.mark.parametrize("convention", CONVENTIONS)
@torch.inference_mode()
def test_scales_and_mirrors_are_averaged_after_softmax(monkeypatch, convention):
    monkeypatch.setattr(inference, "BAND_BYTES", 30_000)
    model = tiny_model(convention=convention)
    image, size = noise(1, 3, 60, 100), (75, 125)
    views, total = [], torch.zeros(5, *size)
    for scale in (0.5, 1, 1.5):
        scaled = F.interpolate(image, (int(60 * scale), int(100 * scale)), mode="bilinear")[0]
        for mirrored in (False, True):
            view = scaled.flip(-1) if mirrored else scaled
            views.append((view, mirrored))
            probability = naive_scores(model, view, 64, 48, convention, size).softmax(0)
            total += probability.flip(-1) if mirrored else probability
    prediction = SlidingWindow(64, 48, placement=convention).predict(model, views, size)
    assert same_labels(prediction.labels, total)


@torch.inference_mode()
def test_a_single_mirrored_view_is_turned_back():
    model = tiny_model()
    image = noise(3, 64, 90)
    prediction = SlidingWindow(64, 40).predict(model, [(image.flip(-1), True)], (64, 90))
    assert same_labels(prediction.labels, naive_scores(model, image.flip(-1), 64, 40, "mmseg", (64, 90)).flip(-1))


@torch.inference_mode()
def test_labels_do_not_depend_on_how_many_windows_go_through_the_model_at_once():
    model = tiny_model()
    image = noise(3, 100, 130)
    one = SlidingWindow(64, 32, 1).predict(model, [(image, False)], (100, 130))
    for batch_size in (2, 3, 100):
        other = SlidingWindow(64, 32, batch_size).predict(model, [(image, False)], (100, 130))
        assert (other.labels != one.labels).float().mean() < 1e-3
        assert other.windows == one.windows == 3 * 4


@torch.inference_mode()
def test_windows_that_the_reducer_left_unreduced_are_counted():
    model = tiny_model(TokenClustering(2, (4, 4)))
    image = noise(3, 32, 130)
    prediction = SlidingWindow(64, 64).predict(model, [(image, False), (image, False)], (32, 130))
    assert (prediction.windows, prediction.windows_unreduced) == (6, 0)  # cut on no side: 4 x 8 tokens
    prediction = SlidingWindow(32, 32).predict(model, [(image, False)], (32, 130))
    assert (prediction.windows, prediction.windows_unreduced) == (5, 5)
    model.reducer = ACT(1)
    assert SlidingWindow(64, 64).predict(model, [(image, False)], (32, 130)).windows_unreduced == 0
    model.reducer = None
    assert SlidingWindow(64, 64).predict(model, [(image, False)], (32, 130)).windows_unreduced == 0


@torch.inference_mode()
def test_label_map_of_bfloat16_windows():
    model = tiny_model().to(torch.bfloat16)
    image = noise(3, 90, 130).to(torch.bfloat16)
    logits = SlidingWindow(64, 40).window_logits(model, image)
    assert logits.logits.dtype == torch.bfloat16
    assert logits.rows(0, 90).dtype == torch.float32
    labels = label_map([(logits, False)], (180, 260))
    expected = F.interpolate(logits.rows(0, 90)[None], (180, 260), mode="bilinear")[0]
    assert same_labels(labels, expected)


MEMORY_PROGRAM = """
import json, re, sys, torch
sys.path.insert(0, sys.argv[1])
from lightning_expedite.evaluation import SlidingWindow
from tiny import tiny_model

def peak():
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1]) << 10

torch.set_num_threads(1)
model = tiny_model(num_classes=150, image_size=(640, 640), patch_size=16, depth=1, decoder_depth=1)
with torch.inference_mode():
    image = torch.randn(3, 640, 853)
    sliding = SlidingWindow(640, 640)
    sliding.predict(model, [(image, False)], (64, 48))
    before = peak()
    labels = sliding.predict(model, [(image, False)], (4000, 3000)).labels
print(json.dumps({"added": peak() - before, "size": list(labels.shape), "before": before}))
"""


def test_a_large_image_of_150_classes_takes_little_memory():
    """The logits at 4000 x 3000 alone would take 7.2 GB."""
    command = [sys.executable, "-c", MEMORY_PROGRAM, str(Path(__file__).parent)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    measured = json.loads(answer.stdout.splitlines()[-1])
    assert measured["size"] == [4000, 3000]
    assert measured["added"] < 1 << 30
