"""What to do about logits that are NaN or infinite: stop, and say where in the model they come from."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.autocast_mode import is_autocast_available

from ..errors import NumericalError
from ..models.segmenter.model import Segmenter, with_reducer
from ..reducers.base import Reducer, Reduction, TokenLayout, run_block
from .inference import SlidingWindow, Views, run_windows

_PRECISIONS = {torch.float64: "64", torch.float32: "32", torch.bfloat16: "bf16", torch.float16: "16"}
_ADVICE = {
    "16": "float16 holds nothing above 65504: give another precision (--trainer.precision 32-true or bf16-mixed)",
    "bf16": "run it in float32 (--trainer.precision 32-true)",
}


def require_finite(finite: bool | Tensor, model: Segmenter, views: Views, windows: SlidingWindow, image: str) -> None:
    """Stop where an image's logits are not finite; ask when the device was waited for anyway.

    Args:
        finite: Whether all are, as `Prediction` holds it.
        model: The model that computed them.
        views: What it saw.
        windows: How it was run.
        image: Name of the image.

    Raises:
        NumericalError: They are not. It names image, precision and the first part of the model with such an output,
            which the model is run once more for.
    """
    if not finite:
        raise NumericalError(f"{image}: {_explain(model, views, windows)}")


def precision_of(model: Segmenter) -> str:
    """Give the precision that a model runs at here, as Lightning names it, such as ``bf16-true`` or ``16-mixed``."""
    weights = next(model.parameters())
    device = weights.device.type
    if is_autocast_available(device) and torch.is_autocast_enabled(device):
        return f"{_PRECISIONS[torch.get_autocast_dtype(device)]}-mixed"
    return f"{_PRECISIONS[weights.dtype]}-true"


def _explain(model: Segmenter, views: Views, windows: SlidingWindow) -> str:
    """Say what is not finite, and what to do."""
    if not all(_finite(view) for view, _ in views):
        return "its normalised pixels hold NaN or infinite values: mend the image, or the data module that read it"
    precision = precision_of(model)
    says = f"the model's logits are NaN or infinite at precision {precision}"
    advice = _ADVICE.get(precision.split("-")[0])
    broken = [name for name, weight in model.named_parameters() if not _finite(weight)]
    if broken:
        more = f" and {len(broken) - 1} more" if broken[1:] else ""
        return f"{says}, and so are weights ({broken[0]}{more}): {advice or 'give weights that are not damaged'}"
    source = find_source(model, views, windows)
    if source is not None:
        return f"{says}, first in {source}: {advice or 'these weights and settings do not work together, change one'}"
    if windows.forward is not run_windows:
        return f"{says}, but only as compiled: leave --model.compile out"
    return f"{says}, but not in a second attempt: the device computes differently each time, so try another"


@dataclass
class _FoundError(Exception):
    """Ends a pass through the model at the first part whose output is not finite."""

    part: str


def find_source(model: Segmenter, views: Views, windows: SlidingWindow) -> str | None:
    """Run a model once more, uncompiled, on the windows of an image and look at what each of its parts gives.

    Returns:
        The first part with an output that is not finite, in words; ``None`` where all were finite this time.
    """
    watched = with_reducer(model, _Watched(model.reducer))
    with ExitStack() as hooks:
        for name, part in _decoder_parts(model.decoder):
            hook = part.register_forward_hook(partial(_look, name))
            hooks.callback(hook.remove)
        try:
            for view, _ in views:
                replace(windows, forward=run_windows).window_logits(watched, view)
        except _FoundError as found:
            return found.part
    return None


def _decoder_parts(decoder: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, part in decoder.named_children():
        if isinstance(part, nn.ModuleList):
            yield from ((f"decoder layer {number}", layer) for number, layer in enumerate(part, start=1))
        else:
            yield f"the decoder's {name}", part


class _Watched(Reducer):
    """Stands in for a model's reducer, or for none, and looks at what passes through its hooks."""

    def __init__(self, reducer: Reducer | None) -> None:
        self.reducer = reducer

    def start(self, layout: TokenLayout) -> Reduction:
        return _WatchedReduction(self.reducer, layout)


class _WatchedReduction(Reduction):
    """One pass: between its hooks lie all parts of the model but the decoder's."""

    def __init__(self, reducer: Reducer | None, layout: TokenLayout) -> None:
        super().__init__(layout)
        self.reducer = reducer
        self.inner = Reduction(layout) if reducer is None else reducer.start(layout)

    def prepare_tokens(self, tokens: Tensor) -> Tensor:
        return self._passed(self.inner.prepare_tokens(_passed("the patch embedding", tokens)), "before the first layer")

    def layer(self, layer: int, block: Any, tokens: Tensor) -> Tensor:
        result = self.inner.layer(layer, block, tokens)
        if not _finite(result) and (self.reducer is None or not _finite(run_block(block, tokens))):
            raise _FoundError(f"encoder layer {layer}")
        return self._passed(result, f"at encoder layer {layer}")

    def restore_tokens(self, tokens: Tensor) -> Tensor:
        return self._passed(
            self.inner.restore_tokens(_passed("the encoder's last norm", tokens)), "after the last layer"
        )

    def restore_logits(self, logits: Tensor) -> Tensor:
        return self._passed(self.inner.restore_logits(_passed("the decoder", logits)), "on the logits")

    def is_identity(self) -> bool | Tensor:
        return self.inner.is_identity()

    def _passed(self, result: Tensor, place: str) -> Tensor:
        return _passed(f"the reducer {self.reducer} {place}", result)


def _look(name: str, part: nn.Module, given: Any, result: Tensor) -> None:
    _passed(name, result)


def _passed(name: str, result: Tensor) -> Tensor:
    if not _finite(result):
        raise _FoundError(name)
    return result


def _finite(values: Tensor) -> bool:
    return bool(values.isfinite().all())
