"""A progress bar that counts images."""

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class ImagesPerSecond(ProgressColumn):
    """Speed so far, over all processes."""

    def render(self, task: Task) -> Text:
        """Return the speed as text."""
        speed = task.finished_speed or task.speed
        return Text("- images/s" if speed is None else f"{speed:.2f} images/s", style="progress.data.speed")


class ImageProgress(ProgressBar):
    """Shows images done, images per second and the time left, on the first process.

    Lightning's own bars count the batches of one process, and know of no images that an interrupted run has finished.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._progress: Progress | None = None

    def disable(self) -> None:
        """Hide the bar; Lightning calls it on all processes except the first."""
        self._enabled = False

    def enable(self) -> None:
        """Allow the bar again."""
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
        """Count the batch, once for every process."""
        if self._progress is not None:
            task = self._progress.tasks[0]
            done = sum(sample["index"] >= 0 for sample in batch) * trainer.world_size
            self._progress.update(task.id, completed=min(task.completed + done, task.total or 0))

    def on_test_end(self, *_: Any, **__: Any) -> None:
        """Close the bar before results or an error are shown."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    on_predict_batch_end = on_test_batch_end  # type: ignore[assignment]
    on_exception = teardown = on_test_end

    def _open(self, trainer: Trainer, name: str, loader: Any, batches: Any) -> None:
        if not self._enabled:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), ImagesPerSecond())
        self._progress = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
        done = len(trainer.datamodule.finished) if trainer.datamodule else 0  # type: ignore[attr-defined]
        left = int(sum(batches)) * loader.batch_sampler.batch_size * trainer.world_size
        self._progress.add_task(name, total=min(len(loader.dataset), done + left), completed=done)
        self._progress.start()
