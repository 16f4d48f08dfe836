"""Where the time of an evaluation goes: reading, transfer, windows through the model, and the rest of an image."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ..evaluation.inference import SlidingWindow
from .crops import Samples
from .sides import Side, autocast, input_dtype
from .timing import Stopwatch, accumulated


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
    """Time the parts of one image's evaluation.

    The image is labelled three times: to warm up (each number of windows compiles anew), to time all of it, and to time
    the model's passes, which on a GPU means waiting after each and would slow the whole.
    """
    load, sample = Stopwatch(torch.device("cpu")).timed(lambda: samples[number])
    transfer, views = stopwatch.timed(lambda: _to_device(sample, side))
    label = partial(windows.predict, side.model, views, sample["size"])
    with torch.inference_mode(), autocast(side.precision, side.device):
        label()
        image, prediction = stopwatch.timed(label)
        with accumulated(stopwatch, side.model, "segment_patches") as passes:
            label()
    return ImageTimes(load, transfer, image, sum(passes), prediction.windows)


def _to_device(sample: Mapping[str, Any], side: Side) -> list[tuple[Tensor, bool]]:
    dtype = input_dtype(side.precision)
    return [(view["image"].to(side.device, dtype), view["mirrored"]) for view in sample["views"]]
