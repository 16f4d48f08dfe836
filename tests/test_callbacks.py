"""The profilers of a full test run, and PyTorch's own, from the command line."""

import csv
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from processes import process_environment
from small_run import make_config, make_data
from stored_models import OFFICIAL
from tiny import noise, tiny_model

from lightning_expedite import load
from lightning_expedite.benchmarking import FlopsProfiler, LatencyProfiler, callbacks, count_multiply_adds, timing
from lightning_expedite.benchmarking.callbacks import RunProfiler
from lightning_expedite.data.dataset import SampleDataset
from lightning_expedite.errors import ConfigError
from lightning_expedite.evaluation import SegmenterModule, SlidingWindow
from lightning_expedite.evaluation.module import ImageResult
from lightning_expedite.models import Segmenter
from lightning_expedite.reducers import EViT

ROOT = Path(__file__).parents[1]
ALL = [
    f"--trainer.callbacks+=lightning_expedite.benchmarking.{name}"
    for name in ("LatencyProfiler", "FlopsProfiler", "MemoryProfiler")
]
RESIZED = ("--data.short_side", 64, "--data.long_side", 100)
WINDOWS = {"64x64": 1 + 2 + 2, "39x64": 2}  # of the four images of small_run at these sizes, with a stride of 48
EVIT = {"class_path": "EViT", "init_args": {"locations": [2], "keep_rate": 0.6}}
ACT = {"class_path": "ACT", "init_args": {"query_hashes": 4}}


def profile(folder="out"):
    return json.loads(Path(folder, "results.json").read_text())["profile"]


def test_figures_stand_in_the_results(run, config):
    status, out, err = run("test", "--config", config, "--output", "out", *ALL, *RESIZED)
    assert status == 0, err
    assert "an image (median)" in out
    assert "less than the baseline" in out
    assert "4/4" in err  # the progress bar is still there
    found = profile()
    latency, flops, memory = found["latency"], found["flops"], found["memory"]

    assert latency["images"] == latency["per_image"]["n"] == 3  # the first is warm-up
    shares = {name: part["share"] for name, part in latency["parts"].items()}
    assert list(shares) == ["data", "windows", "upsample + argmax", "score", "other"]
    assert all(share > 0 for share in shares.values())
    assert sum(shares.values()) == pytest.approx(1, abs=1e-6)
    assert latency["model_share"] == shares["windows"]
    quantiles = [latency["per_image"][name] for name in ("q1_ms", "median_ms", "q3_ms", "p95_ms")]
    assert quantiles == sorted(quantiles)
    assert latency["windows_per_second"] > latency["images_per_second"] > 0

    assert flops["images"] == 4
    assert flops["gflops_per_window"].keys() == WINDOWS.keys()
    total = sum(number * flops["gflops_per_window"][size] for size, number in WINDOWS.items())
    assert flops["gflops_total"] == pytest.approx(total)
    assert flops["reduction_percent"] == 0
    assert flops["estimated"] is False
    assert memory["host_peak_mib"] > 50
    for section in found.values():
        assert 0 < section["overhead_share"] < 1


def test_multiply_adds_are_those_of_one_window_after_the_other(run, data):
    status, _, err = run("test", "--config", make_config(data, reducer=EVIT), "--output", "out", ALL[1], *RESIZED)
    assert status == 0, err
    flops = profile()["flops"]
    model = load(OFFICIAL, reducer=EViT([2], 0.6), convention="mmseg")
    expected = sum(
        number * count_multiply_adds(model, noise(1, 3, *map(int, size.split("x")))) for size, number in WINDOWS.items()
    )
    assert flops["gflops_total"] == pytest.approx(expected / 1e9, rel=1e-9)
    model.reducer = None
    unreduced = sum(
        number * count_multiply_adds(model, noise(1, 3, *map(int, size.split("x")))) for size, number in WINDOWS.items()
    )
    assert flops["reduction_percent"] == pytest.approx(100 * (1 - expected / unreduced), rel=1e-9)
    assert flops["reduction_percent"] > 1


def test_act_is_counted_in_the_first_window_after_the_warm_up(run, data):
    config = make_config(data, reducer={"class_path": "ACT", "init_args": {"query_hashes": 4}})
    assert run("test", "--config", config, "--output", "out", ALL[1])[0] == 0
    flops = profile()["flops"]
    assert flops["estimated"] is True
    assert flops["reduction_percent"] > 0
    # A share of the four images: an integer may be read as 1.0, all of them, in a process that parsed other types.
    assert run("test", "--config", config, "--output", "short", ALL[1], "--trainer.limit_test_batches", "0.25")[0] == 0
    assert profile("short")["flops"]["images"] == 1
    assert "gflops_total" not in profile("short")["flops"]  # the only image was warm-up


