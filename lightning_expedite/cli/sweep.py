"""``sweep``: test and benchmark every point of a grid of reducers and settings."""

from collections.abc import Sequence

from rich.console import Console

from ..errors import ExpediteError, fail
from ..search.running import sweep
from ..search.sweep_options import read_options

INTERRUPTED = 130  # what shells give after Ctrl-C


def run(arguments: Sequence[str]) -> int:
    """Run a sweep, or what is left of it; errors are shown here, as the command line's own way imports Lightning."""
    try:
        return sweep(read_options(arguments), Console())
    except ExpediteError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on from here")
        return INTERRUPTED
