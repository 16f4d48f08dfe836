"""Compiled models: the same results, in one graph, without recompilation within a data set."""

import json
from pathlib import Path

import pytest
import torch
from small_run import make_config
from tiny import noise, tiny_model
from torch._dynamo.utils import counters

from lightning_expedite.evaluation import SlidingWindow, compiling
from lightning_expedite.evaluation.compiling import CompiledWindows, one_graph
from lightning_expedite.evaluation.inference import run_windows
from lightning_expedite.reducers import ACT, EViT, TokenClustering, ToMe

REDUCERS = {
    "none": lambda: None,
    "tome": lambda: ToMe(0.3),
    "evit": lambda: EViT([2], 0.6),
    "cluster": lambda: TokenClustering(1, (4, 4)),
}
SIZES = ((64, 64), (64, 100), (100, 140), (130, 70), (64, 230), (90, 130))  # 1 to 6 windows with a stride of 48


@pytest.fixture(autouse=True)
def forget():
    """Graphs of one test are none of the next one's, and a recompilation is an error where one is looked for."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def uncompiled(monkeypatch):
    """Graphs are captured, but run by PyTorch's own kernels: all of ``torch.compile`` but its slow part."""
    monkeypatch.setattr(compiling, "BACKEND", "eager")


def skip_where_refused():
    if torch.__version__ < compiling.OLDEST_COMPILER:
        pytest.skip("this PyTorch is refused for reducers")


def small(name, dtype=torch.float64):
    if name != "none":
        skip_where_refused()
    return tiny_model(REDUCERS[name](), depth=2, decoder_depth=1).to(dtype)


@pytest.mark.parametrize("name", ["none", "tome", "evit", "cluster"])
@torch.inference_mode()
def test_two_graphs_serve_all_images(uncompiled, name):
    model = small(name)
    sliding = SlidingWindow(64, 48, 3, forward=CompiledWindows(64, 3))
    plain = SlidingWindow(64, 48, 3)
    for number, size in enumerate(SIZES):
        image = noise(3, *size, seed=number, dtype=torch.float64)
        found, expected = (one.window_logits(model, image) for one in (sliding, plain))
        assert torch.equal(found.logits, expected.logits)
        assert found.unreduced == expected.unreduced
        assert counters["stats"]["unique_graphs"] == 2  # after the first image, and after every other
    assert not counters["graph_break"]


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("tome", "evit")]


@pytest.mark.parametrize("name", ["none", *SLOW, pytest.param("cluster", marks=pytest.mark.slow)])
@torch.inference_mode()
def test_compiled_kernels_give_the_same_logits(name):
    model, compiled = small(name), CompiledWindows(64, 4)
    for number in (1, 3, 2, 4):
        windows = noise(number, 3, 64, 64, seed=number, dtype=torch.float64)
        (found, unreduced), (expected, expected_unreduced) = compiled(model, windows), run_windows(model, windows)
        assert (found - expected).norm() < 1e-9 * expected.norm()
        assert unreduced == expected_unreduced
    assert counters["stats"]["unique_graphs"] == 2


@torch.inference_mode()
def test_windows_of_another_size_are_not_compiled(uncompiled):
    model, image = small("none"), noise(3, 40, 100, dtype=torch.float64)
    sliding = SlidingWindow(64, 48, 3, forward=CompiledWindows(64, 3))
    with pytest.warns(UserWarning, match="windows of 40 x 64 pixels are not compiled"):
        found = sliding.window_logits(model, image)
    assert torch.equal(found.logits, SlidingWindow(64, 48, 3).window_logits(model, image).logits)
    assert counters["stats"]["unique_graphs"] == 0


@torch.inference_mode()
def test_warming_up_leaves_the_random_numbers_alone(uncompiled):
    before = torch.get_rng_state()
    CompiledWindows(64, 3)(small("none"), noise(1, 3, 64, 64, dtype=torch.float64))
    assert counters["stats"]["unique_graphs"] == 2
    assert torch.equal(torch.get_rng_state(), before)


