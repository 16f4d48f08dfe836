"""Logits that are NaN or infinite stop a run, with an error that names image, layer and precision."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from data_files import picture, save
from processes import process_environment
from small_run import make_config, make_data
from stored_models import OFFICIAL, stored_state
from tiny import noise, tiny_model

from lightning_expedite.errors import NumericalError
from lightning_expedite.evaluation import SlidingWindow, compiling
from lightning_expedite.evaluation.compiling import CompiledWindows
from lightning_expedite.evaluation.finite import find_source, precision_of, require_finite
from lightning_expedite.evaluation.one_image import segment
from lightning_expedite.reducers import ACT, EViT, TokenClustering, ToMe
from lightning_expedite.reducers.base import Reducer, Reduction

pytestmark = pytest.mark.promise("finite")

WINDOWS = SlidingWindow(64, 48, 3)
VIEWS = [(noise(3, 100, 140), False)]
REDUCERS = {
    "none": lambda: None,
    "tome": lambda: ToMe(0.3),
    "evit": lambda: EViT([2], 0.6),
    "cluster": lambda: TokenClustering(1, (4, 4)),
    "act": lambda: ACT(4),
}
PARTS = {
    "encoder.patch_embed.proj.bias": "the patch embedding",
    "encoder.pos_embed": "the patch embedding",
    "encoder.blocks.2.mlp.fc2.bias": "encoder layer 3",
    "encoder.norm.bias": "the encoder's last norm",
    "decoder.proj_dec.bias": "the decoder's proj_dec",
    "decoder.cls_emb": "decoder layer 1",
    "decoder.blocks.1.attn.proj.bias": "decoder layer 2",
    "decoder.decoder_norm.bias": "the decoder's decoder_norm",
    "decoder.proj_patch": "the decoder's mask_norm",
}


def spoilt(name, value=torch.nan, **sizes):
    model = tiny_model(**sizes)
    with torch.no_grad():
        model.get_parameter(name).view(-1)[0] = value
    return model


@pytest.mark.parametrize(("name", "part"), PARTS.items())
@torch.inference_mode()
def test_the_first_part_with_such_an_output_is_named(name, part, figure):
    model = spoilt(name)
    assert not WINDOWS.predict(model, VIEWS, (100, 140)).finite
    assert find_source(model, VIEWS, WINDOWS) == part
    figure("parts named", 1)


@torch.inference_mode()
def test_a_linear_decoder_is_named_too():
    assert find_source(spoilt("decoder.head.bias", decoder="linear"), VIEWS, WINDOWS) == "the decoder's head"


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", REDUCERS)
@torch.inference_mode()
def test_with_every_reducer_the_layer_is_named(name, value):
    model = spoilt("encoder.blocks.1.mlp.fc2.bias", value)
    model.reducer = REDUCERS[name]()
    assert not WINDOWS.predict(model, VIEWS, (100, 140)).finite
    assert find_source(model, VIEWS, WINDOWS) == "encoder layer 2"


@pytest.mark.parametrize("name", REDUCERS)
@torch.inference_mode()
def test_a_sound_model_passes(name):
    model = tiny_model(REDUCERS[name]())
    found = WINDOWS.predict(model, [*VIEWS, (VIEWS[0][0].flip(-1), True)], (100, 140))
    assert found.finite.shape == ()
    require_finite(found.finite, model, VIEWS, WINDOWS, "a")
    assert find_source(model, VIEWS, WINDOWS) is None
    assert not any(part._forward_hooks for part in model.modules())


class Breaking(Reducer):
    """Makes the output of one of its hooks infinite."""

    def __init__(self, hook):
        self.hook = hook

    def start(self, layout):
        reduction = Reduction(layout)
        plain = getattr(reduction, self.hook)

        def broken(*given):
            result = plain(*given)
            return result / 0 if len(given) == 1 or given[0] == 2 else result  # of the layers the second

        setattr(reduction, self.hook, broken)
        return reduction


@pytest.mark.parametrize(
    ("hook", "place"),
    [
        ("prepare_tokens", "before the first layer"),
        ("layer", "at encoder layer 2"),
        ("restore_tokens", "after the last layer"),
        ("restore_logits", "on the logits"),
    ],
)
@torch.inference_mode()
def test_a_reducer_at_fault_is_named(hook, place):
    model = tiny_model(Breaking(hook))
    finite = WINDOWS.predict(model, VIEWS, (100, 140)).finite
    with pytest.raises(NumericalError) as raised:
        require_finite(finite, model, VIEWS, WINDOWS, "a/b")
    message = str(raised.value)
    assert message.startswith("a/b: the model's logits are NaN or infinite at precision 32-true, first in the reducer ")
    assert f"Breaking(hook='{hook}') {place}: " in message
    assert not any(part._forward_hooks for part in model.modules())


@torch.inference_mode()
def test_weights_at_fault_are_named():
    model = spoilt("encoder.blocks.2.mlp.fc2.bias")
    with pytest.raises(
        NumericalError, match=r"precision 32-true, and so are weights \(encoder.blocks.2.mlp.fc2.bias\)"
    ):
        require_finite(False, model, VIEWS, WINDOWS, "a")
    with torch.no_grad():
        model.decoder.cls_emb[0, 0, 0] = torch.inf
    with pytest.raises(NumericalError, match=r"fc2.bias and 1 more\): give weights that are not damaged"):
        require_finite(False, model, VIEWS, WINDOWS, "a")


@torch.inference_mode()
def test_pixels_at_fault_are_named():
    image = noise(3, 100, 140)
    image[1, 50, 60] = torch.nan
    model = tiny_model()
    finite = WINDOWS.predict(model, [(image, False)], (100, 140)).finite
    with pytest.raises(NumericalError, match=r"^a: its normalised pixels hold NaN or infinite values: mend the image"):
        require_finite(finite, model, [(image, False)], WINDOWS, "a")


@torch.inference_mode()
def test_numbers_that_a_second_pass_does_not_show():
    with pytest.raises(NumericalError, match=r"but only as compiled: leave --model\.compile out"):
        require_finite(False, tiny_model(), VIEWS, SlidingWindow(64, 48, 3, forward=CompiledWindows(64, 3)), "a")
    with pytest.raises(NumericalError, match="but not in a second attempt"):
        require_finite(False, tiny_model(), VIEWS, WINDOWS, "a")


def test_precisions_are_named_as_lightning_does():
    model = tiny_model()
    assert precision_of(model) == "32-true"
    with torch.autocast("cpu", torch.bfloat16):
        assert precision_of(model) == "bf16-mixed"
    with torch.autocast("cpu", torch.float16):
        assert precision_of(model) == "16-mixed"
    assert precision_of(model.half()) == "16-true"
    assert precision_of(model.bfloat16()) == "bf16-true"
    assert precision_of(model.double()) == "64-true"


def test_segment_names_the_file(tmp_path):
    path = save(tmp_path / "photo.png", picture(70, 90))
    model = spoilt("encoder.norm.bias")
    with pytest.raises(NumericalError, match=r"photo.png: .* weights \(encoder.norm.bias\)"):
        segment(model, path)
    with pytest.raises(NumericalError, match=r"^the image: "):
        segment(model, picture(70, 90))


# --- From the command line ---------------------------------------------------------------------------


def doctored(folder, **changes):
    """Store the small model with some of its biases set to a number; gives the folder."""
    folder.mkdir()
    state = stored_state()
    for name, value in changes.items():
        key = name.replace("__", ".")
        state[key] = torch.full_like(state[key], value)
    torch.save({"model": state}, folder / "checkpoint.pth")
    (folder / "variant.yml").write_bytes((OFFICIAL / "variant.yml").read_bytes())
    return folder


@pytest.fixture
def overflowing(data):
    """A config of a model whose second layer adds up to more than float16 holds, though no weight does."""
    each = {"encoder__blocks__1__attn__proj__bias": 6e4, "encoder__blocks__1__mlp__fc2__bias": 6e4}
    return make_config(data, checkpoint=str(doctored(data / "weights", **each)))


def test_an_overflow_stops_the_run(run, fails, overflowing):
    half = ("--trainer.precision", "16-true")
    expected = (
        "part0/0: the model's logits are NaN or infinite at precision 16-true, first in encoder layer 2: float16 holds "
        "nothing above 65504"
    )
    assert expected in fails("test", "--config", overflowing, "--output", "out", *half)
    assert not Path("out/results.json").exists()
    assert expected in fails("predict", "--config", overflowing, "--output", "maps", *half)
    assert not list(Path("maps").rglob("*.png"))
    for precision in ("32-true", "bf16-mixed"):
        assert run("test", "--config", overflowing, "--output", precision, "--trainer.precision", precision)[0] == 0


def test_an_overflow_in_a_compiled_model(fails, overflowing, monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    torch._dynamo.reset()
    words = ("--trainer.precision", "16-true", "--model.compile", "true")
    assert "16-true, first in encoder layer 2" in fails("test", "--config", overflowing, *words)
    torch._dynamo.reset()


def test_weights_beyond_float16(fails, data):
    weights = doctored(data / "weights", encoder__blocks__1__mlp__fc2__bias=7e4)
    config = make_config(data, checkpoint=str(weights))
    message = fails("test", "--config", config, "--trainer.precision", "16-true")
    assert "at precision 16-true, and so are weights (encoder.blocks.1.mlp.fc2.bias): float16 holds" in message


def test_pixels_of_a_data_module(fails, config, monkeypatch):
    monkeypatch.setattr(
        "lightning_expedite.data.dataset.view_image", lambda image, *_: torch.full((3, *image.shape[:2]), torch.nan)
    )
    assert "part0/0: its normalised pixels hold NaN" in fails("test", "--config", config)
    assert "part0/0: its normalised pixels hold NaN" in fails("predict", "--config", config)


def test_comparisons_look_at_the_unreduced_model_too(fails, data, monkeypatch):
    """The reduced logits are sound, those without a reducer are not."""
    config = make_config(data, reducer={"class_path": "ToMe", "init_args": {"ratio": 0.3}})
    spoil = lambda self, logits: logits / (0 if type(self) is Reduction else 1)  # noqa: E731
    monkeypatch.setattr(Reduction, "restore_logits", spoil)
    message = fails("predict", "--config", config, "--compare", "--output", "maps")
    assert "part0/0: the model's logits are NaN or infinite at precision 32-true" in message


FICKLE = '''
import torch
from lightning_expedite.reducers.base import Reducer, Reduction

class Fickle(Reducer):
    """Goes wrong in the second process only."""

    def start(self, layout):
        return FickleReduction(layout)

class FickleReduction(Reduction):
    def restore_logits(self, logits):
        second = torch.distributed.is_initialized() and torch.distributed.get_rank() == 1
        return logits * (torch.nan if second else 1)
'''


def test_one_of_two_processes_stops_both(tmp_path):
    config = make_config(make_data(tmp_path))
    (tmp_path / "fickle.py").write_text(FICKLE)
    command = [sys.executable, "-m", "lightning_expedite", "test", "--config", str(config), "--output", "out"]
    command += ["--model.reducer", "fickle.Fickle", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env=process_environment(tmp_path)
    )
    assert done.returncode != 0
    assert (
        "error: part0/2: the model's logits are NaN or infinite at precision 32-true, first in the reducer"
        in done.stderr
    )
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out/results.json").exists()
