"""Where the time of an evaluation goes: reading, transfer, windows through the model, and the rest of an image."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ..evaluation.inference import SlidingWindow, WindowForward
from ..models.segmenter.model import Segmenter
from .crops import Samples
from .sides import Side, autocast, input_dtype
from .timing import Stopwatch


@dataclass(frozen=True)
class ImageTimes:
    """Seconds of one image's parts."""

    load: float
    transfer: float
    image: float  # windows, averaging, upsampling, argmax
    passes: float  # of all windows through the model, within ``image``
    windows: int


def measure_whole_images(
    samples: Samples, count: int, side: Side, windows: SlidingWindow, stopwatch: Stopwatch
) -> dict[str, Any]:
    """Time the parts of an evaluation apart, one after the other, on the first images.

    Args:
        samples: The data set; every view of an image is labelled, as an evaluation does.
        count: Number of images.
        side: The model.
        windows: Cuts the images into windows and makes the label maps.
        stopwatch: Times what happens on the device.

    Returns:
        Means per image in milliseconds of reading (``load_ms``), transfer to the device (``transfer_ms``) and labelling
        (``image_ms``); ``window_ms``, the mean of one window's pass in the evaluation's batches; ``windows_per_image``;
        and ``model_share``, the windows' part of all of it. An evaluation reads images in other processes meanwhile,
        so the share it spends in the model is higher where reading takes long.
    """
    times = [time_image(samples, number, side, windows, stopwatch) for number in range(min(count, len(samples)))]
    load, transfer, image, passes = (
        1000 * fmean(getattr(one, part) for one in times) for part in ("load", "transfer", "image", "passes")
    )
    windows_per_image = fmean(one.windows for one in times)
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


def time_image(samples: Samples, number: int, side: Side, windows: SlidingWindow, stopwatch: Stopwatch) -> ImageTimes:
    """Time the parts of one image's evaluation; it is labelled once before, to warm up or compile."""
    load, sample = Stopwatch(torch.device("cpu")).timed(lambda: samples[number])
    transfer, views = stopwatch.timed(lambda: _to_device(sample, side))
    with torch.inference_mode(), autocast(side.precision, side.device):
        windows.predict(side.model, views, sample["size"])
        forward = TimedWindows(windows.forward, stopwatch)
        label = partial(replace(windows, forward=forward).predict, side.model, views, sample["size"])
        image, prediction = stopwatch.timed(label)
    return ImageTimes(load, transfer, image, sum(lap() for lap in forward.laps), prediction.windows)


@dataclass
class TimedWindows:
    """A `WindowForward` that times its calls."""

    forward: WindowForward
    stopwatch: Stopwatch
    laps: list[Callable[[], float]] = field(default_factory=list)

    def __call__(self, model: Segmenter, images: Tensor) -> tuple[Tensor, bool | Tensor]:
        """Run the model on windows."""
        seconds, result = self.stopwatch.lap(partial(self.forward, model, images))
        self.laps.append(seconds)
        return result


def _to_device(sample: Mapping[str, Any], side: Side) -> list[tuple[Tensor, bool]]:
    dtype = input_dtype(side.precision)
    return [(view["image"].to(side.device, dtype), view["mirrored"]) for view in sample["views"]]
