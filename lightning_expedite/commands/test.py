"""``test``: evaluate a model on a data set."""

from collections.abc import Sequence

from ..errors import ConfigError
from ..evaluation.output import claim_output
from ..evaluation.results import RESULTS_FILE, ResultsWriter
from .settings import EvaluationCLI


def run(arguments: Sequence[str]) -> int:
    """Evaluate, write the results and show them."""
    cli = EvaluationCLI(arguments)
    if cli.trainer.is_global_zero:
        claim_output(cli.output, cli.output / RESULTS_FILE, cli.config.overwrite)
    cli.trainer.callbacks.append(ResultsWriter(cli.output, cli.resolved_config()))  # type: ignore[attr-defined]
    cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    if cli.model.result is None:
        raise ConfigError("no image was evaluated; trainer.limit_test_batches must let at least one batch through")
    return 0
