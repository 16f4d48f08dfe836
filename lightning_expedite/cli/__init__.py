"""The command line: finds the subcommand and leaves the rest to its module."""

import importlib
import sys
from collections.abc import Sequence

from ..errors import fail, message_for
from ..version import __version__

SUBCOMMANDS = {
    "test": "evaluate a model on a data set: scores, per-image counts, results.json",
    "benchmark": "time models with their reducers against the same models without: latency, throughput, memory, FLOPs",
    "sweep": "test and benchmark a model with every point of a grid of reducers and settings",
    "report": "compare any number of results: tables, pictures and a page with scores, speeds and what is worth it",
    "recommend": "say which measured setting to use for a goal, and how sure that is; search for better ones",
    "predict": "write label maps, and coloured pictures if wanted, of a data set or a folder of images",
    "visualize": "draw which patches share a token, layer by layer, over the images",
    "export": "write a model's window forward with its reducer as a torch.export or ONNX file, checked on real crops",
    "convert": "turn a checkpoint of any layout into safetensors and variant.yml",
    "prepare": "bring a data set's distributed annotations into the layout that is read here",
    "completion": "print a script for bash or zsh that completes subcommands, options and values",
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
        run = importlib.import_module(f"lightning_expedite.cli.{words[0]}").run
        status: int = run(words[1:])
    except Exception as error:
        message = message_for(error)
        if message is None:
            raise
        return fail(message)
    return status


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
