"""Devices that run out of memory: recognise it, and try again with fewer windows at once."""

import gc
from collections.abc import Callable
from dataclasses import replace

import torch

from ..errors import DeviceMemoryError
from .compiling import CompiledWindows
from .inference import Prediction, SlidingWindow

_SIGNS = (
    "can't allocate memory",  # the CPU's allocator has no class of its own for it
    "CUDA out of memory",  # where a compiler repeats the message of another error
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
)


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
    )


def free_cached_memory() -> None:
    """Return freed GPU memory to the device, so that a smaller batch fits."""
    gc.collect()  # reference cycles are not freed yet
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def predict_in_memory(
    predict: Callable[[SlidingWindow], Prediction], windows: SlidingWindow, requested: int
) -> tuple[Prediction, SlidingWindow]:
    """Predict an image; where memory runs out for the first time, once more with half as many windows at once.

    Args:
        predict: Predicts the image from its start.
        windows: With their batch size, halved already or not.
        requested: Batch size that the user set.

    Returns:
        The prediction, and the windows to continue with.

    Raises:
        DeviceMemoryError: Memory ran out with half of these or with a single window.
    """
    try:
        return predict(windows), windows
    except Exception as error:
        if not out_of_memory(error):
            raise
        if windows.batch_size == 1 or windows.batch_size < requested:
            raise DeviceMemoryError(_too_large(windows, requested)) from error
    # Not in the handler: there the error would keep the tensors of the failed attempt.
    half = halved(windows)
    free_cached_memory()
    return predict_in_memory(predict, half, requested)


def halved(windows: SlidingWindow) -> SlidingWindow:
    """Return the same windows, half as many at once; compiled graphs are reused."""
    size, forward = windows.batch_size // 2, windows.forward
    if isinstance(forward, CompiledWindows):
        forward = forward.with_batch(size)
    return replace(windows, batch_size=size, forward=forward)


def _too_large(windows: SlidingWindow, requested: int) -> str:
    size = windows.batch_size
    halved_from = f" (window_batch_size {requested}, halved once)" if size < requested else ""
    if size > 1:
        return f"memory ran out with {size} windows at once{halved_from}: set --model.window_batch_size {size // 2}"
    return (
        f"memory ran out with a single window of {windows.window} x {windows.window} pixels at once{halved_from}: use "
        "--trainer.precision bf16-true, a smaller --model.window or --data.short_side, or take a device with more "
        "memory"
    )
