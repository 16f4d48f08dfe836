"""What a prediction leaves behind: label maps and overlays as PNG files."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer

from ..errors import OutputError
from ..files import write_atomically
from ..reporting.overlay import overlay_labels

LABELS_FOLDER = "labels"
OVERLAYS_FOLDER = "overlays"


class PredictionWriter(Callback):
    """Writes ``labels/NAME.png`` (class indices from 0) and, if wanted, ``overlays/NAME.png``.

    Args:
        output: Folder to write to.
        overlay: Whether to write coloured overlays too.
    """

    def __init__(self, output: Path, overlay: bool = False) -> None:
        self.output = output
        self.overlay = overlay

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Write the maps of one batch."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        samples = [sample for sample in batch if sample["index"] >= 0]
        for sample, (name, labels) in zip(samples, outputs, strict=True):
            maps = labels.numpy()
            narrow = maps.astype(np.uint8 if maps.max() < 256 else np.uint16)
            write_png(self.output / LABELS_FOLDER / f"{name}.png", narrow)
            if self.overlay:
                image = data.read_image(sample["index"])
                write_png(self.output / OVERLAYS_FOLDER / f"{name}.png", overlay_labels(image, maps, data.palette))


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
