"""``test``: evaluate a model on a data set."""

from collections.abc import Sequence
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningArgumentParser

from .. import benchmarking
from ..analysis.schema import load_shown
from ..errors import ConfigError
from ..evaluation.results import RESULTS_FILE, ResultsWriter, show_results
from ..evaluation.resume import RunState
from ..evaluation.run_logger import RunLogger
from .loggers import place_loggers, with_place
from .settings import EvaluationCLI
from .starting import add_callbacks, add_resume, started

# Imported so that their names alone are known to --trainer.callbacks.
PROFILERS = (benchmarking.FlopsProfiler, benchmarking.LatencyProfiler, benchmarking.MemoryProfiler)


class ScoringCLI(EvaluationCLI):
    """The options of ``test``; its loggers write to the run's folder where they are told no other."""

    name = "test"
    logs = True

    def add_own_arguments(self, parser: LightningArgumentParser) -> None:
        """Add what to log."""
        add_resume(parser)
        add = parser.add_argument
        add("--log_images", type=int, default=0, help="number of images that loggers get as pictures, from the first")
        add(
            "--log_changes",
            action="store_true",
            help="mark the pixels that the reducer changes in them; each is predicted twice",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the words, in which a logger may be named without a place to write to."""
        super().parse_arguments(parser, with_place(args))
        if self.config.log_images < 0:
            raise ConfigError(f"--log_images is {self.config.log_images}: it must be 0 or more")

    def instantiate_classes(self) -> None:
        """Create model, data, trainer and loggers.

        Raises:
            ConfigError: A logger's package is not installed.
        """
        settings, self.config = self.config, self.config.clone()  # the resolved config names no folder of this run
        place_loggers(self.config.trainer, self.output)
        try:
            super().instantiate_classes()
        except (ModuleNotFoundError, ValueError) as error:
            reason = missing_package(error)
            if reason is None:
                raise
            raise ConfigError(
                f"a package is missing ({reason}); TensorBoard's and W&B's come with "
                "pip install 'lightning-expedite[tensorboard]' and 'lightning-expedite[wandb]'"
            ) from error
        self.config = settings

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer, with those loggers only that are named: ``metrics.csv`` takes the default one's place."""
        if self.config_init.trainer.logger in (True, None):
            kwargs["logger"] = False
        return super().instantiate_trainer(**kwargs)


def missing_package(error: BaseException | None) -> str | None:
    """Return the message of a missing package's error, which jsonargparse wraps; ``None`` for any other error."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError):
            return next(iter(str(error).splitlines()), "unknown")
        error = error.__cause__ or error.__context__
    return None


def run(arguments: Sequence[str]) -> int:
    """Evaluate, write the results and show them."""
    cli = ScoringCLI(arguments)
    with started(cli, RESULTS_FILE, product=RESULTS_FILE) as state:
        if not state.complete:
            evaluate(cli, state)
        elif cli.trainer.is_global_zero:
            show_results(load_shown(cli.output / RESULTS_FILE), cli.output)
            print("these results existed already; nothing was left to do")
    return 0


def evaluate(cli: ScoringCLI, state: RunState) -> None:
    """Evaluate the images that are left, and write the results of all."""
    settings = cli.resolved_config()
    writer = ResultsWriter(cli.output, settings, state.run, metrics=cli.config.trainer.logger is not False)
    # After the writer, so that the run's time is without the logging of pictures.
    logger = RunLogger(settings, cli.config.log_images, cli.config.log_changes)
    add_callbacks(cli, state, [writer, logger])
    if not cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False):
        raise ConfigError("no image was evaluated; trainer.limit_test_batches must let at least one batch through")
