"""What a prediction leaves behind: label maps, overlays and comparisons as PNG files."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer

from ..data.reading import size_mismatch
from ..data.samples import Size
from ..errors import OutputError
from ..files import write_atomically
from ..visualization import compare, figure_bytes
from ..visualization.overlay import overlay_labels

LABELS_FOLDER = "labels"
OVERLAYS_FOLDER = "overlays"
COMPARISONS_FOLDER = "comparisons"


class PictureWriter(Callback):
    """Writes pictures of each image.

    Args:
        output: Folder to write to.
    """

    def __init__(self, output: Path) -> None:
        self.output = output

    def paths(self, name: str) -> list[Path]:
        """Give the pictures of an image."""
        raise NotImplementedError

    def has(self, name: str) -> bool:
        """Tell whether all pictures of an image are there."""
        return all(path.is_file() for path in self.paths(name))


class PredictionWriter(PictureWriter):
    """Writes ``labels/NAME.png`` (class indices from 0) and, if wanted, ``overlays/NAME.png``.

    Args:
        output: Folder to write to.
        overlay: Whether to write coloured overlays too.
    """

    def __init__(self, output: Path, overlay: bool = False) -> None:
        super().__init__(output)
        self.overlay = overlay

    def paths(self, name: str) -> list[Path]:
        """Give the label map's file and, if wanted, the overlay's."""
        folders = (LABELS_FOLDER, OVERLAYS_FOLDER) if self.overlay else (LABELS_FOLDER,)
        return [self.output / folder / f"{name}.png" for folder in folders]

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Write the maps of one batch."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        samples = [sample for sample in batch if sample["index"] >= 0]
        for sample, (name, labels) in zip(samples, outputs, strict=True):
            maps = labels.numpy()
            narrow = maps.astype(np.uint8 if maps.max() < 256 else np.uint16)
            labels_file, *overlay_file = self.paths(name)
            write_png(labels_file, narrow)
            for path in overlay_file:
                write_png(path, overlay_labels(data.read_image(sample["index"]), maps, data.palette))


class ComparisonWriter(PictureWriter):
    """Writes ``comparisons/NAME.png``: image, ground truth where there is one, labels without and with the reducer.

    The model runs a second time on every image, without its reducer and uncompiled.

    Args:
        output: Folder to write to.
    """

    def paths(self, name: str) -> list[Path]:
        """Give the comparison's file."""
        return [self.output / COMPARISONS_FOLDER / f"{name}.png"]

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Raise `ConfigError` where names and colours are not those of the model's classes."""
        pl_module.check_classes(trainer.datamodule)  # type: ignore[attr-defined]

    def on_predict_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Draw the images of one batch."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        samples = [sample for sample in batch if sample["index"] >= 0]
        for sample, (name, labels) in zip(samples, outputs, strict=True):
            with trainer.precision_plugin.predict_step_context():
                unreduced = pl_module.predict_baseline(sample).labels.cpu().numpy()
            figure = compare(
                data.read_image(sample["index"]),
                unreduced,
                labels.numpy(),
                label=read_label(data, sample),
                classes=data.classes,
                palette=data.palette,
                names=("baseline", type(pl_module.reducer).__name__),
            )
            (path,) = self.paths(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, figure_bytes(figure))


def read_label(data: Any, sample: Any) -> NDArray[np.uint8] | None:
    """Read the ground truth of a sample, where the data module has one.

    Raises:
        DataError: It is damaged, or of another size than its image.
    """
    label: NDArray[np.uint8] | None = data.read_label(sample["index"])
    if label is not None and label.shape != tuple(sample["size"]):
        raise size_mismatch(sample["name"], Size(*label.shape), Size(*sample["size"]))
    return label


def write_png(path: Path, pixels: NDArray[np.integer]) -> None:
    """Write a grey or RGB picture; folders are made where missing."""
    import cv2

    if pixels.ndim == 3:
        pixels = pixels[..., ::-1]  # OpenCV's order is BGR
    path.parent.mkdir(parents=True, exist_ok=True)
    written, content = cv2.imencode(".png", pixels)
    if not written:
        raise OutputError(f"{path}: a picture of shape {pixels.shape} could not be encoded")
    write_atomically(path, content.tobytes())
