"""Memory that runs out: half the windows at once, said so, the same labels; then a clear error."""

import json
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_run import make_config
from tiny import noise, tiny_model

from lightning_expedite.evaluation import SlidingWindow, compiling
from lightning_expedite.evaluation.compiling import CompiledWindows
from lightning_expedite.evaluation.device_memory import halved, out_of_memory, predict_in_memory
from lightning_expedite.evaluation.inference import run_windows
from lightning_expedite.models import Segmenter

pytestmark = pytest.mark.promise("out-of-memory")

ROOT = Path(__file__).parents[1]
TOO_MUCH = 1 << 60  # bytes


class Narrow:
    """Runs a model on a few windows at once, and runs out of memory with more."""

    def __init__(self, most, error):
        self.most, self.error, self.batches = most, error, []

    def __call__(self, model, windows):
        self.batches.append(len(windows))
        if len(windows) > self.most:
            self.error()
        return run_windows(model, windows)


def cuda():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def cpu():
    torch.empty(TOO_MUCH, dtype=torch.uint8)


def cublas():
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def cudnn():
    raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")


def python():
    raise MemoryError


ERRORS = [cuda, cpu, cublas, cudnn, python]


@pytest.mark.parametrize("error", ERRORS)
@torch.inference_mode()
def test_half_the_windows_give_the_image_from_its_start(error):
    model, image = tiny_model(), noise(3, 100, 140)
    forward = Narrow(2, error)
    windows = SlidingWindow(64, 48, 4, forward=forward)
    found, left = predict_in_memory(lambda one: one.predict(model, [(image, False)], (100, 140)), windows, 4)
    assert forward.batches == [4, 2, 2, 2]
    assert (left.batch_size, left.stride, left.forward) == (2, 48, forward)
    expected = SlidingWindow(64, 48, 2).predict(model, [(image, False)], (100, 140))
    assert torch.equal(found.labels, expected.labels)


def test_other_errors_pass():
    def broken():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        predict_in_memory(lambda _: broken(), SlidingWindow(64, 48, 4), 4)
    assert not out_of_memory(ValueError("CUDA out of memory"))


def test_the_failed_attempt_holds_nothing_when_the_next_begins():
    held = []

    def predict(windows):
        if windows.batch_size == 4:
            logits = torch.zeros(1000)
            held.append(weakref.ref(logits))
            cuda()
        assert held[0]() is None
        return "labels"

    assert predict_in_memory(predict, SlidingWindow(64, 48, 4), 4)[0] == "labels"


# --- Compiled windows --------------------------------------------------------------------------------