@torch.inference_mode()
def test_act_falls_apart_into_several_graphs(uncompiled):
    model = tiny_model(ACT(4), depth=2, decoder_depth=1).double()
    assert not one_graph(model.reducer)
    compiled = CompiledWindows(64, 3, fullgraph=False)
    for number in (1, 3, 2):
        windows = noise(number, 3, 64, 64, seed=number, dtype=torch.float64)
        (found, unreduced), (expected, expected_unreduced) = compiled(model, windows), run_windows(model, windows)
        assert torch.equal(found, expected)
        assert torch.equal(unreduced, expected_unreduced)
    assert counters["stats"]["unique_graphs"] > 2


@pytest.mark.parametrize("reducer", [None, {"class_path": "EViT", "init_args": {"locations": [2], "keep_rate": 0.6}}])
def test_compile_on_the_command_line(uncompiled, run, data, reducer):
    if reducer is not None:
        skip_where_refused()
    config = make_config(data, reducer=reducer)
    assert run("test", "--config", config, "--output", "plain")[0] == 0
    status, _, err = run("test", "--config", config, "--model.compile", "true", "--output", "compiled")
    assert status == 0, err
    assert counters["stats"]["unique_graphs"] == 2
    plain, compiled = (json.loads(Path(name, "results.json").read_text()) for name in ("plain", "compiled"))
    assert compiled["intersection"] == plain["intersection"]
    assert compiled["prediction"] == plain["prediction"]
    assert compiled["config"]["model"]["compile"] is True
    assert plain["config"]["model"]["compile"] is False


def test_a_reducer_is_not_compiled_by_an_older_pytorch(uncompiled, monkeypatch, fails, config):
    monkeypatch.setattr(compiling, "OLDEST_COMPILER", "99")
    reducer = ("--model.reducer", "ToMe", "--model.reducer.ratio", "0.3")
    for words in (
        ("test", "--config", config, "--model.compile", "true"),
        ("benchmark", "--config", config, "--compile", "true", "--iterations", "5"),
    ):
        message = fails(*words, *reducer)
        assert f"PyTorch {torch.__version__} is not known to compile ToMe correctly: use PyTorch 99 or newer" in message


def test_unknown_modes_are_refused(fails, config):
    assert "compile" in fails("test", "--config", config, "--model.compile", "sometimes")


# --- On a GPU ----------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("name", REDUCERS)
@pytest.mark.parametrize("mode", [None, "default", "reduce-overhead"])
@torch.inference_mode()
def test_a_pass_does_not_wait_for_the_gpu(name, mode):
    model = small(name, torch.float32).cuda()
    forward = run_windows if mode is None else CompiledWindows(64, 3, mode)
    for number in (1, 2, 3):
        forward(model, noise(number, 3, 64, 64).cuda())
    windows = noise(2, 3, 64, 64, seed=1).cuda()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        forward(model, windows)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@torch.inference_mode()
def test_an_image_does_not_wait_for_the_gpu_before_its_labels_are_read():
    model, sliding = small("none", torch.float32).cuda(), SlidingWindow(64, 48, 3)
    image = noise(3, 100, 140).cuda()
    sliding.predict(model, [(image, False)], (200, 280))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        labels = sliding.predict(model, [(image, False)], (200, 280)).labels
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert labels.shape == (200, 280)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["none", "tome", "cluster"])
@torch.inference_mode()
def test_cuda_graphs_give_the_labels_of_the_cpu(name):
    model = small(name, torch.float32)
    expected = [
        SlidingWindow(64, 48, 3).predict(model, [(noise(3, *size, seed=at), False)], size).labels
        for at, size in enumerate(SIZES)
    ]
    model = model.cuda()
    sliding = SlidingWindow(64, 48, 3, forward=CompiledWindows(64, 3, "reduce-overhead"))
    with torch.autocast("cuda", torch.bfloat16):
        for at, size in enumerate(SIZES):
            found = sliding.predict(model, [(noise(3, *size, seed=at).cuda(), False)], size).labels.cpu()
            assert (found == expected[at]).float().mean() > 0.9