def test_a_mistake_in_a_reducer_is_not_taken_for_dependence_on_the_image():
    class Mistaken(EViT):
        def start(self, layout):
            raise RuntimeError("a mistake")

    module = SegmenterModule("demo")
    module.model, module.sliding_window = tiny_model(Mistaken([1], 0.5)), SlidingWindow(64, 48)
    profiler = FlopsProfiler(warmup=1)
    profiler.begin(module)
    with pytest.raises(RuntimeError, match="a mistake"):
        profiler.after_batch(module, [{"views": [{"image": noise(3, 64, 64)}]}], 0)


@pytest.fixture
def slow(monkeypatch):
    """A model that takes 0.4 s a batch of windows and images that take 0.2 s to read: much beside a busy machine's."""
    segment, read = Segmenter.segment_patches, SampleDataset.__getitem__

    def segment_slowly(self, images):
        time.sleep(0.4)
        return segment(self, images)

    def read_slowly(self, index):
        time.sleep(0.2)
        return read(self, index)

    monkeypatch.setattr(Segmenter, "segment_patches", segment_slowly)
    monkeypatch.setattr(SampleDataset, "__getitem__", read_slowly)


def test_loader_processes_read_ahead_while_the_model_runs(run, config, slow):
    parts, medians = {}, {}
    for workers in (0, 1):
        words = (
            *RESIZED,
            "--model.window_batch_size",
            "100",
            "--data.num_workers",
            workers,
            "--output",
            f"out{workers}",
        )
        status, _, err = run("test", "--config", config, *words, ALL[0])
        assert status == 0, err
        latency = profile(f"out{workers}")["latency"]
        parts[workers] = latency["parts"]
        medians[workers] = {name: part["median_ms"] for name, part in latency["parts"].items()}
        assert latency["overhead_share"] < 0.05
    assert medians[0]["windows"] >= 400
    assert medians[0]["data"] >= 200
    assert medians[1]["data"] < 0.2 * medians[0]["data"]
    assert parts[1]["data"]["share"] < 0.1 < parts[0]["data"]["share"]


