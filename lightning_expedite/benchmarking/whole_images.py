"""Where the time of an evaluation goes: reading, transfer, the windows' forward passes, and the rest of an image."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ..evaluation.inference import SlidingWindow, WindowForward
from ..models.segmenter.model import Segmenter
from .crops import Samples
from .timing import Interval, time_call
from .variants import Variant, autocast, input_dtype


@dataclass(frozen=True)
class ImageTimes:
    """Seconds of one image: ``image`` is windows, averaging, upsampling and argmax; ``passes`` the model within it."""

    load: float
    transfer: float
    image: float
    passes: float
    windows: int


def measure_whole_images(samples: Samples, count: int, variant: Variant, windows: SlidingWindow) -> dict[str, Any]:
    """Time the steps of an evaluation separately, one after the other, on the first images.

    Args:
        samples: The data set; every view of an image is predicted, as in an evaluation.
        count: Number of images.
        variant: The model.
        windows: The sliding-window inference.

    Returns:
        Means per image in milliseconds of reading (``load_ms``), transfer to the device (``transfer_ms``) and
        prediction (``image_ms``); ``window_ms``, the mean of one window's pass in the batches; ``windows_per_image``;
        and ``model_share``, the share of the windows' passes in all of it. An evaluation reads images in other
        processes at the same time, so its model share is higher where reading is slow.
    """
    times = [time_image(samples, number, variant, windows) for number in range(min(count, len(samples)))]
    load, transfer, image, passes = (
        1000 * fmean(getattr(each, step) for each in times) for step in ("load", "transfer", "image", "passes")
    )
    windows_per_image = fmean(each.windows for each in times)
    return {
        "images": len(times),
        "load_ms": load,
        "transfer_ms": transfer,
        "image_ms": image,
        "window_ms": passes / windows_per_image,
        "windows_per_image": windows_per_image,
        "window_batch_size": windows.batch_size,
        "model_share": passes / (load + transfer + image),
    }


def time_image(samples: Samples, number: int, variant: Variant, windows: SlidingWindow) -> ImageTimes:
    """Time the steps of one image's evaluation; it is predicted once before, to warm up or compile."""
    device = variant.device
    with Interval(torch.device("cpu")) as load:
        sample = samples[number]
    views = _to_device(sample, variant)
    transfer = time_call(device, _to_device, sample, variant)
    with torch.inference_mode(), autocast(variant.precision, device):
        prediction = windows.predict(variant.model, views, sample["size"])
        forward = TimedWindows(windows.forward, device)
        timed = replace(windows, forward=forward)
        image = time_call(device, timed.predict, variant.model, views, sample["size"])
    passes = sum(interval.seconds for interval in forward.intervals)
    return ImageTimes(load.seconds, transfer, image, passes, prediction.windows)


@dataclass
class TimedWindows:
    """A `WindowForward` that times its calls."""

    forward: WindowForward
    device: torch.device
    intervals: list[Interval] = field(default_factory=list)

    def __call__(self, model: Segmenter, images: Tensor) -> tuple[Tensor, bool | Tensor]:
        """Run the model on windows."""
        with Interval(self.device) as interval:
            result = self.forward(model, images)
        self.intervals.append(interval)
        return result


def _to_device(sample: Mapping[str, Any], variant: Variant) -> list[tuple[Tensor, bool]]:
    dtype = input_dtype(variant.precision)
    return [(view["image"].to(variant.device, dtype), view["mirrored"]) for view in sample["views"]]
