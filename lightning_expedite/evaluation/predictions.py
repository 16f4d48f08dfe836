"""Files of a prediction: label maps, overlays and comparisons as PNG files, and the list of their images."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer

from ..data.reading import size_mismatch
from ..data.samples import ImageSource, Size
from ..data.sources import FileSource
from ..errors import OutputError
from ..files import write_atomically
from ..visualization import compare, figure_bytes
from ..visualization.arrays import overlay_labels

LABELS_FOLDER = "labels"
OVERLAYS_FOLDER = "overlays"
COMPARISONS_FOLDER = "comparisons"
FOLDERS = (LABELS_FOLDER, OVERLAYS_FOLDER, COMPARISONS_FOLDER)
RUN_FILE = "predict.json"


def names_written(output: Path) -> list[str] | None:
    """Return the names of the images whose pictures earlier runs wrote; ``None`` if that is not known."""
    try:
        names: list[str] | None = json.loads((output / RUN_FILE).read_bytes()).get("images")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, AttributeError):
        return None
    return names


def check_folders(output: Path, source: ImageSource) -> None:
    """Check that pictures neither replace files of others nor are taken for images to predict.

    Raises:
        OutputError: A folder for pictures holds PNG files of others, or images of ``source``.
    """
    names = names_written(output)
    own = None if names is None else {output / folder / f"{name}.png" for folder in FOLDERS for name in names}
    for folder in (output / name for name in FOLDERS):
        foreign = sorted(path for path in folder.rglob("[!.]*.png") if own is not None and path not in own)
        if foreign:
            raise OutputError(
                f"{folder} holds {len(foreign)} PNG files that predict did not write ({foreign[0].name}): use another "
                "--output"
            )
        resolved = folder.resolve()
        entries = source.entries if isinstance(source, FileSource) and folder.is_dir() else []
        inside = [entry.image for entry in entries if entry.image.resolve().is_relative_to(resolved)]
        if inside:
            raise OutputError(
                f"{len(inside)} of the images are in {folder}, where predict writes ({inside[0].name}): use another "
                "--output, or another folder of images"
            )


def remove_pictures(output: Path, names: Iterable[str]) -> None:
    """Remove the pictures of some images."""
    for name in names:
        for folder in FOLDERS:
            (output / folder / f"{name}.png").unlink(missing_ok=True)


class PictureWriter(Callback):
    """Writes pictures of each image.

    Args:
        output: Folder to write to.
    """

    def __init__(self, output: Path) -> None:
        self.output = output

    def paths(self, name: str) -> list[Path]:
        """Return the files of an image."""
        raise NotImplementedError


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
        """Return the label map's file and, if wanted, the overlay's."""
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
    """Writes ``comparisons/NAME.png``: image, ground truth if there is one, predictions without and with the reducer.

    The model runs a second time on every image, without its reducer and uncompiled.

    Args:
        output: Folder to write to.
    """

    def paths(self, name: str) -> list[Path]:
        """Return the comparison's file."""
        return [self.output / COMPARISONS_FOLDER / f"{name}.png"]

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Raise `ConfigError` if the data set has other classes than the model."""
        pl_module.check_classes(trainer.datamodule)  # type: ignore[attr-defined]

    def on_predict_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Draw the images of one batch."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        samples = [sample for sample in batch if sample["index"] >= 0]
        for sample, (name, labels) in zip(samples, outputs, strict=True):
            with trainer.precision_plugin.predict_step_context():
                baseline = pl_module.predict_baseline(sample).labels.cpu().numpy()
            figure = compare(
                data.read_image(sample["index"]),
                baseline,
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
