"""Log a test run's settings, its table of classes, and pictures of a few images."""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import Logger

from ..data.samples import Sample
from ..errors import ConfigError
from ..text import markdown, visible
from ..visualization.arrays import Image, mark, overlay_labels, strip
from .finite import require_finite
from .metrics import SUMMARY
from .module import SegmenterModule
from .results import describe_scores

TABLE_COLUMNS = ("class", "IoU %", "Acc %", "labelled pixels")


class RunLogger(Callback):
    """Sends settings, scores of each class and, if wanted, pictures to the trainer's loggers, from one process.

    A logger with tables gets a table, one with texts the table as text, and any other the numbers. Pictures are made
    after everything was measured, one image at a time, so that neither times nor memory of the run contain them.

    Args:
        config: The resolved settings as YAML.
        images: How many images of the data set to show, the first ones.
        changes: Whether to mark the pixels whose prediction the reducer changes.
    """

    def __init__(self, config: str, images: int = 0, changes: bool = False) -> None:
        self.config = config
        self.images = images
        self.changes = changes

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise `ConfigError` before any work if pictures are wanted and no logger takes them."""
        if self.images and trainer.is_global_zero and not any(map(takes_pictures, trainer.loggers)):
            raise ConfigError(
                "--log_images: no logger of this run takes pictures; "
                "use --trainer.logger TensorBoardLogger or WandbLogger"
            )

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log everything."""
        assert isinstance(pl_module, SegmenterModule)
        assert pl_module.result is not None
        if not trainer.is_global_zero or not trainer.loggers:
            return
        settings: dict[str, Any] = yaml.safe_load(self.config)
        scores = describe_scores(pl_module.result, trainer.datamodule.classes)  # type: ignore[attr-defined]
        rows = [
            (row["name"], row["IoU"], row["Acc"], label)
            for row, label in zip(scores["per_class"], scores["label"], strict=True)
        ]
        for logger in trainer.loggers:
            log_settings(logger, settings, {name: float(pl_module.result[name]) for name in SUMMARY})
            log_classes(logger, rows)
        loader: Any = trainer.test_dataloaders
        for index in range(min(self.images, len(loader.dataset))):
            sample: Sample = loader.dataset[index]
            picture, caption = draw_sample(trainer, pl_module, sample, self.changes)
            for logger in filter(takes_pictures, trainer.loggers):
                log_picture(logger, f"images/{visible(sample['name'])}", picture, visible(caption))


def draw_sample(trainer: Trainer, module: SegmenterModule, sample: Sample, changes: bool) -> tuple[Image, str]:
    """Draw an image, its label and its prediction side by side, and what the reducer changed, if wanted.

    Returns:
        The picture, RGB ``(H, W, 3)``, and its caption.
    """
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    image: Image = data.read_image(sample["index"])
    assert sample["label"] is not None, "test data have labels"
    plugin = trainer.precision_plugin
    (moved,) = trainer.strategy.batch_to_device(plugin.convert_input([sample]), module.device)
    with torch.inference_mode(), plugin.test_step_context():
        prediction = module.predict(moved)
        baseline = module.predict_baseline(moved) if changes and module.reducer is not None else None
    assert module.model is not None
    require_finite(prediction.finite, module.model, sample["name"])
    labels = prediction.labels.cpu().numpy()
    panels = [image, *(overlay_labels(image, each, data.palette) for each in (sample["label"].numpy(), labels))]
    caption = f"{sample['name']}: image, label, prediction"
    if baseline is not None:
        changed = labels != baseline.labels.cpu().numpy()
        panels.append(mark(image, changed))
        caption += f", changed by the reducer ({np.mean(changed):.2%})"
    return strip(panels), caption


def log_settings(logger: Any, settings: dict[str, Any], scores: dict[str, float]) -> None:
    """Log the settings, with the scores where a logger compares runs by both, as TensorBoard does."""
    if "metrics" in inspect.signature(logger.log_hyperparams).parameters:
        logger.log_hyperparams(settings, {f"compare/{name}": score for name, score in scores.items()})
    else:
        logger.log_hyperparams(settings)


def takes_pictures(logger: Logger) -> bool:
    """Return whether a logger takes pictures: W&B's has a method, TensorBoard's a writer for them."""
    return hasattr(logger, "log_image") or hasattr(_writer(logger), "add_image")


def log_picture(logger: Any, name: str, picture: Image, caption: str) -> None:
    """Log an RGB picture ``(H, W, 3)``."""
    if hasattr(logger, "log_image"):
        logger.log_image(name, [picture], caption=[caption])
    else:
        _writer(logger).add_image(name, picture, dataformats="HWC")
        _writer(logger).add_text(f"{name}/caption", markdown(caption))


def log_classes(logger: Any, rows: Sequence[Sequence[Any]]) -> None:
    """Log the scores of all classes, in the richest form that a logger takes."""
    if hasattr(logger, "log_table"):
        logger.log_table("classes", columns=list(TABLE_COLUMNS), data=[list(row) for row in rows])
    elif hasattr(_writer(logger), "add_text"):
        _writer(logger).add_text("classes", markdown_table(rows))
    else:
        logger.log_metrics({f"IoU/{name}": iou for name, iou, _, _ in rows if iou is not None})
        logger.log_metrics({f"Acc/{name}": acc for name, _, acc, _ in rows if acc is not None})


def markdown_table(rows: Sequence[Sequence[Any]]) -> str:
    """Return the table of classes as Markdown, which TensorBoard renders."""
    lines = [TABLE_COLUMNS, ("---", *["---:"] * (len(TABLE_COLUMNS) - 1)), *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: Sequence[Any]) -> list[str]:
    return ["-" if cell is None else f"{cell:.2f}" if isinstance(cell, float) else markdown(cell) for cell in row]


def _writer(logger: Any) -> Any:
    return getattr(logger, "experiment", None)
