"""Draw the figures of the documentation with the bundled model on a bundled scene.

    python scripts/make_figures.py

writes one picture per reducer, ``docs/pictures/reducer_NAME.png``, and ``docs/pictures/overview.png``.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from lightning_expedite import load, segment, token_groups, with_reducer
from lightning_expedite.data.scenes import VALIDATION, draw_scene
from lightning_expedite.evaluation.one_image import Preparation
from lightning_expedite.evaluation.token_maps import token_maps
from lightning_expedite.files import write_atomically
from lightning_expedite.models import Segmenter
from lightning_expedite.reducers import ACT, EViT, Reducer, TokenClustering, ToMe
from lightning_expedite.visualization import figure_bytes
from lightning_expedite.visualization.canvas import class_handles, new_figure, paint, panel_size, show
from lightning_expedite.visualization.tokens import draw_step

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
SCENE, CROP = VALIDATION[6], (slice(64, 192), slice(128, 384))  # two windows side by side
COLOURS = 255  # one byte per pixel keeps files small

# The reducers of configs/demo_*.yaml, with the layers to show.
REDUCERS: dict[str, tuple[Reducer, list[int] | None]] = {
    "clustering": (TokenClustering(4, (8, 8)), [4]),
    "evit": (EViT([4, 7, 10], 0.8), None),
    "tome": (ToMe(0.5), [6]),
    "act": (ACT(24), [1, 6, 12]),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=PICTURES, help="folder to write to (docs/pictures)")
    output = parser.parse_args(arguments).output
    output.mkdir(parents=True, exist_ok=True)
    model, scene = load("demo"), draw_scene(SCENE)[0]
    for name, (reducer, layers) in REDUCERS.items():
        figure = token_groups(with_reducer(model, reducer), scene[CROP], layers=layers)
        write_atomically(output / f"reducer_{name}.png", small_png(figure))
    write_atomically(output / "overview.png", small_png(overview(model, REDUCERS["clustering"][0], scene)))


@torch.inference_mode()
def overview(model: Segmenter, reducer: Reducer, scene: np.ndarray) -> Figure:
    """Draw an image, its groups of tokens, and the predictions of the baseline and of the reduced model."""
    reduced = with_reducer(model, reducer)
    baseline_result, reduced_result = segment(model, scene), segment(reduced, scene)
    preparation = Preparation.of(reduced, {})
    view, _ = preparation.views(scene, next(model.parameters()))[0]
    maps = token_maps(reduced, view, preparation.windows)
    width, height = panel_size(*baseline_result.labels.shape)
    figure = new_figure(4 * width, height + 0.8)
    panels = figure.subplots(1, 4)
    show(panels[0], scene, "image")
    draw_step(panels[1], scene, maps, maps.steps[0])
    results = {"prediction of the baseline": baseline_result, "prediction with clustered tokens": reduced_result}
    for panel, (title, result) in zip(panels[2:], results.items(), strict=True):
        show(panel, paint(result.labels, result.palette), title)
    panels[1].set_title("similar patches become one token")
    for panel in panels:
        panel.title.set_fontsize(13)
    label_maps = [result.labels for result in results.values()]
    handles = class_handles(label_maps, baseline_result.classes, baseline_result.palette)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=11)
    return figure


def small_png(figure: Figure) -> bytes:
    """Return the content of a PNG file with few colours."""
    picture = Image.open(io.BytesIO(figure_bytes(figure))).convert("RGB")
    stream = io.BytesIO()
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(stream, "png", optimize=True)
    return stream.getvalue()


if __name__ == "__main__":
    main()
