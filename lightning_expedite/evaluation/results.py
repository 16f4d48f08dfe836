"""What an evaluation leaves behind: ``results.json``, ``images.jsonl`` and tables on screen."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.text import Text

from ..data.base import SegmentationDataModule
from ..files import write_atomically
from .environment import describe_environment
from .label_warnings import label_warnings
from .metrics import SUMMARY, Scores, scores_of
from .module import ImageResult, SegmenterModule
from .resuming import RUN
from .tables import class_table, summary_table

RESULTS_FILE = "results.json"
CONFIG_FILE = "config.yaml"
IMAGES_FILE = "images.jsonl"


class ResultsWriter(Callback):
    """Writes the results of a test run and shows them, on the first process.

    Args:
        output: Folder to write to.
        config: The resolved settings as YAML, to be stored with the results.
        run: What identifies the run, see `fingerprints.fingerprint`.
    """

    def __init__(self, output: Path, config: str, run: Mapping[str, Any]) -> None:
        self.output = output
        self.config = config
        self.run = run
        self._start = 0.0

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and show the results."""
        assert isinstance(pl_module, SegmenterModule)
        assert pl_module.result is not None
        if not trainer.is_global_zero:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        loader: Any = trainer.test_dataloaders
        results = {
            **describe_scores(pl_module.result, data.classes),
            **describe_images(pl_module.images, total=len(loader.dataset)),
            "images_resumed": len(pl_module.finished),
            "seconds": time.perf_counter() - self._start,
            **describe_profile(trainer),
            "warnings": [*pl_module.notices.texts, *label_warnings(pl_module.images, data.classes)],
            "protocol": describe_protocol(pl_module, data),
            "config": yaml.safe_load(self.config),
            "environment": describe_environment(
                trainer.strategy.root_device, str(trainer.precision), trainer.world_size
            ),
            RUN: self.run,
        }
        lines = [json.dumps(image_row(image), allow_nan=False) for image in pl_module.images]
        write_atomically(self.output / IMAGES_FILE, "".join(f"{line}\n" for line in lines).encode())
        write_atomically(self.output / CONFIG_FILE, self.config.encode())
        write_atomically(self.output / RESULTS_FILE, json.dumps(results, indent=1, allow_nan=False).encode())
        show_results(results, self.output)


def show_results(results: dict[str, Any], output: Path) -> None:
    """Show the tables of ``results.json``'s content."""
    console = Console()
    console.print(class_table(results))
    console.print(summary_table(results, output))
    for text in results.get("warnings", []):
        console.print(Text(f"warning: {text}", style="yellow"), soft_wrap=True)


def describe_scores(scores: Scores, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Give scores in percent, per class and counts, in JSON's types; absent classes have ``None``."""
    return {
        "scores": {name: number(scores[name]) for name in SUMMARY},
        "per_class": [
            {"name": name, "IoU": number(iou), "Acc": number(acc)}
            for name, iou, acc in zip(class_names, scores["IoU"], scores["Acc"], strict=True)
        ],
        "intersection": scores["intersection"].tolist(),
        "union": scores["union"].tolist(),
        "prediction": scores["prediction"].tolist(),
        "label": scores["label"].tolist(),
    }


def describe_profile(trainer: Trainer) -> dict[str, Any]:
    """Return what the profilers among the callbacks measured, by section; nothing where there are none."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    # Known by their attributes: profilers are imported by the command line, or are a user's own.
    profile = {
        each.section: each.figures for each in callbacks if hasattr(each, "section") and hasattr(each, "figures")
    }
    return {"profile": profile} if profile else {}


def describe_protocol(module: SegmenterModule, data: SegmentationDataModule) -> dict[str, Any]:
    """Give the settings of the evaluation that were used in the end, wherever they came from."""
    assert module.sliding_window is not None
    short_side, long_side = data.resize or (None, None)
    return {
        "convention": module.sliding_window.placement,
        "window": module.sliding_window.window,
        "stride": module.sliding_window.stride,
        "short_side": short_side,
        "long_side": long_side,
        "normalization": data.used_normalization,
        "scales": list(data.scales),
        "mirror": data.mirror,
    }


def describe_images(images: list[ImageResult], total: int) -> dict[str, Any]:
    """Give how many images and windows a result is from, and whether that is the whole data set."""
    return {
        "images": len(images),
        "images_total": total,
        "complete": len(images) == total,
        "windows": sum(image.windows for image in images),
        "windows_unreduced": sum(image.windows_unreduced for image in images),
    }


def image_row(image: ImageResult) -> dict[str, Any]:
    """Give one image's line of ``images.jsonl``: its scores, and the counts of the classes that occur."""
    counts = torch.tensor(image.counts)
    scores = scores_of(counts)
    classes = counts.any(dim=0).nonzero().flatten()
    intersection, prediction, label = counts[:, classes].tolist()
    return {
        "index": image.index,
        "name": image.name,
        "height": image.size[0],
        "width": image.size[1],
        "windows": image.windows,
        "windows_unreduced": image.windows_unreduced,
        **{name: number(scores[name]) for name in SUMMARY},
        "classes": classes.tolist(),
        "intersection": intersection,
        "prediction": prediction,
        "label": label,
    }


def number(value: torch.Tensor) -> float | None:
    """Turn a scalar into JSON's number, NaN into ``None``."""
    return None if math.isnan(value.item()) else value.item()
