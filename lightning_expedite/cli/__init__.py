"""The command line: finds the command and leaves the rest to its module."""

import importlib
import io
import sys
from collections.abc import Sequence

from ..errors import fail, message_for, nearest
from ..version import __version__

INTERRUPTED = 130  # what shells return after Ctrl-C
RESUMED = ("sweep", "search", "recommend")  # the last has a deprecated option that searches
SUBCOMMANDS = {
    "test": "evaluate a model on a labelled data set: mIoU, per-class scores, pixel counts of every image",
    "benchmark": "time models with a reducer against their baselines: latency, throughput, memory, FLOPs",
    "sweep": "test and benchmark every point of a grid of reducers and settings",
    "search": "search for good settings of a reducer, then test and benchmark the best ones",
    "report": "compare any number of results: tables, Pareto fronts and one page",
    "recommend": "choose a setting for a goal, with a confidence; search for better ones",
    "predict": "write the label maps of a data set or of a folder of images",
    "visualize": "draw which patches share a token, layer by layer",
    "export": "write a model with its reducer as a torch.export or ONNX file, checked against the model",
    "convert": "convert a checkpoint of any known layout to safetensors and variant.yml",
    "prepare": "bring a data set's distributed annotations into the layout that is read here",
    "completion": "print a completion script for bash or zsh",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program's name; those of the process by default.

    Returns:
        The exit status: 0, 2 after an error that the user can fix, 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # class and file names may have no form in the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        print(__version__)
        return 0
    if words[0] not in SUBCOMMANDS:
        hint = nearest(words[0], (*SUBCOMMANDS, "--help", "--version"))
        return fail(f"{words[0]!r} is not a command{hint}; the commands are {', '.join(SUBCOMMANDS)}")
    try:
        # Only here: torch and Lightning take seconds to import, and --help needs neither.
        status: int = importlib.import_module(f".{words[0]}", __name__).run(words[1:])
    except Exception as error:
        message = message_for(error)
        if message is None:
            raise
        return fail(message)
    except KeyboardInterrupt:
        fail("interrupted" + "; the same command continues from here" * (words[0] in RESUMED))
        return INTERRUPTED
    return status


def usage() -> str:
    """Return the help text of the program."""
    lines = [f"  {name:<11}{text}" for name, text in SUBCOMMANDS.items()]
    return "\n".join(
        (
            "usage: lightning-expedite COMMAND [options]",
            "",
            "Measures what token reduction costs and saves in a ViT segmentation model: mIoU and time, on your data.",
            "",
            "commands:",
            *lines,
            "",
            "lightning-expedite COMMAND --help lists the options of a command.",
            "First try: lightning-expedite test --config configs/demo_ours.yaml",
        )
    )
