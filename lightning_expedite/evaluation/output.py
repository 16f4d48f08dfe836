"""The folder that a run writes to."""

from pathlib import Path

from pytorch_lightning import Trainer
from pytorch_lightning.profilers import Profiler

from ..errors import OutputError


def claim_output(output: Path, result: Path, overwrite: bool) -> None:
    """Make the output folder, or refuse, before any work, one that holds a result already.

    Args:
        output: Folder that the run writes to.
        result: File or folder in it whose presence tells of an earlier run.
        overwrite: Whether an earlier result may be replaced.

    Raises:
        OutputError: There is a result and ``overwrite`` is not set, or the folder cannot be made.
    """
    taken = any(result.iterdir()) if result.is_dir() else result.exists()
    if taken and not overwrite:
        raise OutputError(f"{result} exists already; give --overwrite or another --output")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--output {output} cannot be made a folder: {error.strerror}") from error


def keep_traces(trainer: Trainer, output: Path) -> None:
    """Let the trainer's profiler, if it names no folder of its own, write to a run's output folder."""
    profiler: Profiler = trainer.profiler  # type: ignore[attr-defined]
    if profiler.dirpath is None:
        profiler.dirpath = output
