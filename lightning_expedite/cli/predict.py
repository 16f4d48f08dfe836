"""``predict``: write label maps."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.cli import LightningArgumentParser

from ..errors import ConfigError
from ..evaluation.output import keep_traces
from ..evaluation.predictions import LABELS_FOLDER, ComparisonWriter, PictureWriter, PredictionWriter
from ..evaluation.resuming import RUN, Start
from ..files import write_atomically
from .settings import EvaluationCLI
from .starting import add_resume, protect, started

RUN_FILE = "predict.json"


class PredictionCLI(EvaluationCLI):
    """The options of ``predict``."""

    name = "predict"

    def add_own_arguments(self, parser: LightningArgumentParser) -> None:
        """Add what to predict on and what to write."""
        add_resume(parser)
        parser.add_argument(
            "--images", type=str | None, default=None, help="folder of images, or one image, instead of the data set"
        )
        parser.add_argument("--overlay", action="store_true", help="also write coloured overlays")
        parser.add_argument("--compare", action="store_true", help="also draw labels without and with the reducer")


def run(arguments: Sequence[str]) -> int:
    """Label every image and write the maps."""
    cli = PredictionCLI(arguments)
    if cli.config.images:
        cli.datamodule.read_images_from(Path(cli.config.images))
    if cli.config.compare and cli.model.reducer is None:
        raise ConfigError("--compare draws labels without and with a reducer, but none is set: give --model.reducer")
    writers: list[PictureWriter] = [PredictionWriter(cli.output, cli.config.overlay)]
    if cli.config.compare:
        writers.append(ComparisonWriter(cli.output))
    with started(cli, cli.output / RUN_FILE, product=cli.output / LABELS_FOLDER) as start:
        if start.complete:
            take_pictures(cli, start, writers)
        if not start.complete:
            label_images(cli, start, writers)
    if cli.trainer.is_global_zero:
        print(f"label maps are in {cli.output / LABELS_FOLDER}")
    return 0


def take_pictures(cli: PredictionCLI, start: Start, writers: Sequence[PictureWriter]) -> None:
    """Look whether a finished run's pictures are all there; where some are not, take its images to be the others."""
    source = cli.datamodule.listed
    names = [source.name(index) for index in range(len(source))]
    start.records = [{"index": at, "name": name} for at, name in enumerate(names) if has_all(writers, name)]
    start.complete = len(start.records) == len(names)


def has_all(writers: Sequence[PictureWriter], name: str) -> bool:
    """Tell whether all pictures of an image are there."""
    return all(writer.has(name) for writer in writers)


def label_images(cli: PredictionCLI, start: Start, writers: Sequence[PictureWriter]) -> None:
    """Label the images that are left."""
    keep_traces(cli.trainer, cli.output)
    if cli.trainer.is_global_zero:
        (cli.output / RUN_FILE).unlink(missing_ok=True)  # it tells what all maps are of, which begin to change
        write_atomically(cli.output / "predict.yaml", cli.resolved_config().encode())
    start.records = [record for record in start.records if has_all(writers, record["name"])]
    callbacks: list[Any] = cli.trainer.callbacks  # type: ignore[attr-defined]
    callbacks += writers
    protect(callbacks, start)
    cli.trainer.predict(cli.model, datamodule=cli.datamodule, return_predictions=False)
    if cli.trainer.is_global_zero:
        write_atomically(cli.output / RUN_FILE, json.dumps({RUN: start.run}, indent=1).encode())
