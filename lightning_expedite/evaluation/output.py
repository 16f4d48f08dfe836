"""The folder that a run writes to."""

from pathlib import Path

from pytorch_lightning import Trainer
from pytorch_lightning.profilers import Profiler

from ..files import claim_output

__all__ = ["claim_output", "keep_traces"]


def keep_traces(trainer: Trainer, output: Path) -> None:
    """Let the trainer's profiler, if it names no folder of its own, write to a run's output folder."""
    profiler: Profiler = trainer.profiler  # type: ignore[attr-defined]
    if profiler.dirpath is None:
        profiler.dirpath = output
