"""Losses of mIoU, resampled: against plain loops, known cases and a simulation of what an interval promises."""

import json

import numpy as np
import pytest
import torch
from recommend_files import counts_of, images_of, tome, write_test

from lightning_expedite.analysis import bootstrap
from lightning_expedite.analysis.bootstrap import bootstrap_losses
from lightning_expedite.analysis.comparison import ImageCounts, mean_iou, read_counts
from lightning_expedite.analysis.results import read_results
from lightning_expedite.errors import DataError
from lightning_expedite.evaluation.metrics import scores_of


def random_counts(seed, classes=17):
    """Counts with classes of all kinds: present, absent, labelled only, predicted only."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 10**9, classes) * (generator.random(classes) < 0.7)
    prediction = generator.integers(0, 10**9, classes) * (generator.random(classes) < 0.7)
    intersection = (np.minimum(label, prediction) * generator.random(classes)).astype(np.int64)
    return np.stack([intersection, prediction, label])


@pytest.mark.parametrize("seed", range(10))
def test_miou_is_that_of_the_metric(seed):
    counts = random_counts(seed)
    expected = scores_of(torch.from_numpy(counts))
    intersection, union = counts[0], counts[1] + counts[2] - counts[0]
    assert mean_iou(intersection, union) == pytest.approx(expected["mIoU"].item(), rel=1e-14)
    each = [float(mean_iou(intersection[k : k + 1], union[k : k + 1])) for k in range(len(union)) if union[k]]
    assert each == [value for value in expected["IoU"].tolist() if value == value]


def test_counts_are_read_as_they_were_written_and_those_of_another_run_refused(tmp_path):
    counts = counts_of(0.8)
    write_test(tmp_path, counts, tome(0.2))
    write_test(tmp_path / "other", counts_of(0.7), None)
    read = read_counts(read_results([tmp_path / "results.json"])["evaluation"][0])
    assert read.images == counts.images
    for name in ("intersection", "prediction", "label", "union"):
        assert (getattr(read, name) == getattr(counts, name)).all()
    (tmp_path / "images.jsonl").write_bytes((tmp_path / "other/images.jsonl").read_bytes())
    with pytest.raises(DataError, match="do not add up"):
        read_counts(read_results([tmp_path / "results.json"])["evaluation"][0])


@pytest.mark.parametrize("damage", [{"classes": [99]}, {"label": [1]}, {"classes": None}])
def test_damaged_lines_are_refused(tmp_path, damage):
    counts = counts_of(0.8, images=2)
    write_test(tmp_path, counts, None)
    first, second = images_of(counts)
    lines = [first | damage | ({"intersection": [1], "prediction": [1], "label": [1]} if "classes" in damage else {})]
    (tmp_path / "images.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in [*lines, second]))
    with pytest.raises(DataError, match=r"images\.jsonl, line 1"):
        read_counts(read_results([tmp_path])["evaluation"][0])


def loss_in_plain_loops(unreduced, reduced, chosen):
    """Loss on a resample: sums over its images, class by class."""
    scores = []
    for counts in (unreduced, reduced):
        ious = []
        for k in range(counts.label.shape[1]):
            hits = sum(int(counts.intersection[image, k]) for image in chosen)
            union = sum(int(counts.prediction[image, k]) + int(counts.label[image, k]) for image in chosen) - hits
            ious += [100 * hits / union] if union else []
        scores.append(sum(ious) / len(ious))
    return scores[0] - scores[1]


def test_resampled_losses_are_those_of_plain_loops(monkeypatch):
    images = 7
    unreduced, reduced = counts_of(0.9, images), counts_of(0.8, images)
    monkeypatch.setattr(bootstrap, "_BLOCK_VALUES", 5 * images)  # blocks of 5, and one of 3
    losses = bootstrap_losses(unreduced, [reduced, unreduced], resamples=23, seed=4)
    assert losses.resampled.shape == (23, 2)
    single = bootstrap_losses(unreduced, [reduced], 400)  # whose bound is the end of its interval
    assert single.upper_bounds(0.95)[0] == pytest.approx(single.interval(0, 0.9)[1], abs=1e-9)
    assert single.probability(0, single.upper_bounds(0.95)[0] + 1e-9) == pytest.approx(0.95, abs=0.01)
    assert losses.estimates[0] == pytest.approx(loss_in_plain_loops(unreduced, reduced, range(images)), abs=1e-10)
    generator = np.random.default_rng(4)
    for number in range(23):
        drawn = generator.multinomial(images, [1 / images] * images)
        chosen = [image for image, times in enumerate(drawn) for _ in range(times)]
        assert len(chosen) == images
        expected = loss_in_plain_loops(unreduced, reduced, chosen)
        assert losses.resampled[number, 0] == pytest.approx(expected, abs=1e-10)
        assert losses.resampled[number, 1] == 0


def test_an_influence_is_the_derivative_by_the_image_s_weight():
    counts = counts_of(0.8, images=5)
    weights = np.array([[1.0, 2, 0, 1, 1]])
    _, influence = bootstrap.miou_and_influence(weights, counts)
    for image in range(5):
        step = 1e-5 * np.eye(5)[image]
        up, down = (bootstrap.miou_and_influence(weights + sign * step, counts)[0][0] for sign in (1, -1))
        assert influence[0, image] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-6)


def test_one_differing_image_gives_a_finite_bound():
    counts = counts_of(0.8)
    hits = counts.intersection.copy()
    hits[3] //= 2
    losses = bootstrap_losses(counts, [ImageCounts(counts.images, hits, counts.prediction, counts.label)], 300)
    assert losses.estimates[0] < losses.upper_bounds(0.95)[0] < 10 * losses.estimates[0]


def test_an_identical_run_loses_nothing_with_certainty():
    counts = counts_of(0.8)
    losses = bootstrap_losses(counts, [counts], resamples=50)
    assert losses.estimates.tolist() == losses.upper_bounds(0.95).tolist() == [0]
    assert (losses.interval(0, 0.95), losses.probability(0, 0.0)) == ((0, 0), 1)


def test_what_images_share_cancels_out():
    """Images of very different quality: the difference of two models alike on each is far surer than either score."""
    generator = np.random.default_rng(0)
    label = generator.integers(1000, 2000, (80, 3))
    share = np.clip(generator.normal(0.6, 0.2, (80, 1)), 0.1, 0.95)
    names = tuple((number, str(number), 1, 1) for number in range(80))
    sides = [
        ImageCounts(names, hits, hits + (label - hits)[:, ::-1], label)
        for hits in ((label * share).astype(np.int64), (label * (share - 0.01)).astype(np.int64))
    ]
    low, high = bootstrap_losses(sides[0], sides[1:], 500).interval(0, 0.95)
    weights = next(bootstrap.draw_weights(80, 500, 0))
    spread = bootstrap.miou_and_influence(weights, sides[0])[0].std()
    assert 0 < low < high
    assert high - low < spread / 3


def test_other_images_are_an_error():
    with pytest.raises(ValueError, match="every image of a setting must be one of the baseline"):
        bootstrap_losses(counts_of(0.9, 10), [counts_of(0.9, 11)], 5)


def samples(generator, images, settings, loss=0.01):
    """Draw images of an endless population, with settings that all lose the same in truth."""
    present = generator.random((images, 8)) < np.linspace(1, 0.5, 8)
    label = (present * generator.gamma(1.0, 2000, present.shape)).astype(np.int64)
    quality = generator.normal(0.85, 0.08, present.shape)
    names = tuple((number, str(number), 1, 1) for number in range(images))
    for lost in [0.0, *[loss] * settings]:
        share = np.clip(quality - lost * generator.gamma(1.0, 1.0, present.shape), 0, 1)
        hits = (label * share).astype(np.int64)
        yield ImageCounts(names, hits, hits + label // 20, label)


def test_intervals_and_bounds_hold_as_often_as_they_say():
    unreduced, *settings = samples(np.random.default_rng(0), 40_000, 1)
    truth = unreduced.miou - settings[0].miou
    generator = np.random.default_rng(1)
    rounds, inside, below, smallest_below, all_below = 250, 0, 0, 0, 0
    for number in range(rounds):
        unreduced, *settings = samples(generator, 60, 8)
        losses = bootstrap_losses(unreduced, settings, 250, seed=number)
        low, high = losses.interval(0, 0.9)
        inside += low <= truth <= high
        single = [np.quantile(losses.plausible[:, setting], 0.95) for setting in range(8)]
        below += truth <= single[0]
        smallest_below += truth <= min(single)
        all_below += (truth <= losses.upper_bounds(0.95)).all()
    assert 0.82 <= inside / rounds <= 0.96
    assert 0.88 <= below / rounds <= 0.99
    assert smallest_below / rounds < 0.8  # why the bounds have to hold for all settings at once
    assert 0.86 <= all_below / rounds <= 0.99