class Hourglass:
    """A clock that stands still but where it is turned."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def pass_by(self, seconds):
        self.now += seconds


class SlowProfiler(RunProfiler):
    section = "slow"

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def begin(self, module):
        self.clock.pass_by(40)

    def before_batch(self, module, index):
        self.clock.pass_by(10)

    def after_batch(self, module, samples, index):
        self.clock.pass_by(20)

    def finish(self, module):
        return None

    def combine(self, parts):
        return {}


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_the_time_of_another_profiler_counts_nowhere(first, monkeypatch):
    clock = Hourglass()
    monkeypatch.setattr(callbacks, "time", clock)
    monkeypatch.setattr(timing, "time", clock)
    latency, slow = LatencyProfiler(warmup=0), SlowProfiler(clock)
    profilers = [latency, slow] if first else [slow, latency]
    module = SegmenterModule("demo")
    module.trainer = trainer = SimpleNamespace(callbacks=profilers, loggers=[])
    for _ in range(2):  # a second run is timed as the first
        module.images = []
        for one in profilers:
            one.on_test_epoch_start(trainer, module)
        for index in range(3):
            clock.pass_by(2)  # reading
            for one in profilers:
                one.on_test_batch_start(trainer, module, [], index)
            with module.stage("windows"):
                clock.pass_by(4)
            clock.pass_by(1)
            module.images.append(ImageResult(index, "", (8, 8), 1, 0, [[], [], []]))
            for one in profilers:
                one.on_test_batch_end(trainer, module, None, [], index)
        for one in profilers:
            one.on_test_epoch_end(trainer, module)
        parts = {name: part["median_ms"] for name, part in latency.figures["parts"].items()}
        assert parts == {"data": 2000, "windows": 4000, "upsample + argmax": 0, "score": 0, "other": 1000}
        assert latency.figures["per_image"]["median_ms"] == latency.figures["per_image"]["p95_ms"] == 7000
        assert latency.figures["overhead_share"] == 0
        assert slow.figures["overhead_share"] == pytest.approx((40 + 3 * 30) / (40 + 3 * 37))


def test_loggers_get_the_figures(run, config):
    words = ("--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "logs")
    status, _, err = run("test", "--config", config, "--output", "out", *ALL, *words)
    assert status == 0, err
    (file,) = Path("logs").rglob("metrics.csv")
    rows = list(csv.DictReader(file.open()))
    logged = {name: float(value) for row in rows for name, value in row.items() if value}
    found = profile()
    assert logged["profile/latency/per_image/median_ms"] == pytest.approx(
        found["latency"]["per_image"]["median_ms"], rel=1e-4
    )
    assert logged["profile/flops/gflops_total"] == pytest.approx(found["flops"]["gflops_total"], rel=1e-4)
    assert logged["profile/memory/host_peak_mib"] == pytest.approx(found["memory"]["host_peak_mib"], rel=1e-4)


def test_short_names_in_a_config_file(run, data):
    config = make_config(data)
    content = yaml.safe_load(config.read_text())
    content["trainer"]["callbacks"] = [
        {"class_path": "LatencyProfiler", "init_args": {"warmup": 2}},
        {"class_path": "MemoryProfiler"},
    ]
    config.write_text(yaml.safe_dump(content))
    status, _, err = run("test", "--config", config, "--output", "out")
    assert status == 0, err
    assert "4/4" in err
    found = profile()
    assert found.keys() == {"latency", "memory"}
    assert (found["latency"]["warmup"], found["latency"]["images"]) == (2, 2)


def test_without_profilers_nothing_is_reported(run, config):
    assert run("test", "--config", config, "--output", "out")[0] == 0
    assert "profile" not in json.loads(Path("out/results.json").read_text())


def test_a_negative_warm_up_is_refused():
    with pytest.raises(ConfigError, match="warmup is -1"):
        LatencyProfiler(-1)


def test_the_figures_of_several_processes_one_of_them_without_images(tmp_path):
    """Three processes for two images: the third has a placeholder alone, the others nothing but one image each."""
    config = make_config(make_data(tmp_path, 2), reducer=EVIT)
    content = yaml.safe_load(config.read_text())
    content["trainer"] |= {"devices": 3, "strategy": "ddp"}
    content["trainer"]["callbacks"] = [
        {"class_path": name, "init_args": {"warmup": 0}}
        for name in ("LatencyProfiler", "FlopsProfiler", "MemoryProfiler")
    ]
    config.write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "lightning_expedite", "test", "--config", str(config), "--output", "out"]
    command += map(str, RESIZED)
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=tmp_path, env=process_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    found = profile(tmp_path / "out")
    assert found["latency"]["images"] == found["flops"]["images"] == 2
    assert found["latency"]["windows"] == 1 + 2
    assert found["flops"]["gflops_total"] == pytest.approx(3 * found["flops"]["gflops_per_window"]["64x64"])
    assert found["memory"]["host_peak_mib"] > 50


# --- Lightning's own profiler ------------------------------------------------------------------------


def test_pytorch_traces_name_the_regions(run):
    words = ("--config", ROOT / "configs/demo_ours.yaml", "--data.count", "2", "--data.num_workers", "0")
    words += ("--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.profiler", "pytorch")
    status, _, err = run("test", *words, "--output", "traced")
    assert status == 0, err
    (trace,) = Path("traced").glob("*.pt.trace.json")
    events = json.loads(trace.read_text())["traceEvents"]
    regions = {}
    for event in events:
        if event.get("name", "").startswith("expedite: ") and event.get("cat") == "user_annotation":
            regions.setdefault(event["name"].removeprefix("expedite: "), []).append(event)
    assert {"windows", "upsample + argmax", "score"} <= regions.keys()
    for name in ("windows", "upsample + argmax", "score"):
        assert len(regions[name]) == 1  # Lightning leaves the first of so few images out
    assert all(event["dur"] > 0 for found in regions.values() for event in found)


def test_pytorch_traces_of_predict_and_in_a_folder_of_their_own(run, config):
    words = ("--trainer.profiler.class_path", "PyTorchProfiler", "--trainer.profiler.init_args.dirpath", "elsewhere")
    assert run("predict", "--config", config, "--output", "maps", *words)[0] == 0
    assert not list(Path("maps").rglob("*.trace.json"))
    (trace,) = Path("elsewhere").glob("*.pt.trace.json")
    assert re.search(r'"name": "expedite: windows"', trace.read_text())
