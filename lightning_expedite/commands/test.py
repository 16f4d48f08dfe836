"""``test``: evaluate a model on a data set."""

from collections.abc import Sequence

from ..evaluation.output import claim_output
from ..evaluation.results import RESULTS_FILE, ResultsWriter
from ..files import write_atomically
from .settings import EvaluationCLI


def run(arguments: Sequence[str]) -> int:
    """Evaluate, write the results and show them."""
    cli = EvaluationCLI(arguments)
    if cli.trainer.is_global_zero:
        claim_output(cli.output, cli.output / RESULTS_FILE, cli.config.overwrite)
        write_atomically(cli.output / "config.yaml", cli.resolved_config().encode())
    cli.trainer.callbacks.append(ResultsWriter(cli.output, cli.resolved_settings()))  # type: ignore[attr-defined]
    cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    return 0
