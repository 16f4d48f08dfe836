"""``predict``: write label maps."""

from collections.abc import Sequence
from pathlib import Path

from pytorch_lightning.cli import LightningArgumentParser

from ..evaluation.output import claim_output, keep_traces
from ..evaluation.predictions import LABELS_FOLDER, PredictionWriter
from ..files import write_atomically
from .settings import EvaluationCLI


class PredictionCLI(EvaluationCLI):
    """The options of ``predict``."""

    name = "predict"

    def add_own_arguments(self, parser: LightningArgumentParser) -> None:
        """Add what to predict on and what to write."""
        parser.add_argument(
            "--images", type=str | None, default=None, help="folder of images instead of the data set's"
        )
        parser.add_argument("--overlay", action="store_true", help="also write coloured overlays")


def run(arguments: Sequence[str]) -> int:
    """Label every image and write the maps."""
    cli = PredictionCLI(arguments)
    if cli.config.images:
        cli.datamodule.read_images_from(Path(cli.config.images))
    if cli.trainer.is_global_zero:
        claim_output(cli.output, cli.output / LABELS_FOLDER, cli.config.overwrite)
        write_atomically(cli.output / "predict.yaml", cli.resolved_config().encode())
    keep_traces(cli.trainer, cli.output)
    cli.trainer.callbacks.append(PredictionWriter(cli.output, cli.config.overlay))  # type: ignore[attr-defined]
    cli.trainer.predict(cli.model, datamodule=cli.datamodule, return_predictions=False)
    if cli.trainer.is_global_zero:
        print(f"label maps are in {cli.output / LABELS_FOLDER}")
    return 0
