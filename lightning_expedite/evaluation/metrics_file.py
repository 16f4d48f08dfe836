"""The logger that every ``test`` has: one row of numbers in the run's own folder."""

import csv
import io
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from ..files import write_atomically

METRICS_FILE = "metrics.csv"


class MetricsFile(Logger):
    """Writes all numbers that a run logs as one row of ``metrics.csv``, once the run has succeeded.

    Args:
        folder: Where to write.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._row: dict[str, float] = {}

    @property
    def name(self) -> str:
        """Name of the logger."""
        return METRICS_FILE

    @property
    def version(self) -> str:
        """There is one file a run, and no versions."""
        return ""

    @property
    def save_dir(self) -> str:
        """Folder of the file."""
        return str(self.folder)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add numbers to the row; the epoch, of which a test has one, is left out."""
        self._row.update({name: float(value) for name, value in metrics.items() if name != "epoch"})

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Keep none: ``config.yaml`` holds the settings."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the row of a run that succeeded."""
        if status != "success" or not self._row:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self._row), lineterminator="\n")
        writer.writeheader()
        writer.writerow(self._row)
        write_atomically(self.folder / METRICS_FILE, text.getvalue().encode())
