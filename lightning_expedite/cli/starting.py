"""How a run takes its output folder: alone, and from where an interrupted run stopped."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning.cli import LightningArgumentParser

from ..errors import ConfigError
from ..evaluation.fingerprints import LIMITS, fingerprint, image_fingerprints, is_all
from ..evaluation.locking import held
from ..evaluation.resuming import JournalKeeper, Start, claim_journal, forget_journal, is_of
from ..files import claim_output
from ..models.segmenter.weights import resolve_checkpoint
from .settings import EvaluationCLI


@contextmanager
def started(cli: EvaluationCLI, result: Path, product: Path) -> Iterator[Start]:
    """Hold the output folder, and find out what is left to do there.

    Args:
        cli: The subcommand's options.
        result: The file, written last, that tells what a finished run was of.
        product: File or folder whose presence tells of an earlier run.

    Raises:
        OutputError: Another process works there, or there are results that may be neither used nor replaced.
        ConfigError: Only a part of the images is asked for, which cannot be gone on with.
    """
    resume, overwrite = cli.config.resume, cli.config.overwrite
    part = limit_of(cli.config.trainer)
    if resume and part:
        raise ConfigError(f"--resume true goes on to the last image: leave trainer.{part} out")
    start = Start(cli.output / f"unfinished_{cli.name}", whole=part is None)
    if not cli.trainer.is_global_zero:
        # The first process does not change the result before this one takes part.
        start.complete = resume and result.exists() and is_of(result, describe(cli)[0], overwrite=True)
        yield start
        return
    with held(cli.output):
        start.run, start.contents = describe(cli)
        if resume and is_of(result, start.run, overwrite=True):
            start.complete = True
            forget_journal(start)
        elif not claim_journal(start, resume, overwrite):
            if resume:
                is_of(result, start.run, overwrite)
            claim_output(cli.output, product, overwrite)
        yield start


def protect(callbacks: list[Any], start: Start) -> None:
    """Add, after a run's other callbacks, the one that keeps what is finished."""
    if start.whole:
        callbacks.append(JournalKeeper(start))


def add_resume(parser: LightningArgumentParser) -> None:
    """Add the option."""
    parser.add_argument(
        "--resume", type=bool, default=False, help="go on with an interrupted run in the output folder, if there is one"
    )


def limit_of(trainer: Any) -> str | None:
    """Give the trainer's setting that lets it see a part of the images, ``None`` where it sees all."""
    limits = (name for name in LIMITS if trainer.get(name))
    return next((name for name in limits if not is_all(trainer[name])), None)


def describe(cli: EvaluationCLI) -> tuple[dict[str, Any], list[str]]:
    """Give what a run is of, and a checksum of each image; see `fingerprint`."""
    labels = cli.name == "test"
    contents = image_fingerprints(cli.datamodule.list_images(labels))
    checkpoint = resolve_checkpoint(cli.model.checkpoint, cli.model.weights_folder)
    device = cli.trainer.strategy.root_device.type
    return fingerprint(cli.name, yaml.safe_load(cli.resolved_config()), device, checkpoint, contents), contents
