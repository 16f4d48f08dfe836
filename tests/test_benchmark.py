"""The parts of the benchmark: statistics, turns, crops, batch sizes, weights that nobody trained."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import noise, tiny_model

from lightning_expedite.benchmarking import benchmark as benchmarks
from lightning_expedite.benchmarking import sides
from lightning_expedite.benchmarking.benchmark import Benchmark, BenchmarkSettings
from lightning_expedite.benchmarking.costs import on_meta
from lightning_expedite.benchmarking.crops import CropSource, central_crop, cover, require_content
from lightning_expedite.benchmarking.flops import count_multiply_adds
from lightning_expedite.benchmarking.sides import make_sides, without_reducer
from lightning_expedite.benchmarking.throughput import find_batch_size
from lightning_expedite.benchmarking.timing import (
    FEWEST_PAIRS,
    Budget,
    Stopwatch,
    describe_latency,
    describe_speedup,
    time_in_turns,
)
from lightning_expedite.benchmarking.untrained import calibrate_queries, find_factor, scale_queries, untrained_segmenter
from lightning_expedite.benchmarking.whole_images import measure_whole_images
from lightning_expedite.errors import ConfigError, DataError
from lightning_expedite.evaluation import SlidingWindow, compiling
from lightning_expedite.models.segmenter import Architecture
from lightning_expedite.models.segmenter.weights import KNOWN_WEIGHTS
from lightning_expedite.reducers import ACT, TokenClustering, ToMe

CPU = torch.device("cpu")
SAMPLES = [0.31, 0.12, 0.45, 0.2, 0.9, 0.33, 0.28]


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


def test_statistics_are_numpys():
    latency = describe_latency(SAMPLES)
    for name, share in (("median_ms", 50), ("q1_ms", 25), ("q3_ms", 75), ("p95_ms", 95)):
        assert latency[name] == pytest.approx(1000 * np.percentile(SAMPLES, share))
    assert latency["n"] == 7


def test_a_speedup_is_the_median_of_the_pairs_and_not_the_ratio_of_medians():
    unreduced, reduced = SAMPLES, SAMPLES[::-1]
    ratios = np.array(unreduced) / np.array(reduced)
    speedup = describe_speedup(unreduced, reduced)
    assert speedup["median"] == pytest.approx(np.median(ratios))
    assert [speedup["q1"], speedup["q3"]] == pytest.approx(np.percentile(ratios, [25, 75]).tolist())
    assert (speedup["min"], speedup["max"], speedup["pairs"]) == (ratios.min(), ratios.max(), 7)
    assert describe_speedup([1, 1, 4], [1, 2, 1])["median"] == 1  # medians: 1 and 1; means would give 1.5


def test_sides_take_turns_on_the_same_input():
    calls = []
    sides = [lambda given, name=name: calls.append((name, given)) for name in "AB"]
    seconds = time_in_turns(sides, lambda number: number * 10, Stopwatch(CPU), Budget(6, 60))
    assert calls == [(name, number * 10) for number in range(6) for name in "AB"]
    assert [len(side) for side in seconds] == [6, 6]


def test_preparing_an_input_is_not_timed(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("lightning_expedite.benchmarking.timing.time.perf_counter", lambda: next(clock))
    used = []
    seconds = time_in_turns(
        [lambda given: None], lambda number: used.append(next(clock)), Stopwatch(CPU), Budget(5, 1e9)
    )
    assert len(used) == 5
    assert seconds == [[1] * 5]  # two readings that follow each other


@pytest.mark.parametrize(("pairs", "seconds", "done"), [(8, 60.0, 8), (8, 0.0, FEWEST_PAIRS)])
def test_a_budget_ends_early_but_not_before_the_fewest_pairs(pairs, seconds, done):
    assert list(Budget(pairs, seconds).rounds()) == list(range(done))


def test_the_passes_of_an_image_are_timed_within_it():
    samples = Images((64, 150), (64, 64))
    (side,) = make_sides(tiny_model(), "32-true", CPU, False)
    share = measure_whole_images(samples, 5, side, SlidingWindow(64, 43, batch_size=2), Stopwatch(CPU))
    assert samples.read == [0, 1]
    assert (share["images"], share["windows_per_image"]) == (2, 2)  # three and one
    assert 0 < share["window_ms"] * 2 < share["image_ms"]
    whole = share["load_ms"] + share["transfer_ms"] + share["image_ms"]
    assert share["model_share"] == pytest.approx(share["window_ms"] * 2 / whole)


def test_both_sides_share_their_weights_and_only_one_reduces():
    model = tiny_model(ToMe(0.4))
    one, other = make_sides(model, "32-true", CPU, False)
    assert one.model.reducer is None
    assert other.model.reducer is model.reducer
    assert one.model.encoder is other.model.encoder is model.encoder
    images = noise(1, 3, 64, 64)
    assert torch.equal(one.window(images), tiny_model().segment_patches(images).logits)
    assert not torch.equal(one.window(images), other.window(images))
    assert without_reducer(model).reducer is None
    assert model.reducer is not None


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
    settings = BenchmarkSettings(CPU, precision)
    crops = CropSource(Images((64, 64)), (64, 64), False)
    benchmark = Benchmark(tiny_model(ToMe(0.4)), crops, settings, lambda text: None)
    result = benchmark.sides[1].window(benchmark.input(0, 1))
    assert benchmark.sides[0].model.encoder.pos_embed.dtype is weights
    if logits is None:  # autocast takes the last norm back to float32, but not the products
        exact = tiny_model(ToMe(0.4)).segment_patches(crops.batch(0, 1)).logits
        assert not torch.equal(result, exact)
    else:
        assert result.dtype is logits


def test_crops_are_the_middle_of_different_images():
    images = Images((70, 90), (64, 100), (64, 64))
    crops = CropSource(images, (64, 64), enlarge=False)
    assert images.read == [0]  # no more than is asked for
    batch = crops.batch(0, 3)
    assert torch.equal(batch[0], images.images[0][:, 3:67, 13:77])
    assert torch.equal(batch[1], images.images[1][:, :, 18:82])
    assert torch.equal(batch[2], images.images[2])
    assert torch.equal(crops.batch(1, 3), batch[[1, 2, 0]])  # they repeat when they run out
    assert (crops.count, crops.size) == (3, (64, 64))


def test_small_images_are_passed_over_where_others_fill_the_window():
    crops = CropSource(Images((40, 90), (64, 64), (90, 40), (70, 70)), (64, 64), enlarge=False)
    assert crops.size == (64, 64)
    crops.batch(0, 2)
    assert crops.names == ["image 1", "image 3"]


def test_where_all_images_are_small_they_are_used_as_an_evaluation_would():
    crops = CropSource(Images((40, 90), (50, 64), (40, 80)), (64, 64), enlarge=False)
    assert crops.size == (40, 64)
    crops.batch(0, 8)
    assert crops.names == ["image 0", "image 2"]


def test_a_size_that_was_asked_for_is_reached_by_enlarging():
    crops = CropSource(Images((40, 90), (64, 64)), (64, 128), enlarge=True)
    assert crops.batch(0, 2).shape == (2, 3, 64, 128)
    assert cover(noise(3, 40, 90), (64, 128)).shape == (3, 64, 144)
    assert central_crop(noise(3, 40, 90), (64, 64)).shape == (3, 40, 64)


def test_images_of_one_value_are_no_input():
    crops = CropSource(Images((64, 64), (64, 64), (64, 64), constant=[0, 2]), (64, 64), enlarge=False)
    crops.batch(0, 3)
    assert crops.names == ["image 1"]
    with pytest.raises(DataError, match="nothing to measure with"):
        CropSource(Images((64, 64), constant=[0]), (64, 64), enlarge=False)
    with pytest.raises(DataError, match=r"crop 1 .* one value everywhere"):
        require_content(torch.stack((noise(3, 8, 8), torch.zeros(3, 8, 8))))
    with pytest.raises(DataError, match="no finite numbers"):
        require_content(torch.full((1, 3, 8, 8), torch.nan))


@pytest.mark.parametrize(
    ("rates", "fits", "seconds", "choice"),
    [
        ({1: 10, 2: 19, 4: 30, 8: 30.5}, 99, 1e9, (4, "gain")),
        ({1: 10, 2: 19, 4: 30, 8: 50}, 4, 1e9, (4, "memory")),
        ({1: 10, 2: 19, 4: 30, 8: 50}, 99, 0.9, (2, "time")),
    ],
)
def test_the_batch_doubles_until_it_pays_no_more(rates, fits, seconds, choice):
    def run(size):
        if size > fits:
            raise torch.OutOfMemoryError("no room")
        return [size / rates[size], size / 10]

    assert find_batch_size(run, lambda: seconds) == choice


def test_a_batch_that_does_not_fit_is_halved(monkeypatch):
    settings = BenchmarkSettings(CPU, batch_size=8, iterations=5, seconds=0.0)
    crops = CropSource(Images(*[(64, 64)] * 3), (64, 64), False)
    benchmark = Benchmark(tiny_model(ToMe(0.4)), crops, settings, lambda text: None)
    original = type(benchmark.sides[0].model).segment_patches

    def limited(model, images):
        if len(images) > 2:
            raise torch.OutOfMemoryError("no room")
        return original(model, images)

    monkeypatch.setattr(type(benchmark.sides[0].model), "segment_patches", limited)
    throughput = benchmark.throughput(benchmark.time(1, Budget(5, 0.0)))
    assert (throughput["batch_size"], throughput["chosen"]) == (2, "memory")
    assert throughput["speedup"]["pairs"] == FEWEST_PAIRS


def test_known_architectures_are_those_of_the_published_rows():
    for name, window, classes, depth in (
        ("ade20k/seg_large_mask_640", 640, 150, 2),
        ("cityscapes/seg_large_mask", 768, 19, 1),
        ("pascal_context/seg_large_mask", 480, 60, 2),
    ):
        assert KNOWN_WEIGHTS[name].architecture == Architecture(
            (window, window), 16, 1024, 24, 16, classes, decoder_depth=depth
        )


def test_every_known_model_has_an_architecture_of_its_window_and_backbone():
    widths = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12), "large": (1024, 16)}
    widths |= {f"vit-{name[0]}": sizes for name, sizes in widths.items()}
    for name, known in KNOWN_WEIGHTS.items():
        sizes = known.architecture
        part = next(part for part in widths if part in name)
        assert (sizes.width, sizes.heads) == widths[part]
        assert sizes.image_size == (known.protocol.window, known.protocol.window)
        assert sizes.distilled is ("deit" in name)
        assert sizes.decoder == ("linear" if "linear" in name else "mask_transformer")
        assert sizes.patch_size == (8 if "patch8" in name else 16)
        assert sizes.num_classes == {"ade20k": 150, "cityscapes": 19, "pascal_context": 60}[known.data_set]
        on_meta(untrained_on_meta(sizes))


def untrained_on_meta(sizes):
    with torch.device("meta"):
        return untrained_segmenter(sizes, "mmseg")


def test_untrained_weights_are_the_same_each_time_and_leave_the_generator_alone():
    sizes = tiny_model().architecture
    state = torch.random.get_rng_state()
    one, other = (untrained_segmenter(sizes, "mmseg").state_dict() for _ in range(2))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert all(value.isfinite().all() for value in one.values())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_only_queries_are_scaled():
    model, scaled = tiny_model(), tiny_model()
    scale_queries(scaled, 3.0)
    for name, parameter in model.state_dict().items():
        other = scaled.state_dict()[name]
        if name.startswith("encoder.blocks") and "attn.qkv" in name:
            third = len(parameter) // 3
            assert torch.equal(other[:third], 3 * parameter[:third])
            assert torch.equal(other[third:], parameter[third:])
        else:
            assert torch.equal(other, parameter)


def test_queries_are_scaled_until_act_costs_what_is_asked():
    images = noise(1, 3, 64, 64)
    model = untrained_segmenter(tiny_model().architecture, "mmseg")
    unreduced = count_multiply_adds(model, images) / 1e9
    model.reducer = ACT(16)
    least = count_multiply_adds(model, images) / 1e9
    goal = (least + unreduced) / 2
    original = model.encoder.blocks[0].attn.qkv.weight.clone()
    factor = calibrate_queries(model, images, goal)
    assert count_multiply_adds(model, images) / 1e9 == pytest.approx(goal, rel=0.01)
    assert torch.allclose(model.encoder.blocks[0].attn.qkv.weight[:32], factor * original[:32], rtol=1e-5)
    for impossible in (2 * unreduced, least / 2):
        with pytest.raises(ConfigError, match=r"--act_gflops .* cannot be met within 1%"):
            calibrate_queries(model, images, impossible)


def test_a_factor_is_found_by_bisection_within_few_passes():
    passes = []

    def count(factor):
        passes.append(factor)
        return 100 * factor / (factor + 20)

    assert count(find_factor(count, 37.0)) == pytest.approx(37, rel=0.01)
    assert len(passes) <= 12
    assert count(find_factor(count, 0.9)) == pytest.approx(0.9, rel=0.01)


def test_a_row_without_a_reducer_is_timed_alone():
    settings = BenchmarkSettings(CPU, batch_size=1, iterations=5, seconds=0.0, warmup=1)
    crops = CropSource(Images(*[(64, 64)] * 3), (64, 64), False)
    row = Benchmark(tiny_model(), crops, settings, lambda text: None).measure()
    assert row["latency"]["reduced"] is None
    assert row["latency"]["speedup"] == {"median": 1, "q1": 1, "q3": 1, "min": 1, "max": 1, "pairs": 0}
    assert (row["gflops"]["reduced"], row["gflops"]["ratio"], row["efficiency"]) == (None, None, None)


def test_a_cluster_row_counts_each_side_of_its_own():
    settings = BenchmarkSettings(CPU, batch_size=2, iterations=5, seconds=0.0, warmup=1)
    crops = CropSource(Images(*[(64, 64)] * 3), (64, 64), False)
    model = tiny_model(TokenClustering(1, (3, 3)))
    row = Benchmark(model, crops, settings, lambda text: None).measure()
    images = crops.batch(0, 1)
    assert row["gflops"]["reduced"] == count_multiply_adds(model, images) / 1e9
    assert row["gflops"]["unreduced"] == count_multiply_adds(tiny_model(), images) / 1e9
    assert row["gflops"]["ratio"] == row["gflops"]["unreduced"] / row["gflops"]["reduced"]
    assert row["efficiency"] == row["latency"]["speedup"]["median"] / row["gflops"]["ratio"]
    assert row["throughput"]["batch_size"] == 2
    seconds = row["throughput"]["seconds"]["reduced"]
    assert row["throughput"]["reduced"] == pytest.approx(2 / np.median(seconds))
    assert row["attention_kernels"]["unreduced"] == ["_scaled_dot_product_flash_attention_for_cpu"]


@pytest.mark.parametrize(("compiled", "name", "graphs"), [("reduce-overhead", "uncompiled", 0), (True, "timed", 1)])
def test_peak_memory_is_not_that_of_a_graphs_replay(compiled, name, graphs, monkeypatch):
    calls = []

    def compiled_pass(model, images):
        calls.append(model)
        return sides.patch_logits(model, images)

    def count_calls(call, device):
        calls.clear()
        call()
        return len(calls)

    monkeypatch.setattr(compiling, "OLDEST_COMPILER", "2")  # nothing is compiled here
    monkeypatch.setattr(sides, "compile_forward", lambda *_: compiled_pass)
    monkeypatch.setattr(benchmarks, "peak_memory_mib", count_calls)
    settings = BenchmarkSettings(CPU, batch_size=1, compiled=compiled, iterations=5, seconds=0.0, warmup=1)
    crops = CropSource(Images(*[(64, 64)] * 3), (64, 64), False)
    row = Benchmark(tiny_model(ToMe(0.4)), crops, settings, lambda text: None).measure()
    assert row["peak_memory_mib"] == {"unreduced": graphs, "reduced": graphs}
    assert row["peak_memory_pass"] == name


PROGRAM = """
import sys

