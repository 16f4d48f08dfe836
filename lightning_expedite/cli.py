"""The command line: finds the subcommand and leaves the rest to its module."""

import importlib
import sys
from collections.abc import Sequence

from . import __version__
from .errors import ExpediteError

SUBCOMMANDS = {
    "test": "evaluate a model on a data set: scores, per-image counts, results.json",
    "predict": "write label maps, and coloured overlays if wanted, of a data set or a folder of images",
    "benchmark": "time models with their reducers against the same models without: latency, throughput, memory, FLOPs",
    "convert": "turn a checkpoint of any layout into safetensors and variant.yml",
    "prepare": "bring a data set's distributed annotations into the layout that is read here",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program's name; those of the process by default.

    Returns:
        The exit status: 0, or 2 after an error that the user can mend.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        print(__version__)
        return 0
    if words[0] not in SUBCOMMANDS:
        return fail(f"{words[0]!r} is no subcommand; there are {', '.join(SUBCOMMANDS)}")
    try:
        # Only here: torch and Lightning take seconds to import, and --help needs neither.
        run = importlib.import_module(f"lightning_expedite.commands.{words[0]}").run
        status: int = run(words[1:])
    except Exception as error:
        message = message_for(error)
        if message is None:
            raise
        return fail(message)
    return status


def message_for(error: BaseException) -> str | None:
    """Give the one line that tells the user what to mend, or ``None`` for errors that are the program's own.

    jsonargparse wraps what a class raises when it is put together, and a loader's worker process sends its
    errors inside a traceback: in both the user is shown the error's own words.
    """
    from pytorch_lightning.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (ExpediteError, MisconfigurationException)):
            name = f"{type(cause).__module__}.{type(cause).__qualname__}: "
            return str(cause).rpartition(name)[2].strip()
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, RuntimeError) and "Connection closed by peer" in str(error):
        return "another process stopped; its message is above"
    return None


def usage() -> str:
    """Give the help text of the program."""
    lines = [f"  {name:<11}{text}" for name, text in SUBCOMMANDS.items()]
    return "\n".join(
        (
            "usage: python -m lightning_expedite SUBCOMMAND [options]",
            "",
            "Measures what token reduction does to a trained Segmenter: to its scores and its speed, on your data.",
            "",
            "subcommands:",
            *lines,
            "",
            "python -m lightning_expedite SUBCOMMAND --help lists a subcommand's options.",
            "First try: python -m lightning_expedite test --config configs/demo_ours.yaml",
        )
    )


def fail(message: str) -> int:
    """Print an error and give its exit status."""
    print(f"error: {message}", file=sys.stderr)
    return 2
