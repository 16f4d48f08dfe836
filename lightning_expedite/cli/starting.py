"""How ``test`` and ``predict`` take their output folder: alone, and from where an interrupted run stopped."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import yaml
from pytorch_lightning import Callback
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.profilers import Profiler

from ..errors import ConfigError
from ..evaluation.resume import LIMITS, FinishedImages, RunState, describe_run, is_all, lock_folder, matches_run
from ..models import resolve_checkpoint
from .settings import EvaluationCLI


def add_resume(parser: LightningArgumentParser) -> None:
    """Add the option ``--resume``."""
    parser.add_argument(
        "--resume", type=bool, default=False, help="continue an interrupted run in the output folder, if there is one"
    )


@contextmanager
def started(cli: EvaluationCLI, result: str, product: str) -> Iterator[RunState]:
    """Lock the output folder, and find out what is left to do there.

    Args:
        cli: The subcommand's options.
        result: Name of the file, written last, that says what a finished run depended on.
        product: Name of the file or folder whose presence shows that there was an earlier run.

    Raises:
        OutputError: Another process works there, or there are results that may neither be used nor replaced.
        ConfigError: Only some of the images are asked for, which cannot be resumed.
    """
    limits = [name for name in LIMITS if (limit := cli.config.trainer.get(name)) and not is_all(limit)]
    if cli.config.resume and limits:
        raise ConfigError(f"--resume true continues to the last image: leave trainer.{limits[0]} out")
    state = RunState(cli.output / f"unfinished_{cli.name}", keeps_images=not limits)
    results, first = cli.output / result, cli.trainer.is_global_zero
    with lock_folder(cli.output) if first else nullcontext():
        if first or (cli.config.resume and results.exists()):
            state.images = cli.datamodule.list_images(labels=cli.name == "test")
            checkpoint = resolve_checkpoint(cli.model.checkpoint, cli.model.weights_folder)
            device, config = cli.trainer.strategy.root_device.type, yaml.safe_load(cli.resolved_config())
            state.run = describe_run(cli.name, config, device, checkpoint, state.images)
        if first:
            state.find_finished(results, cli.output / product, resume=cli.config.resume, overwrite=cli.config.overwrite)
        elif state.run:  # the first process does not change the result before this one takes part
            state.complete = matches_run(results, state.run, overwrite=True)
        yield state


def add_callbacks(cli: EvaluationCLI, state: RunState, callbacks: Sequence[Callback]) -> None:
    """Add a run's callbacks to the trainer, last of all the one that keeps what is finished."""
    trainer = cli.trainer
    trainer.callbacks += [*callbacks, FinishedImages(state)]  # type: ignore[attr-defined]
    profiler: Profiler = trainer.profiler  # type: ignore[attr-defined]
    if profiler.dirpath is None:
        profiler.dirpath = cli.output
    asked, used = str(cli.config.trainer.precision), str(trainer.precision)
    if asked == "16-mixed" and used != asked:
        cli.model.notices.add(f"--trainer.precision {asked} is not available on this device: {used} was used")
