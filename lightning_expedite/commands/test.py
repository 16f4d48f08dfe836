"""``test``: evaluate a model on a data set."""

from collections.abc import Sequence

from .. import profiling
from ..errors import ConfigError
from ..evaluation.output import claim_output, keep_traces
from ..evaluation.results import RESULTS_FILE, ResultsWriter
from .settings import EvaluationCLI

# Imported so that their names alone are known to --trainer.callbacks.
PROFILERS = (profiling.FlopsProfiler, profiling.LatencyProfiler, profiling.MemoryProfiler)


def run(arguments: Sequence[str]) -> int:
    """Evaluate, write the results and show them."""
    cli = EvaluationCLI(arguments)
    if cli.trainer.is_global_zero:
        claim_output(cli.output, cli.output / RESULTS_FILE, cli.config.overwrite)
    keep_traces(cli.trainer, cli.output)
    cli.trainer.callbacks.append(ResultsWriter(cli.output, cli.resolved_config()))  # type: ignore[attr-defined]
    cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    if cli.model.result is None:
        raise ConfigError("no image was evaluated; trainer.limit_test_batches must let at least one batch through")
    return 0
