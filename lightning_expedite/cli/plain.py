"""Subcommands that are one function."""

from collections.abc import Callable, Sequence
from typing import Any


def run_function(function: Callable[..., Any], arguments: Sequence[str], name: str) -> int:
    """Call a function with its arguments read from the command line, and show what it gives back.

    Args:
        function: Its signature and docstring make the options.
        arguments: Words of the command line after the subcommand.
        name: What the user calls it by.

    Returns:
        The exit status.
    """
    import jsonargparse

    # A flag alone means yes, as for the other subcommands; auto_cli wants a value behind it.
    words = [f"{word}=true" if word == "--overwrite" else word for word in arguments]
    result = jsonargparse.auto_cli(
        function, args=words, as_positional=False, prog=f"python -m lightning_expedite {name}"
    )
    if result is not None:
        print(result)
    return 0
