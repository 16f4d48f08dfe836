"""The parts of the benchmark: statistics, interleaving, crops, batch sizes, untrained weights."""

import numpy as np
import pytest
import torch
from tiny import noise, tiny_model

from lightning_expedite.benchmarking import (
    BenchmarkSettings,
    CropSource,
    benchmark,
    compare,
    count_multiply_adds,
    untrained_segmenter,
    variants,
)
from lightning_expedite.benchmarking.crops import central_crop, cover
from lightning_expedite.benchmarking.timing import (
    FEWEST_PAIRS,
    count_rounds,
    describe_latency,
    describe_speedup,
    find_batch_size,
    time_interleaved,
)
from lightning_expedite.benchmarking.variants import Variant, make_variants, parse_precision
from lightning_expedite.benchmarking.whole_images import measure_whole_images
from lightning_expedite.errors import ConfigError, DataError
from lightning_expedite.evaluation import SlidingWindow, compiling
from lightning_expedite.models import KNOWN_WEIGHTS, Architecture, Segmenter
from lightning_expedite.reducers import TokenClustering, ToMe

CPU = torch.device("cpu")
SECONDS = [0.31, 0.12, 0.45, 0.2, 0.9, 0.33, 0.28]


class Images:
    """A data set of images of given sizes, each of its own noise."""

    def __init__(self, *sizes, constant=()):
        self.images = [noise(3, *size, seed=number) for number, size in enumerate(sizes)]
        for number in constant:
            self.images[number] = torch.zeros_like(self.images[number])
        self.read = []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, position):
        self.read.append(position)
        image = self.images[position]
        size = tuple(image.shape[1:])
        return {"name": f"image {position}", "size": size, "views": [{"image": image, "mirrored": False}]}


def crops_of(*sizes):
    return CropSource(Images(*sizes), (64, 64), enlarge=False)


def quick(**settings):
    defaults = {"device": "cpu", "batch_size": 1, "iterations": 5, "seconds": 0, "warmup": 1}
    return BenchmarkSettings(**{**defaults, **settings})


# --- Timing ------------------------------------------------------------------------------------------


def test_statistics_are_numpys():
    latency = describe_latency(SECONDS)
    for name, share in (("median_ms", 50), ("q1_ms", 25), ("q3_ms", 75), ("p95_ms", 95)):
        assert latency[name] == pytest.approx(1000 * np.percentile(SECONDS, share))
    assert latency["n"] == 7


def test_a_speedup_is_the_median_of_the_pairs_and_not_the_ratio_of_medians():
    baseline, reduced = SECONDS, SECONDS[::-1]
    ratios = np.array(baseline) / np.array(reduced)
    speedup = describe_speedup(baseline, reduced)
    assert speedup["median"] == pytest.approx(np.median(ratios))
    assert [speedup["q1"], speedup["q3"]] == pytest.approx(np.percentile(ratios, [25, 75]).tolist())
    assert (speedup["min"], speedup["max"], speedup["pairs"]) == (ratios.min(), ratios.max(), 7)
    assert describe_speedup([1, 1, 4], [1, 2, 1])["median"] == 1  # medians: 1 and 1; means would give 1.5


