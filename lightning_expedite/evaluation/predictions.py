"""Files of a prediction: label maps, overlays and comparisons as PNG files, and the list of their images."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import Callback, Trainer

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


def names_written(output: Path) -> list[str]:
    """Return the names of the images whose pictures earlier runs wrote, as far as `RUN_FILE` lists them."""
    try:
        names = json.loads((output / RUN_FILE).read_bytes())["images"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def check_folders(output: Path, source: ImageSource) -> None:
    """Check that pictures neither replace files of others nor are taken for images or labels.

    Raises:
        OutputError: A folder for pictures holds files that ``predict`` did not write, or images of ``source``.
    """
    own = {output / folder / f"{name}.png" for folder in FOLDERS for name in names_written(output)}
    for folder in (output / name for name in FOLDERS):
        # Files of any kind: a label map beside a label of the same name would be taken for it.
        found = (path for path in folder.rglob("[!.]*") if path.is_symlink() or path.is_file())
        foreign = sorted(path for path in found if path not in own)
        if foreign:
            raise OutputError(
                f"{folder} holds {len(foreign)} files that predict did not write ({foreign[0].name}): use another "
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


class PredictionWriter(Callback):
    """Writes pictures of each image.

    ``labels/NAME.png`` holds class indices from 0, ``overlays/NAME.png`` the coloured labels over the image, and
    ``comparisons/NAME.png`` image, ground truth if there is one, and predictions without and with the reducer: for it
    the model runs a second time on every image, without its reducer and uncompiled.

    Args:
        output: Folder to write to.
        overlay: Whether to write overlays.
        compare: Whether to write comparisons.
    """

    def __init__(self, output: Path, overlay: bool = False, compare: bool = False) -> None:
        self.output = output
        self.overlay = overlay
        self.compare = compare

    def has_written(self, name: str) -> bool:
        """Return whether all pictures of an image are there."""
        wanted = {LABELS_FOLDER: True, OVERLAYS_FOLDER: self.overlay, COMPARISONS_FOLDER: self.compare}
        return all(self._path(folder, name).is_file() for folder, is_wanted in wanted.items() if is_wanted)

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Raise `ConfigError` if comparisons are wanted and the data set has other classes than the model."""
        if self.compare:
            pl_module.check_classes(trainer.datamodule)  # type: ignore[attr-defined]

    def on_predict_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Write the pictures of one batch."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        samples = [sample for sample in batch if sample["index"] >= 0]
        for sample, (name, prediction) in zip(samples, outputs, strict=True):
            labels = prediction.numpy()
            write_png(self._path(LABELS_FOLDER, name), labels.astype(np.uint8 if labels.max() < 256 else np.uint16))
            if self.overlay:
                drawn = overlay_labels(data.read_image(sample["index"]), labels, data.palette)
                write_png(self._path(OVERLAYS_FOLDER, name), drawn)
            if self.compare:
                with trainer.precision_plugin.predict_step_context():
                    baseline = pl_module.predict_baseline(sample).labels.cpu().numpy()
                figure = compare(
                    data.read_image(sample["index"]),
                    baseline,
                    labels,
                    label=read_target(data, sample),
                    classes=data.classes,
                    palette=data.palette,
                    names=("baseline", type(pl_module.reducer).__name__),
                )
                write_picture(self._path(COMPARISONS_FOLDER, name), figure_bytes(figure))

    def _path(self, folder: str, name: str) -> Path:
        return self.output / folder / f"{name}.png"


def read_target(data: Any, sample: Any) -> NDArray[np.uint8] | None:
    """Read the ground truth of a sample, where the data module has one.

    Raises:
        DataError: It is damaged, or of another size than its image.
    """
    label: NDArray[np.uint8] | None = data.read_label(sample["index"])
    if label is not None and label.shape != tuple(sample["size"]):
        raise size_mismatch(sample["name"], Size(*label.shape), Size(*sample["size"]))
    return label


def write_png(path: Path, pixels: NDArray[np.integer]) -> None:
    """Write a grey or RGB picture."""
    import cv2

    written, content = cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)  # OpenCV's order is BGR
    if not written:
        raise OutputError(f"{path}: a picture of shape {pixels.shape} could not be encoded")
    write_picture(path, content.tobytes())


def write_picture(path: Path, content: bytes) -> None:
    """Write a file; folders are made where missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
