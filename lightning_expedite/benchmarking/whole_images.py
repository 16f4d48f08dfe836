"""Where the time of an evaluation goes: reading, transfer, the windows' forward passes, and the rest of an image."""

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch

from ..evaluation.inference import SlidingWindow
from .timing import Interval, synchronize
from .variants import Variant, autocast, input_dtype

if TYPE_CHECKING:
    from ..data.dataset import SampleDataset


def measure_whole_images(
    samples: "SampleDataset", count: int, variant: Variant, windows: SlidingWindow
) -> dict[str, Any]:
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
    images = min(count, len(samples))
    totals: Counter[str] = Counter()
    for number in range(images):
        totals.update(time_image(samples, number, variant, windows))
    seconds = totals["load"] + totals["transfer"] + totals["image"]
    return {
        "images": images,
        **{f"{step}_ms": 1000 * totals[step] / images for step in ("load", "transfer", "image")},
        "window_ms": 1000 * totals["windows"] / totals["number of windows"],
        "windows_per_image": totals["number of windows"] / images,
        "window_batch_size": windows.batch_size,
        "model_share": totals["windows"] / seconds,
    }


def time_image(samples: "SampleDataset", number: int, variant: Variant, windows: SlidingWindow) -> dict[str, float]:
    """Return the seconds of the steps of one image; it is predicted once before, to warm up or compile."""
    device, dtype = variant.device, input_dtype(variant.precision)
    intervals: dict[str, Interval] = {}

    def stage(name: str) -> Interval:
        return intervals.setdefault(name, Interval(device))

    with Interval(torch.device("cpu")) as load:
        sample = samples[number]
    size = (sample["size"][0], sample["size"][1])
    for _ in range(2):
        intervals.clear()
        synchronize(device)
        with stage("transfer"):
            views = [(view["image"].to(device, dtype), view["mirrored"]) for view in sample["views"]]
        with torch.inference_mode(), autocast(variant.precision, device), stage("image"):
            prediction = windows.predict(variant.model, views, size, stage)
        synchronize(device)
    seconds = {name: interval.seconds for name, interval in intervals.items()}
    return {**seconds, "load": load.seconds, "number of windows": prediction.windows}