def test_variants_are_timed_alternately_on_the_same_input_without_its_preparation(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("lightning_expedite.benchmarking.timing.time.perf_counter", lambda: next(clock))
    calls = []

    def prepare(number):
        next(clock)
        return number * 10

    both = [lambda images, name=name: calls.append((name, images)) for name in "AB"]
    seconds = time_interleaved(both, prepare, CPU, range(6))
    assert calls == [(name, number * 10) for number in range(6) for name in "AB"]
    assert seconds == [[1] * 6] * 2  # two consecutive readings of the clock


@pytest.mark.parametrize(("pairs", "seconds", "done"), [(8, 60.0, 8), (8, 0.0, FEWEST_PAIRS)])
def test_a_time_limit_ends_the_rounds_early_but_not_before_the_fewest_pairs(pairs, seconds, done):
    assert list(count_rounds(pairs, seconds)) == list(range(done))


@pytest.mark.parametrize(
    ("rates", "fits", "seconds", "choice"),
    [
        ({1: 10, 2: 19, 4: 30, 8: 30.5}, 99, 1e9, (4, "gain")),
        ({1: 10, 2: 19, 4: 30, 8: 50}, 4, 1e9, (4, "memory")),
        ({1: 10, 2: 19, 4: 30, 8: 50}, 99, 0.9, (2, "time")),
    ],
)
def test_the_batch_doubles_until_it_is_no_gain(rates, fits, seconds, choice):
    def run(size):
        if size > fits:
            raise torch.OutOfMemoryError("no room")
        return [size / rates[size], size / 10]

    assert find_batch_size(run, lambda: seconds) == choice


def test_the_passes_of_an_image_are_timed_within_it():
    samples = Images((64, 150), (64, 64))
    share = measure_whole_images(samples, 5, Variant(tiny_model(), "32-true", CPU), SlidingWindow(64, 43, batch_size=2))
    assert samples.read == [0, 1]
    assert (share["images"], share["windows_per_image"]) == (2, 2)  # three and one
    assert 0 < share["window_ms"] * 2 < share["image_ms"]
    whole = share["load_ms"] + share["transfer_ms"] + share["image_ms"]
    assert share["model_share"] == pytest.approx(share["window_ms"] * 2 / whole)


# --- Variants ----------------------------------------------------------------------------------------


def test_both_variants_share_their_weights_and_only_one_reduces():
    model = tiny_model(ToMe(0.4))
    baseline, reduced = make_variants(model, "32-true", CPU, False)
    assert baseline.model.reducer is None
    assert reduced.model.reducer is model.reducer
    assert baseline.model.encoder is reduced.model.encoder is model.encoder
    images = noise(1, 3, 64, 64)
    assert torch.equal(baseline.window(images), tiny_model().segment_patches(images).logits)
    assert not torch.equal(baseline.window(images), reduced.window(images))


@pytest.mark.parametrize(
    ("precision", "weights", "logits"),
    [
        ("32-true", torch.float32, torch.float32),
        ("bf16-true", torch.bfloat16, torch.bfloat16),
        ("16-true", torch.float16, torch.float16),
        ("bf16-mixed", torch.float32, None),
    ],
)
def test_precisions(precision, weights, logits):
    _, reduced = make_variants(tiny_model(ToMe(0.4)), precision, CPU, False)
    images = noise(1, 3, 64, 64)
    result = reduced.window(images.to(variants.input_dtype(precision)))
    assert reduced.model.encoder.pos_embed.dtype is weights
    if logits is None:  # autocast takes the last norm back to float32, but not the products
        assert not torch.equal(result, tiny_model(ToMe(0.4)).segment_patches(images).logits)
    else:
        assert result.dtype is logits


def test_precisions_by_lightnings_names():
    names = (None, 32, "16", "bf16", "16-true")
    assert [parse_precision(name) for name in names] == ["32-true", "32-true", "16-mixed", "bf16-mixed", "16-true"]
    with pytest.raises(ConfigError, match="precision 64-true is not supported here: choose 32-true"):
        parse_precision("64-true")


def test_untrained_weights_are_the_same_each_time_and_leave_the_generator_alone():
    sizes = tiny_model().architecture
    state = torch.random.get_rng_state()
    first, second = (untrained_segmenter(sizes, "mmseg").state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert all(value.isfinite().all() for value in first.values())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_known_architectures_are_those_of_the_published_rows():
    for name, window, classes, depth in (
        ("ade20k/seg_large_mask_640", 640, 150, 2),
        ("cityscapes/seg_large_mask", 768, 19, 1),
        ("pascal_context/seg_large_mask", 480, 60, 2),
    ):
        published = Architecture((window, window), 16, 1024, 24, 16, classes, decoder_depth=depth)
        assert KNOWN_WEIGHTS[name].architecture == published


# --- Crops -------------------------------------------------------------------------------------------


def test_crops_are_the_centres_of_different_images():
    images = Images((70, 90), (64, 100), (64, 64))
    crops = CropSource(images, (64, 64), enlarge=False)
    assert images.read == [0]  # no more than needed
    batch = crops.batch(0, 3)
    assert torch.equal(batch[0], images.images[0][:, 3:67, 13:77])
    assert torch.equal(batch[1], images.images[1][:, :, 18:82])
    assert torch.equal(batch[2], images.images[2])
    assert torch.equal(crops.batch(1, 3), batch[[1, 2, 0]])  # few images are repeated
    assert (crops.count, crops.size) == (3, (64, 64))


@pytest.mark.parametrize(
    ("sizes", "size", "used"),
    [
        (((40, 90), (64, 64), (90, 40), (70, 70)), (64, 64), [1, 3]),  # skips small images
        (((40, 90), (50, 64), (40, 80)), (40, 64), [0, 2]),  # all are small: as in an evaluation
    ],
)
def test_small_images(sizes, size, used):
    images = Images(*sizes)
    crops = CropSource(images, (64, 64), enlarge=False)
    batch = crops.batch(0, len(used))
    assert crops.size == size
    assert all(torch.equal(crop, central_crop(images.images[i], size)) for crop, i in zip(batch, used, strict=True))
    assert crops.batch(0, 8).shape == (8, 3, *size)


def test_a_requested_size_is_reached_by_enlarging():
    crops = CropSource(Images((40, 90), (64, 64)), (64, 128), enlarge=True)
    assert crops.batch(0, 2).shape == (2, 3, 64, 128)
    assert cover(noise(3, 40, 90), (64, 128)).shape == (3, 64, 144)


def test_constant_images_are_not_measured_with():
    images = Images((64, 64), (64, 64), (64, 64), constant=[0, 2])
    crops = CropSource(images, (64, 64), enlarge=False)
    assert torch.equal(crops.batch(0, 1)[0], images.images[1])
    assert (len(crops.batch(0, 3)), crops.count) == (3, 1)
    with pytest.raises(DataError, match="nothing to measure with"):
        CropSource(Images((64, 64), constant=[0]), (64, 64), enlarge=False)


# --- Rows --------------------------------------------------------------------------------------------


def test_a_row_without_a_reducer_is_timed_alone():
    row = compare(tiny_model(), crops_of((64, 64)), quick())
    assert row["latency"]["reduced"] is None
    assert row["latency"]["speedup"] == {"median": 1, "q1": 1, "q3": 1, "min": 1, "max": 1, "pairs": 0}
    assert (row["gflops"]["reduced"], row["gflops"]["ratio"], row["efficiency"]) == (None, None, None)
    assert row["peak_memory_mib"]["reduced"] is None


def test_a_cluster_row_counts_both_variants():
    crops, model = crops_of(*[(64, 64)] * 3), tiny_model(TokenClustering(1, (3, 3)))
    steps = []
    row = compare(model, crops, quick(batch_size=2), steps.append)
    assert steps == ["counting", "warming up", "latency", "throughput at batch 2"]
    images = crops.batch(0, 1)
    assert row["gflops"]["reduced"] == count_multiply_adds(model, images) / 1e9
    assert row["gflops"]["unreduced"] == count_multiply_adds(tiny_model(), images) / 1e9
    assert row["gflops"]["ratio"] == row["gflops"]["unreduced"] / row["gflops"]["reduced"]
    assert row["efficiency"] == row["latency"]["speedup"]["median"] / row["gflops"]["ratio"]
    assert row["throughput"]["batch_size"] == 2
    assert row["throughput"]["reduced"] == pytest.approx(2 / np.median(row["throughput"]["seconds"]["reduced"]))
    assert row["peak_memory_mib"]["unreduced"] > row["peak_memory_mib"]["reduced"] > 0
    assert row["attention_kernels"]["unreduced"] == ["_scaled_dot_product_flash_attention_for_cpu"]


def test_a_batch_that_does_not_fit_is_halved(monkeypatch):
    segment = Segmenter.segment_patches

    def limited(model, images):
        if len(images) > 2:
            raise torch.OutOfMemoryError("no room")
        return segment(model, images)

    monkeypatch.setattr(Segmenter, "segment_patches", limited)
    throughput = compare(tiny_model(ToMe(0.4)), crops_of(*[(64, 64)] * 3), quick(batch_size=8))["throughput"]
    assert (throughput["batch_size"], throughput["chosen"]) == (2, "memory")
    assert throughput["speedup"]["pairs"] == FEWEST_PAIRS


@pytest.mark.parametrize("compiled", ["reduce-overhead", True, False])
def test_peak_memory_on_a_cpu_is_that_of_the_uncompiled_pass(compiled, monkeypatch):
    calls = []

    def compiled_pass(model, images):
        calls.append(model)
        return variants.patch_logits(model, images)

    def count_calls(model, call, device):
        calls.clear()
        call()
        return len(calls)

    monkeypatch.setattr(compiling, "OLDEST_COMPILER", "2")  # nothing is compiled here
    monkeypatch.setattr(torch, "compile", lambda *_, **__: compiled_pass)
    monkeypatch.setattr(benchmark, "peak_memory_mib", count_calls)
    row = compare(tiny_model(ToMe(0.4)), crops_of((64, 64)), quick(compile=compiled))
    assert row["peak_memory_mib"] == {"unreduced": 0, "reduced": 0}
    assert row["peak_memory_pass"] == ("uncompiled" if compiled else "timed")
