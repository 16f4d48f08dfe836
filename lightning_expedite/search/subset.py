"""A part of a data set, fixed and kept in memory, on which one model is scored with one reducer after another."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..analysis.counts import ImageCounts
from ..benchmarking.costs import on_meta
from ..benchmarking.flops import count_multiply_adds
from ..benchmarking.variants import autocast, choose_device, input_dtype, parse_precision
from ..cli.settings import EvaluationCLI
from ..data.samples import Sample
from ..errors import ConfigError
from ..evaluation.finite import require_finite
from ..evaluation.inference import run_windows
from ..evaluation.metrics import class_counts
from ..models import load
from ..reducers import Reducer

_KEPT_BYTES = 2 << 30  # of samples that are read once; what is beyond is read again each time
_COUNTED_IMAGES = 4  # for the multiply-adds of a reducer whose number depends on the image


class SearchCLI(EvaluationCLI):
    """Reads configs and options without making a trainer."""

    name = "recommend --search"

    def instantiate_trainer(self, **_: Any) -> Any:
        """Make none."""
        return None


class Subset:
    """Images spread evenly over a data set, the model on its device, and what scores one with the other.

    Args:
        cli: Model and data; its trainer's accelerator and precision are followed.
        images: How many images; at most all.

    Raises:
        ConfigError: The config has a reducer, the precision is unknown, or the classes of model and data differ.
        DataError: The data set is missing or damaged.
        CheckpointError: The weights are.
    """

    def __init__(self, cli: SearchCLI, images: int) -> None:
        if cli.model.reducer is not None:
            raise ConfigError(
                "--search: the config has a reducer; take one without model.reducer, such as ..._none.yaml"
            )
        module, data = cli.model, cli.datamodule
        data.protocol = module.protocol
        self._data = data.open_dataset()
        self.positions = spread(len(self._data), images)
        self.total = len(self._data)
        self.precision = parse_precision(cli.config.trainer.precision)
        self.device = choose_device("cpu" if cli.config.trainer.accelerator == "cpu" else "auto")
        self.model = load(module.checkpoint, convention=module.convention, weights_folder=module.weights_folder)
        if data.num_classes != self.model.num_classes:
            raise ConfigError(
                f"checkpoint {module.checkpoint} predicts {self.model.num_classes} classes, {type(data).__name__} has "
                f"{data.num_classes}: choose weights that were trained on this data set"
            )
        self._windows = replace(module.build_sliding_window(self.model), forward=run_windows)
        self._hollow = on_meta(self.model)
        self.model.to(self.device, input_dtype(self.precision))
        self._kept: dict[int, Sample] = {}
        self._kept_bytes = 0

    def score(self, reducer: Reducer | None, until: float = float("inf")) -> ImageCounts | None:
        """Label all images and count.

        Args:
            reducer: The token reducer; ``None`` runs all tokens through all layers.
            until: When to give up, on the clock of ``time.perf_counter``; looked at before each image.

        Returns:
            The counts; ``None`` where the time was over before the last image.

        Raises:
            ReducerError: The reducer cannot apply to the model.
            NumericalError: Logits are NaN or infinite.
        """
        self.model.reducer = reducer
        images, counts = [], []
        for sample in self._samples():
            if time.perf_counter() >= until:
                return None
            images.append((sample["index"], sample["name"], sample["size"][0], sample["size"][1]))
            counts.append(self._count(sample))
        return ImageCounts(tuple(images), *np.stack(counts, axis=1))

    def gflops(self, reducer: Reducer | None) -> float:
        """Count multiply-adds of one window, in the published convention: where they depend on the image, of some."""
        if reducer is None or not reducer.shapes_depend_on_content:
            self._hollow.reducer = reducer
            side = self._windows.window
            return count_multiply_adds(self._hollow, torch.empty(1, 3, side, side, device="meta")) / 1e9
        self.model.reducer = reducer
        crops = [self._crop(self._sample(position)) for position in self.positions[:: self._every]]
        with autocast(self.precision, self.device):
            return float(np.mean([count_multiply_adds(self.model, crop) for crop in crops])) / 1e9

    @property
    def _every(self) -> int:
        return max(len(self.positions) // _COUNTED_IMAGES, 1)

    def _crop(self, sample: Sample) -> Tensor:
        """Give the middle one of an image's windows, ``(1, 3, h, w)``."""
        crops = self._windows.crops(self._on_device(sample["views"][0]["image"]))
        return crops[len(crops) // 2][None]

    def _count(self, sample: Sample) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Label an image and count ``(3, K)``: intersection, prediction, label."""
        views = [(self._on_device(view["image"]), view["mirrored"]) for view in sample["views"]]
        with torch.inference_mode(), autocast(self.precision, self.device):
            prediction = self._windows.predict(self.model, views, (sample["size"][0], sample["size"][1]))
            assert sample["label"] is not None, "test data have labels"
            labels, target = prediction.labels, sample["label"].to(prediction.labels.device)
            counts = class_counts(labels[None], target[None], self.model.num_classes)[0].numpy()
            require_finite(prediction.finite, self.model, sample["name"])
        return counts

    def _on_device(self, image: Tensor) -> Tensor:
        return image.to(self.device, input_dtype(self.precision))

    def _samples(self) -> Iterator[Sample]:
        return (self._sample(position) for position in self.positions)

    def _sample(self, position: int) -> Sample:
        if position in self._kept:
            return self._kept[position]
        sample: Sample = self._data[position]
        tensors = [view["image"] for view in sample["views"]] + [sample["label"]]
        size = sum(tensor.nbytes for tensor in tensors if tensor is not None)
        if self._kept_bytes + size <= _KEPT_BYTES:
            self._kept[position] = sample
            self._kept_bytes += size
        return sample


def spread(total: int, count: int) -> Sequence[int]:
    """Choose ``count`` of ``total`` positions, evenly spread; all where there are not more."""
    count = min(count, total)
    return [(2 * number + 1) * total // (2 * count) for number in range(count)]
