"""Fewer windows at once where a device's memory does not suffice."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from ..errors import DeviceMemoryError
from .compiling import CompiledWindows
from .device_memory import free_cached_memory, out_of_memory
from .inference import Prediction, SlidingWindow


class Fitted(NamedTuple):
    """A prediction, and the windows to go on with: of half the batch where memory ran out."""

    prediction: Prediction
    windows: SlidingWindow


def predict_in_memory(predict: Callable[[SlidingWindow], Prediction], windows: SlidingWindow, asked: int) -> Fitted:
    """Label an image; where memory runs out for the first time, once more, with half the windows at once.

    Args:
        predict: Labels the image from its start.
        windows: With their batch, halved already or not.
        asked: Windows at once that the user asked for.

    Raises:
        DeviceMemoryError: Memory ran out with half of these or with a single window.
    """
    try:
        return Fitted(predict(windows), windows)
    except Exception as error:
        if not out_of_memory(error):
            raise
        if windows.batch_size == 1 or windows.batch_size < asked:
            raise DeviceMemoryError(_too_large(windows, asked)) from error
    # Not in the handler: there the error would keep the tensors of the failed attempt.
    half = halved(windows)
    free_cached_memory()
    return predict_in_memory(predict, half, asked)


def halved(windows: SlidingWindow) -> SlidingWindow:
    """Give the same windows, half as many at once; what is compiled serves on."""
    size = windows.batch_size // 2
    forward = windows.forward
    return replace(
        windows,
        batch_size=size,
        forward=forward.with_batch(size) if isinstance(forward, CompiledWindows) else forward,
    )


def halved_notice(windows: SlidingWindow, asked: int) -> str:
    """Say that there are fewer windows at once than were asked for."""
    return (
        f"memory ran out with {asked} windows at once, so {windows.batch_size} went through the model from then on: "
        f"give --model.window_batch_size {windows.batch_size}"
    )


def _too_large(windows: SlidingWindow, asked: int) -> str:
    size = windows.batch_size
    halved_from = f" (window_batch_size {asked}, halved once)" if size < asked else ""
    if size > 1:
        return f"memory ran out with {size} windows at once{halved_from}: give --model.window_batch_size {size // 2}"
    return (
        f"memory ran out with a single window of {windows.window} x {windows.window} pixels at once{halved_from}: give "
        "--trainer.precision bf16-true, a smaller --model.window or --data.short_side, or take a device with more "
        "memory"
    )
