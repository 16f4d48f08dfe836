"""``predict``: write label maps."""

import json
from collections.abc import Sequence
from pathlib import Path

from pytorch_lightning.cli import LightningArgumentParser

from ..errors import ConfigError
from ..evaluation.predictions import (
    LABELS_FOLDER,
    RUN_FILE,
    PredictionWriter,
    check_folders,
    names_written,
    remove_pictures,
)
from ..evaluation.resume import RUN, RunState
from ..files import write_atomically
from .settings import EvaluationCLI
from .starting import add_callbacks, add_resume, started


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
        parser.add_argument(
            "--compare", action="store_true", help="also draw the predictions of the baseline and of the reduced model"
        )


def run(arguments: Sequence[str]) -> int:
    """Predict every image and write the label maps."""
    cli = PredictionCLI(arguments)
    if cli.config.images == "":
        raise ConfigError("--images is empty: give a folder or an image, or leave the option out")
    if cli.config.images:
        cli.datamodule.read_images_from(Path(cli.config.images))
    if cli.config.compare and cli.model.reducer is None:
        raise ConfigError(
            "--compare draws the predictions without and with a reducer, but none is set: set --model.reducer"
        )
    writer = PredictionWriter(cli.output, cli.config.overlay, cli.config.compare)
    if cli.trainer.is_global_zero:
        cli.datamodule.list_images(labels=False)
        check_folders(cli.output, cli.datamodule.listed)
    with started(cli, RUN_FILE, product=LABELS_FOLDER) as state:
        names = [name for name, _ in state.images]
        if state.complete:  # pictures that a finished run has lost are made again
            state.records = [{"index": at, "name": name} for at, name in enumerate(names) if writer.has_written(name)]
            state.complete = len(state.records) == len(names)
        if not state.complete:
            predict(cli, state, writer)
    if cli.trainer.is_global_zero:
        print(f"label maps are in {cli.output / LABELS_FOLDER}")
    return 0


def predict(cli: PredictionCLI, state: RunState, writer: PredictionWriter) -> None:
    """Predict the images that are left."""
    state.records = [record for record in state.records if writer.has_written(record["name"])]
    names, result = [name for name, _ in state.images], cli.output / RUN_FILE
    if cli.trainer.is_global_zero:
        remove_pictures(cli.output, set(names_written(cli.output)) - {each["name"] for each in state.records})
        write_atomically(result, json.dumps({"images": names}).encode())
        write_atomically(cli.output / "predict.yaml", cli.resolved_config().encode())
    add_callbacks(cli, state, [writer])
    cli.trainer.predict(cli.model, datamodule=cli.datamodule, return_predictions=False)
    if cli.trainer.is_global_zero:
        write_atomically(result, json.dumps({RUN: state.run, "images": names}, indent=1).encode())
