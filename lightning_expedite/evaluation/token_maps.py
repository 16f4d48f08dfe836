"""Which patches of a whole image share a token, layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError, ReducerError
from ..models.segmenter.model import Segmenter
from ..reducers.grouping import DROPPED, Grouping, GroupRecorder, join_batches, steps_at
from .inference import SlidingWindow
from .windows import WindowPlan

_MOST_LAYERS, _MOST_LAYERS_IN_PARTS = 5, 4  # shown where none are asked for


@dataclass(frozen=True)
class TokenMap:
    """The groups of one step, over an image.

    Args:
        title: Layer, part and number of tokens, in two lines.
        group: ``(H, W)`` int64: pixels with the same number belong to patches that share a token, numbered through all
            windows; `DROPPED` where the patch has none.
        alone: ``(H, W)``: whether the pixel's patch has a token of its own.
    """

    title: str
    group: NDArray[np.int64]
    alone: NDArray[np.bool_]


@dataclass(frozen=True)
class TokenMaps:
    """The groups of some layers, over an image.

    Args:
        window: ``(H, W)`` int64: the window that each pixel is shown from.
        steps: One map per step.
    """

    window: NDArray[np.int64]
    steps: list[TokenMap]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image that the windows tile."""
        return self.window.shape[0], self.window.shape[1]


def token_maps(
    model: Segmenter, image: Tensor, windows: SlidingWindow, layers: Sequence[int] | None = None, head: int = 1
) -> TokenMaps:
    """Run a model and map which patches share a token.

    Windows are laid side by side, so that each pixel is shown once; the last one of a row or column may lie over a part
    of the one before.

    Args:
        model: A model with a reducer that tells its groups (`lightning_expedite.reducers.grouping`).
        image: Normalised, ``(3, h, w)``, on the model's device.
        windows: Their size and how many run at once; their stride is not used.
        layers: Layers, from 1; by default up to five in which something happens.
        head: Head, from 1, where each groups for itself.

    Raises:
        ConfigError: The model has no such layer or head, or nothing was reduced.
        ReducerError: The reducer does not tell its groups.
    """
    for layer in layers or ():
        if not 1 <= layer <= model.architecture.depth:
            raise ConfigError(f"layer {layer} is not one of this model: its layers are 1 to {model.architecture.depth}")
    side_by_side = replace(windows, stride=windows.window)
    plan = side_by_side.plan((image.shape[1], image.shape[2]))
    steps = record_steps(model, side_by_side.crops(image), windows.batch_size)
    rows, columns = steps[0].group.shape[-2:]
    own = torch.arange(rows * columns).view(1, rows, columns).expand(len(plan.origins), -1, -1)
    total = model.architecture.prefix + rows * columns
    patch = model.architecture.patch_size
    maps = [
        _map(step, plan, patch, total, head)
        for layer in layers or default_layers(steps)
        for step in steps_at(steps, layer) or [Grouping(layer, own, total, lasts=True)]
    ]
    numbers = np.arange(len(plan.origins))
    return TokenMaps(_paste(plan, patch, [np.full((rows, columns), number) for number in numbers]), maps)


def record_steps(model: Segmenter, crops: Tensor, batch_size: int) -> list[Grouping]:
    """Run a model on windows ``(n, 3, h, w)`` and give what its reducer reported, on the CPU.

    Raises:
        ConfigError: There is no reducer, or it reduced nothing.
        ReducerError: The reducer does not tell its groups.
    """
    if model.reducer is None:
        raise ConfigError("the model has no reducer, so every patch keeps its own token: give one (--model.reducer)")
    batches, nothing = [], True
    for batch in crops.split(batch_size):
        recorder = GroupRecorder()
        with torch.inference_mode():
            reduction = model.segment_patches(batch, recorder).reduction
        nothing = nothing and bool(torch.as_tensor(reduction.is_identity()).all())
        batches.append(recorder.steps)
    if not batches[0]:
        if nothing:
            raise ConfigError(f"{model.reducer} reduced nothing here: every patch keeps its own token")
        raise ReducerError(
            f"{type(model.reducer).__name__} does not tell which patches share a token; its layer() has to report them "
            "to self.recorder, see lightning_expedite/reducers/grouping.py"
        )
    return join_batches(batches)


def default_layers(steps: Sequence[Grouping]) -> list[int]:
    """Choose layers from the first to the last in which something happened, evenly."""
    layers = sorted({step.layer for step in steps})
    most = _MOST_LAYERS if len(steps) == len(layers) else _MOST_LAYERS_IN_PARTS
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
    counts = torch.as_tensor(count)
    least, most = int(counts.min()), int(counts.max())
    number = f"{most}" if least == most else f"{least} to {most}"
    numbered, alone = _number_through(group.numpy())
    title = f"{place}\n{number} of {total} {step.unit}"
    return TokenMap(title, _paste(plan, patch, numbered), _paste(plan, patch, alone).astype(bool))


def _number_through(windows: NDArray[np.int64]) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Number the groups of all windows ``(n, rows, columns)`` through, and tell which patches are alone in theirs."""
    numbered, alone, first = [], [], 0
    for window in windows:
        names, numbers, members = np.unique(window, return_inverse=True, return_counts=True)
        numbers = numbers.reshape(window.shape)
        dropped = window == DROPPED
        numbered.append(np.where(dropped, DROPPED, numbers + first))
        alone.append(((members[numbers] == 1) & ~dropped).astype(np.int64))
        first += len(names)
    return numbered, alone


def _paste(plan: WindowPlan, patch: int, windows: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Lay values of patches ``(rows, columns)``, window by window, over the pixels ``(H, W)`` of an image."""
    height, width = plan.window
    canvas = np.empty(plan.image, np.int64)
    for (top, left), values in zip(plan.origins, windows, strict=True):
        pixels = values.repeat(patch, axis=0).repeat(patch, axis=1)
        canvas[top : top + height, left : left + width] = pixels[:height, :width]
    return canvas
