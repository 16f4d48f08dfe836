"""The bundled model is good at the bundled scenes, and every reduction costs it something."""

from typing import Any

import pytest
import torch

from lightning_expedite import load
from lightning_expedite.data import Demo
from lightning_expedite.evaluation import SlidingWindow
from lightning_expedite.evaluation.metrics import SegmentationScores
from lightning_expedite.models import read_protocol
from lightning_expedite.reducers import EViT, Reducer, TokenClustering, ToMe

DEPTH, SIDE = 12, 16
REDUCERS: dict[str, Reducer] = {
    "half the grid per side after a third of the layers": TokenClustering(DEPTH // 3, (SIDE // 2, SIDE // 2)),
    "half the tokens kept three times": EViT([DEPTH // 3, 7 * DEPTH // 12, 5 * DEPTH // 6], 0.5),
    "half the tokens merged": ToMe(0.5),
}


def miou(reducer: Reducer | None, samples: list[Any]) -> float:
    model = load("demo", reducer=reducer)
    protocol = read_protocol("demo")
    assert protocol.window is not None
    assert protocol.stride is not None
    windows = SlidingWindow(protocol.window, protocol.stride, batch_size=15)
    scores = SegmentationScores(model.num_classes)
    with torch.inference_mode():
        for sample in samples:
            view = sample["views"][0]
            labels = windows.predict(model, [(view["image"], view["mirrored"])], tuple(sample["size"])).labels
            scores.update(labels[None], sample["label"][None])
    return float(scores.compute()["mIoU"])


def scenes(count: int | None) -> list[Any]:
    data = Demo(count=count, num_workers=0)
    data.setup("test")
    return [batch[0] for batch in data.test_dataloader()]


def test_the_model_is_the_size_it_may_be() -> None:
    model = load("demo")
    assert (model.architecture.depth, model.architecture.grid) == (DEPTH, (SIDE, SIDE))
    assert 2 * sum(parameter.numel() for parameter in model.parameters()) <= 8e6  # bytes in float16


@pytest.mark.parametrize("count", [8, pytest.param(None, marks=pytest.mark.slow)], ids=["some", "all"])
def test_scores_and_what_reduction_costs(count: int | None) -> None:
    samples = scenes(count)
    unreduced = miou(None, samples)
    assert unreduced >= 80
    for name, reducer in REDUCERS.items():
        assert miou(reducer, samples) <= unreduced - 1, name
