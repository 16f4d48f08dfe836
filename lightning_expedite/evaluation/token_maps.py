"""Token maps of an image: which patches share a token, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.reading import rgb_pixels
from ..errors import ConfigError, ReducerError
from ..models import Segmenter, require_model
from ..reducers.grouping import DROPPED, Grouping, GroupRecorder
from ..visualization.tokens import Style, TokenMap, TokenMaps, draw_token_maps
from .inference import SlidingWindow
from .one_image import AnyImage, Preparation, Settings
from .windows import WindowPlan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_LAYERS, _MOST_LAYERS_WITH_MODULES = 5, 4  # drawn by default


def token_groups(
    model: Segmenter,
    image: AnyImage,
    *,
    layers: Sequence[int] | None = None,
    head: int = 1,
    style: Style = "both",
    **settings: Unpack[Settings],
) -> Figure:
    """Run a model on an image and draw which patches share a token.

    Args:
        model: Model with a reducer.
        image: A file, a Pillow image or an ``(H, W, 3)`` uint8 RGB array.
        layers: Layers, from 1; by default up to five of those that reduce.
        head: Attention head, from 1, where each head groups separately (ACT).
        style: ``mean`` fills groups with their mean colour, ``borders`` outlines them, ``both`` does both.
        **settings: Size, windows and normalisation, as of `lightning_expedite.segment`; the first scale is used.

    Raises:
        ConfigError: A setting is out of its range, or nothing was reduced.
        ReducerError: The reducer does not report its groups.
        DataError: The image cannot be read.
    """
    require_model(model)
    pixels, preparation = rgb_pixels(image), Preparation.of(model, settings)
    view, _ = preparation.views(pixels, next(model.parameters()))[0]
    maps = token_maps(model, view, preparation.windows, layers, head)
    return draw_token_maps(pixels, maps, style, str(model.reducer))


def token_maps(
    model: Segmenter, image: Tensor, windows: SlidingWindow, layers: Sequence[int] | None = None, head: int = 1
) -> TokenMaps:
    """Map which patches of a normalised image ``(3, h, w)`` share a token; arguments and errors of `token_groups`.

    Windows are laid side by side, whatever their stride, so that each pixel is shown once; the last one of a row or
    column may cover part of the one before.
    """
    depth = model.architecture.depth
    for layer in layers or ():
        if not 1 <= layer <= depth:
            raise ConfigError(f"layer {layer} is not one of this model: its layers are 1 to {depth}")
    tiles = replace(windows, stride=windows.window)
    plan = tiles.plan((image.shape[1], image.shape[2]))
    steps = record_steps(model, tiles.crops(image), windows.batch_size)
    rows, columns = steps[0].group.shape[-2:]
    every_patch = torch.arange(rows * columns).view(1, rows, columns).expand(len(plan.origins), -1, -1)
    total = model.architecture.prefix + rows * columns
    patch = model.architecture.patch_size
    maps = [
        _map(step, plan, patch, total, head)
        for layer in layers or default_layers(steps)
        for step in steps_at(steps, layer) or [Grouping(layer, every_patch, total, lasts=True)]
    ]
    window_numbers = np.arange(len(plan.origins)).repeat(rows * columns).reshape(-1, rows, columns)
    return TokenMaps(_paste(plan, patch, window_numbers), maps)


def record_steps(model: Segmenter, crops: Tensor, batch_size: int) -> list[Grouping]:
    """Run a model on windows ``(n, 3, h, w)`` and return the groups that its reducer reported, on the CPU."""
    if model.reducer is None:
        raise ConfigError("the model has no reducer, so every patch keeps its own token: set one (--model.reducer)")
    batches, identity = [], True
    for batch in crops.split(batch_size):
        recorder = GroupRecorder()
        with torch.inference_mode():
            reduction = model.segment_patches(batch, recorder).reduction
        identity = identity and bool(torch.as_tensor(reduction.is_identity()).all())
        batches.append(recorder.steps)
    if not batches[0]:
        if identity:
            raise ConfigError(f"{model.reducer} reduced nothing here: every patch keeps its own token")
        raise ReducerError(
            f"{type(model.reducer).__name__} does not report which patches share a token; its layer() has to report "
            "them to self.recorder, see lightning_expedite/reducers/grouping.py"
        )
    return [_join(steps) for steps in zip(*batches, strict=True)]


def _join(steps: Sequence[Grouping]) -> Grouping:
    """Join one step of several batches."""
    counts = [torch.as_tensor(step.count).cpu() for step in steps]
    count = torch.cat(counts) if counts[0].ndim else steps[0].count
    return replace(steps[0], group=torch.cat([step.group.cpu() for step in steps]), count=count)


def steps_at(steps: Sequence[Grouping], layer: int) -> list[Grouping]:
    """Return a layer's steps, or the last lasting one before it; none if every patch still had its own token."""
    here = [step for step in steps if step.layer == layer]
    if here:
        return here
    earlier = [step for step in steps if step.lasts and step.layer < layer]
    return [replace(earlier[-1], layer=layer)] if earlier else []


def default_layers(steps: Sequence[Grouping]) -> list[int]:
    """Choose evenly spaced layers from the first to the last that reduces."""
    layers = sorted({step.layer for step in steps})
    most = _MOST_LAYERS if len(steps) == len(layers) else _MOST_LAYERS_WITH_MODULES
    if len(layers) <= most:
        return layers
    return [layers[round(place)] for place in np.linspace(0, len(layers) - 1, most)]


def _map(step: Grouping, plan: WindowPlan, patch: int, total: int, head: int) -> TokenMap:
    group, count, place = step.group, step.count, f"{'after ' if step.lasts else ''}layer {step.layer}"
    if step.part:
        place += f", {step.part}"
    if group.ndim == 4:
        if not 1 <= head <= group.shape[1]:
            raise ConfigError(f"head {head} is not one of this model: its heads are 1 to {group.shape[1]}")
        group = group[:, head - 1]
        place += f", head {head}"
        count = count[:, head - 1] if isinstance(count, Tensor) else count
    least, most = (int(value) for value in torch.as_tensor(count).aminmax())
    tokens = f"{most}" if least == most else f"{least} to {most}"
    numbered, alone = _number_groups(group.numpy())
    title = f"{place}\n{tokens} of {total} {step.unit}"
    return TokenMap(title, _paste(plan, patch, numbered), _paste(plan, patch, alone).astype(bool))


def _number_groups(group: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Number the groups ``(n, rows, columns)`` across all windows, and mark patches that are alone in theirs."""
    dropped = group == DROPPED
    first = (group.max() + 1) * np.arange(len(group))[:, None, None]
    numbers = np.where(dropped, 0, group + first)
    members = np.bincount(numbers[~dropped], minlength=1)
    return np.where(dropped, DROPPED, numbers), (members[numbers] == 1) & ~dropped


def _paste(plan: WindowPlan, patch: int, windows: NDArray[np.generic]) -> NDArray[np.int64]:
    """Paste values per patch ``(n, rows, columns)``, window by window, over the pixels ``(H, W)`` of an image."""
    height, width = plan.window
    canvas = np.empty(plan.image, np.int64)
    for (top, left), values in zip(plan.origins, windows, strict=True):
        pixels = values.repeat(patch, axis=0).repeat(patch, axis=1)
        canvas[top : top + height, left : left + width] = pixels[:height, :width]
    return canvas
