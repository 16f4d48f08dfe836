"""``completion``: print a script that completes commands, options and their values in a shell."""

import importlib
import re
from collections.abc import Sequence
from typing import Any, Literal

import shtab

from . import SUBCOMMANDS
from .parser import Parser


def make_parser() -> Parser:
    """Return the parser of the command's options."""
    parser = Parser(
        "completion", "Print a script that completes commands, options and values after lightning-expedite."
    )
    parser.add_argument("shell", type=Literal["bash", "zsh"], help="the shell that reads the script")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Print the script, which holds the options of this installation."""
    print(script_for(make_parser().parse_args(list(arguments)).shell))
    return 0


def script_for(shell: str) -> str:
    """Return the script for ``bash`` or ``zsh``; every command is imported for it, which takes some seconds."""
    tree = Parser("")
    commands = tree.add_subcommands()
    for name, description in SUBCOMMANDS.items():
        commands.add_subcommand(name, parser_of(name), help=description)
    script = tree.get_completion_script(f"shtab-{shell}")
    return re.sub(r"lightning_expedite\.(data\.)?(?=[A-Z])", "", script)  # a class's name is enough


def parser_of(name: str) -> Any:
    """Return a command's parser: what its ``make_parser`` returns, or the parser of its `EvaluationCLI`."""
    module = importlib.import_module(f"{__package__}.{name}")
    if hasattr(module, "make_parser"):
        return module.make_parser()
    from .settings import EvaluationCLI  # imports torch

    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, EvaluationCLI)]
    own = (kind for kind in kinds if kind.name == name and kind is not EvaluationCLI)
    parser = next((kind.make_parser() for kind in own), Parser(name))
    for action in parser._actions:
        if action.dest.startswith("trainer.") and action.dest != "trainer.precision":
            # Without it the settings of all of Lightning's classes are listed: 100 MB.
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    return parser