absent = ("cv2", "jsonargparse", "pytorch_lightning", "segmentation_models_pytorch", "torchmetrics")
for name in absent:
    sys.modules[name] = None  # importing it now raises ImportError

import torch
from lightning_expedite import load_segmenter
from lightning_expedite.benchmarking.benchmark import Benchmark, BenchmarkSettings
from lightning_expedite.benchmarking.crops import CropSource
from lightning_expedite.benchmarking.untrained import untrained_segmenter
from lightning_expedite.benchmarking.whole_images import measure_whole_images
from lightning_expedite.evaluation import SlidingWindow
from lightning_expedite.reducers import ToMe

model = load_segmenter("demo", reducer=ToMe(0.3))
samples = [{"name": "a", "size": (96, 96), "views": [{"image": torch.rand(3, 128, 192), "mirrored": False}]}]
settings = BenchmarkSettings(torch.device("cpu"), batch_size=1, iterations=5, seconds=0)
benchmark = Benchmark(model, CropSource(samples, (128, 128), False), settings, lambda text: None)
row = benchmark.measure()
share = measure_whole_images(samples, 2, benchmark.sides[-1], SlidingWindow(128, 64), benchmark.stopwatch)
print(row["latency"]["speedup"]["pairs"], share["images"], share["windows_per_image"], 0 < share["model_share"] < 1)
"""


def test_the_core_needs_torch_and_timm_alone():
    root = Path(__file__).parents[1]
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, cwd=root, timeout=120
    )
    assert answer.stderr == ""
    assert answer.stdout == "5 1 2.0 True\n"
