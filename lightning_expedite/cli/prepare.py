"""``prepare``: bring distributed annotations into the layout that is read here."""

from collections.abc import Sequence

from ..data.prepare_pascal_context import prepare_pascal_context
from ..errors import ConfigError
from .plain import run_function

DATA_SETS = {"pascal_context": prepare_pascal_context}


def run(arguments: Sequence[str]) -> int:
    """Prepare the data set that the first word names."""
    if arguments and arguments[0] in DATA_SETS:
        return run_function(DATA_SETS[arguments[0]], arguments[1:], f"prepare {arguments[0]}")
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: python -m lightning_expedite prepare {{{','.join(DATA_SETS)}}} [options]")
        return 0
    raise ConfigError(f"prepare needs the name of a data set: {', '.join(DATA_SETS)}")
