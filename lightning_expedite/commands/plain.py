"""Subcommands that are one function."""

from collections.abc import Callable, Sequence
from typing import Any


def run_function(function: Callable[..., Any], arguments: Sequence[str]) -> int:
    """Call a function with its arguments read from the command line, and show what it gives back."""
    import jsonargparse

    result = jsonargparse.auto_cli(function, args=list(arguments), as_positional=False)
    if result is not None:
        print(result)
    return 0