@pytest.fixture
def uncompiled(monkeypatch):
    """Graphs are captured, but run by PyTorch's own kernels."""
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@torch.inference_mode()
def test_what_is_compiled_serves_on(uncompiled):
    from torch._dynamo.utils import counters

    counters.clear()
    model, image = tiny_model(), noise(3, 100, 140)
    windows = SlidingWindow(64, 48, 4, forward=CompiledWindows(64, 4))
    before = windows.window_logits(model, image).logits
    fewer = halved(windows)
    assert fewer.batch_size == fewer.forward.batch_size == 2
    assert torch.allclose(fewer.window_logits(model, image).logits, before, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 2


def test_recorded_graphs_are_dropped(monkeypatch):
    done = []
    monkeypatch.setattr(torch._dynamo, "reset", lambda: done.append("reset"))
    windows = SlidingWindow(64, 48, 4, forward=CompiledWindows(64, 4, "reduce-overhead"))
    windows.forward._compiled = run_windows
    assert halved(windows).forward._compiled is None
    assert done == ["reset"]


# --- From the command line ---------------------------------------------------------------------------


@pytest.fixture
def narrow(monkeypatch):
    """A function that lets the model take only so many windows at once."""
    segment = Segmenter.segment_patches

    def limit(most, error=cuda):
        def limited(self, images):
            if len(images) > most:
                error()
            return segment(self, images)

        monkeypatch.setattr(Segmenter, "segment_patches", limited)

    return limit


NOTICE = (
    "memory ran out with 4 windows at once, so 2 went through the model from then on: set --model.window_batch_size 2"
)


@pytest.mark.parametrize("compiled", ["false", "true"])
def test_a_run_goes_on(run, config, narrow, uncompiled, monkeypatch, compiled):
    assert run("test", "--config", config, "--output", "two", "--model.window_batch_size", 2)[0] == 0
    if compiled == "true":  # within a graph nothing can be raised
        passed = CompiledWindows._run

        def limited(self, model, windows):
            if len(windows) > 2:
                cuda()
            return passed(self, model, windows)

        monkeypatch.setattr(CompiledWindows, "_run", limited)
    else:
        narrow(2)
    with pytest.warns(UserWarning, match="memory ran out with 4 windows at once") as shown:
        status, out, err = run("test", "--config", config, "--output", "out", "--model.compile", compiled)
    assert status == 0, err
    assert sum("memory ran out" in str(one.message) for one in shown) == 1
    found = json.loads(Path("out/results.json").read_text())
    resampled, memory = found["warnings"]
    assert "the embeddings are resampled" in resampled
    assert memory == NOTICE
    assert f"warning: {NOTICE}" in out
    assert found["config"]["model"]["window_batch_size"] == 4
    assert Path("out/images.jsonl").read_bytes() == Path("two/images.jsonl").read_bytes()


def test_comparisons_alone_may_run_out(run, data, monkeypatch):
    """Without its reducer a model takes more memory."""
    config = make_config(data, reducer={"class_path": "ToMe", "init_args": {"ratio": 0.3}})
    segment = Segmenter.segment_patches

    def limited(self, images):
        if self.reducer is None and len(images) > 2:
            cuda()
        return segment(self, images)

    monkeypatch.setattr(Segmenter, "segment_patches", limited)
    with pytest.warns(UserWarning, match="memory ran out with 4 windows at once"):
        assert run("predict", "--config", config, "--output", "maps", "--compare")[0] == 0
    assert len(list(Path("maps").rglob("*.png"))) == 8


def test_a_run_that_cannot_go_on(fails, config, narrow):
    narrow(1)
    message = fails("test", "--config", config)
    assert "memory ran out with 2 windows at once (window_batch_size 4, halved once): set --model.window_ba" in message
    narrow(0)
    message = fails("predict", "--config", config, "--model.window_batch_size", 1)
    assert "memory ran out with a single window of 64 x 64 pixels at once: use" in message
    assert not Path("runs/small/results.json").exists()


def test_the_benchmark_never_halves(fails, narrow):
    """Both sides of a ratio get the same windows, or there is no ratio."""
    narrow(1)
    words = ("--iterations", 5, "--seconds", 1, "--warmup", 1, "--device", "cpu", "--batch_size", 1)
    words += ("--whole_images", 1, "--output", "bench", "--overwrite")
    message = fails("benchmark", "--config", ROOT / "configs/demo_none.yaml", *words)
    assert "memory ran out" in message


# --- On a GPU ----------------------------------------------------------------------------------------


@pytest.mark.gpu
@torch.inference_mode()
def test_a_gpu_whose_memory_is_short():
    model, image = tiny_model(width=256, heads=4).cuda(), noise(3, 64, 64 * 256).cuda()
    windows = SlidingWindow(64, 64, 256)

    def predict(one):
        return one.predict(model, [(image, False)], tuple(image.shape[1:]))

    peaks = []
    for size in (128, 256):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        expected = predict(replace(windows, batch_size=size)).labels
        peaks.append(torch.cuda.max_memory_reserved())
    assert peaks[1] > 1.2 * peaks[0]
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(sum(peaks) / 2 / total)
    try:
        found, left = predict_in_memory(predict, windows, 256)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert left.batch_size == 128
    assert (found.labels == expected).float().mean() > 0.999
