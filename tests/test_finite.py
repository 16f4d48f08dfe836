"""Logits that are NaN or infinite stop a run, with an error that names the image and the precision."""

from pathlib import Path

import pytest
import torch
from data_files import picture, save
from small_run import make_config
from stored_models import OFFICIAL, stored_state
from tiny import noise, tiny_model

from lightning_expedite.errors import NumericalError
from lightning_expedite.evaluation import SlidingWindow
from lightning_expedite.evaluation.finite import require_finite
from lightning_expedite.evaluation.one_image import segment
from lightning_expedite.reducers import ACT, EViT, TokenClustering, ToMe
from lightning_expedite.reducers.base import Reduction

pytestmark = pytest.mark.promise("finite")

WINDOWS = SlidingWindow(64, 48, 3)
VIEWS = [(noise(3, 100, 140), False)]
REDUCERS = [None, ToMe(0.3), EViT([2], 0.6), TokenClustering(1, (4, 4)), ACT(4)]
SAYS = "the model's logits are NaN or infinite at precision"


def damaged(name, value=torch.nan, reducer=None):
    model = tiny_model(reducer)
    with torch.no_grad():
        model.get_parameter(name).view(-1)[0] = value
    return model


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("reducer", REDUCERS, ids=str)
@torch.inference_mode()
def test_only_finite_logits_pass(reducer, value):
    sound = WINDOWS.predict(tiny_model(reducer), [*VIEWS, (VIEWS[0][0].flip(-1), True)], (100, 140))
    require_finite(sound.finite, tiny_model(), "a")
    model = damaged("encoder.blocks.1.mlp.fc2.bias", value, reducer)
    with pytest.raises(NumericalError, match=rf"^a/b: {SAYS} 32-true: check the image and the weights"):
        require_finite(WINDOWS.predict(model, VIEWS, (100, 140)).finite, model, "a/b")


def test_precisions_are_named_as_lightning_does():
    model = tiny_model()
    for dtype, name in ((torch.bfloat16, "bf16"), (torch.float16, "16")):
        message = f"{SAYS} {name}-mixed: use --trainer.precision 32-true"
        with torch.autocast("cpu", dtype), pytest.raises(NumericalError, match=message):
            require_finite(False, model, "a")
        with pytest.raises(NumericalError, match=f"{name}-true: use --trainer.precision 32-true"):
            require_finite(False, tiny_model().to(dtype), "a")


def test_segment_names_the_file(tmp_path):
    path = save(tmp_path / "photo.png", picture(70, 90))
    model = damaged("encoder.norm.bias")
    with pytest.raises(NumericalError, match=rf"photo.png: {SAYS}"):
        segment(model, path)
    with pytest.raises(NumericalError, match=r"^the image: "):
        segment(model, picture(70, 90))


@pytest.fixture
def overflowing(data):
    """A config of a model whose second layer adds up to more than float16 holds, though no weight does."""
    folder = data / "weights"
    folder.mkdir()
    state = stored_state()
    for part in ("attn.proj", "mlp.fc2"):
        state[f"encoder.blocks.1.{part}.bias"] = torch.full_like(state[f"encoder.blocks.1.{part}.bias"], 6e4)
    torch.save({"model": state}, folder / "checkpoint.pth")
    (folder / "variant.yml").write_bytes((OFFICIAL / "variant.yml").read_bytes())
    return make_config(data, checkpoint=str(folder))


def test_an_overflow_stops_the_run(run, fails, overflowing):
    half = ("--trainer.precision", "16-true")
    expected = f"part0/0: {SAYS} 16-true: use --trainer.precision 32-true"
    assert expected in fails("test", "--config", overflowing, "--output", "out", *half)
    assert not Path("out/results.json").exists()
    assert expected in fails("predict", "--config", overflowing, "--output", "maps", *half)
    assert not list(Path("maps").rglob("*.png"))
    for precision in ("32-true", "bf16-mixed"):
        assert run("test", "--config", overflowing, "--output", precision, "--trainer.precision", precision)[0] == 0


def test_pixels_of_a_data_module(fails, config, monkeypatch):
    monkeypatch.setattr(
        "lightning_expedite.data.dataset.view_image", lambda image, *_: torch.full((3, *image.shape[:2]), torch.nan)
    )
    assert f"part0/0: {SAYS}" in fails("test", "--config", config)


def test_comparisons_check_the_baseline_too(fails, data, monkeypatch):
    config = make_config(data, reducer={"class_path": "ToMe", "init_args": {"ratio": 0.3}})
    spoil = lambda self, logits: logits / (0 if type(self) is Reduction else 1)  # noqa: E731
    monkeypatch.setattr(Reduction, "restore_logits", spoil)
    assert f"part0/0: {SAYS} 32-true" in fails("predict", "--config", config, "--compare", "--output", "maps")
