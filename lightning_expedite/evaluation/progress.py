"""A progress bar that counts images."""

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class ImagesPerSecond(ProgressColumn):
    """Speed so far, over all processes."""

    def render(self, task: Task) -> Text:
        """Show the speed."""
        speed = task.finished_speed or task.speed
        return Text("- images/s" if speed is None else f"{speed:.2f} images/s", style="progress.data.speed")


class ImageProgress(ProgressBar):
    """Shows images done, images per second and the time left, on the first process."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._progress: Progress | None = None

    def disable(self) -> None:
        """Show nothing; Lightning calls it on all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar again."""
        self._enabled = True

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar."""
        self._open(trainer, "testing", trainer.test_dataloaders, trainer.num_test_batches)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar."""
        self._open(trainer, "predicting", trainer.predict_dataloaders, trainer.num_predict_batches)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count the batch."""
        self._advance(trainer, batch)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count the batch."""
        self._advance(trainer, batch)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the error stands on lines of its own."""
        self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the bar."""
        self._close()

    def _open(self, trainer: Trainer, name: str, loader: Any, batches: Any) -> None:
        if not self._enabled:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), ImagesPerSecond())
        self._progress = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
        done = len(trainer.datamodule.finished) if trainer.datamodule else 0  # type: ignore[attr-defined]
        left = int(sum(batches)) * loader.batch_sampler.batch_size * trainer.world_size
        self._progress.add_task(name, total=min(len(loader.dataset), done + left), completed=done)
        self._progress.start()

    def _advance(self, trainer: Trainer, batch: Any) -> None:
        if self._progress is None:
            return
        task = self._progress.tasks[0]
        done = sum(sample["index"] >= 0 for sample in batch) * trainer.world_size
        self._progress.update(task.id, completed=min(task.completed + done, task.total or 0))

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
