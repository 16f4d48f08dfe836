"""Files and tables of an evaluation: ``results.json``, ``images.jsonl``, ``metrics.csv``, ``config.yaml``."""

import csv
import io
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
from ..data.sources import FileSource
from ..files import write_atomically
from .environment import describe_environment
from .metrics import SUMMARY, Scores, scores_of
from .module import ImageResult, SegmenterModule
from .notices import label_warnings
from .resume import RUN, hash_text
from .tables import per_class_table, summary_table

RESULTS_FILE = "results.json"
CONFIG_FILE = "config.yaml"
IMAGES_FILE = "images.jsonl"
METRICS_FILE = "metrics.csv"


class ResultsWriter(Callback):
    """Writes the results of a test run and shows them, on the first process.

    Args:
        output: Folder to write to.
        config: The resolved settings as YAML, to be stored with the results.
        run: What the run depends on, see `resume.describe_run`.
        metrics: Whether ``metrics.csv`` is written.
    """

    def __init__(self, output: Path, config: str, run: Mapping[str, Any], metrics: bool = True) -> None:
        self.output = output
        self.config = config
        self.run = run
        self.metrics = metrics
        self._start = 0.0

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and show the results."""
        assert isinstance(pl_module, SegmenterModule)
        windows = pl_module.sliding_window
        assert pl_module.result is not None
        assert windows is not None
        if not trainer.is_global_zero:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        loader: Any = trainer.test_dataloaders
        images = pl_module.images
        # Profilers are recognised by their attributes: they belong to the benchmarking package, or are a user's own.
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        profile = {
            each.section: each.figures for each in callbacks if hasattr(each, "section") and hasattr(each, "figures")
        }
        results = {
            **describe_scores(pl_module.result, data.classes),
            "images": len(images),
            "images_total": len(loader.dataset),
            "complete": len(images) == len(loader.dataset),
            "windows": sum(image.windows for image in images),
            "windows_unreduced": sum(image.windows_unreduced for image in images),
            "images_resumed": len(pl_module.finished),
            "seconds": time.perf_counter() - self._start,
            **({"profile": profile} if profile else {}),
            "warnings": [*pl_module.notices.texts, *label_warnings(images, data.classes, ignored_classes(data))],
            "protocol": {
                "convention": windows.placement,
                "window": windows.window,
                "stride": windows.stride,
                "short_side": data.resize[0] if data.resize else None,
                "long_side": data.resize[1] if data.resize else None,
                "normalization": data.used_normalization,
                "scales": list(data.scales),
                "mirror": data.mirror,
            },
            "config": yaml.safe_load(self.config),
            "environment": describe_environment(
                trainer.strategy.root_device, str(trainer.precision), trainer.world_size
            ),
            RUN: {**self.run, "data": {**self.run.get("data", {}), "sha256": combined_digest(images)}},
        }
        lines = [json.dumps(image_row(image), allow_nan=False) for image in images]
        write_atomically(self.output / IMAGES_FILE, "".join(f"{line}\n" for line in lines).encode())
        write_atomically(self.output / CONFIG_FILE, self.config.encode())
        if self.metrics:
            write_metrics(self.output / METRICS_FILE, trainer.callback_metrics, results)
        write_atomically(self.output / RESULTS_FILE, json.dumps(results, indent=1, allow_nan=False).encode())
        show_results(results, self.output)


def show_results(results: dict[str, Any], output: Path) -> None:
    """Print the tables of ``results.json``'s content."""
    console = Console()
    console.print(per_class_table(results))
    console.print(summary_table(results, output))
    for text in results.get("warnings", []):
        console.print(Text(f"warning: {text}", style="yellow"), soft_wrap=True)


def describe_scores(scores: Scores, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Return scores in percent, per class and counts, in JSON's types; absent classes have ``None``."""
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


def ignored_classes(data: SegmentationDataModule) -> list[int]:
    """Return the classes that no value of a label file maps to."""
    source = data.listed
    label = source.entries[0].label if isinstance(source, FileSource) else None
    return [] if label is None else sorted(set(range(data.num_classes)) - set(label.table.tolist()))


def combined_digest(images: list[ImageResult]) -> str | None:
    """Return one SHA-256 over the digests of all images and labels; ``None`` if the data module computes none."""
    if any(image.digest is None for image in images):
        return None
    return hash_text("".join(f"{image.name} {image.digest}\n" for image in images))


def image_row(image: ImageResult) -> dict[str, Any]:
    """Return one image's line of ``images.jsonl``: its scores, and the counts of the classes that occur."""
    counts = torch.tensor(image.counts)
    scores = scores_of(counts)
    classes = counts.any(dim=0).nonzero().flatten()
    intersection, prediction, label = counts[:, classes].tolist()
    return {
        "index": image.index,
        "name": image.name,
        "digest": image.digest,
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


def write_metrics(path: Path, logged: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Write all numbers of a run as one row: what was logged, scores of classes, and profilers' figures."""
    row = {name: float(value) for name, value in logged.items()}
    for score in ("IoU", "Acc"):
        row |= {f"{score}/{each['name']}": each[score] for each in results["per_class"] if each[score] is not None}
    row |= flatten(results.get("profile", {}), "profile")
    text = io.StringIO()
    writer = csv.DictWriter(text, list(row), lineterminator="\n")
    writer.writeheader()
    writer.writerow(row)
    write_atomically(path, text.getvalue().encode())


def flatten(figures: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Return the numbers in nested mappings, under names joined by slashes."""
    flat: dict[str, float] = {}
    for name, value in figures.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}/{name}")
        elif value is not None:
            flat[f"{prefix}/{name}"] = float(value)
    return flat


def number(value: torch.Tensor) -> float | None:
    """Convert a scalar tensor to JSON's number, NaN to ``None``."""
    return None if math.isnan(value.item()) else value.item()
