"""``completion``: print a script that completes subcommands, options and their values in a shell."""

import argparse
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from ..version import __version__
from . import SUBCOMMANDS
from .help_texts import Option, help_text, kinds, options, options_of_class

TEMPLATE = Path(__file__).parents[1] / "assets" / "completion.bash"
REGISTER = {
    "bash": """
# What completed "python" until now is asked about everything else.
if declare -F _comp_load >/dev/null; then
  _comp_load python >/dev/null 2>&1 || true
elif declare -F __load_completion >/dev/null; then
  __load_completion python >/dev/null 2>&1 || true
fi
_lightning_expedite_before="$(complete -p python 2>/dev/null | sed -n 's/.* -F \\([^ ]*\\) .*/\\1/p' || true)"
if [[ "$_lightning_expedite_before" == _lightning_expedite ]]; then
  _lightning_expedite_before=""
fi
complete -o bashdefault -o default -F _lightning_expedite python python3
""",
    "zsh": """
autoload -Uz +X compinit bashcompinit
(( $+functions[compdef] )) || compinit
(( $+functions[complete] )) || bashcompinit
_lightning_expedite_zsh() {
  if [[ "$words[2]" == -m && "$words[3]" == lightning_expedite ]] && (( CURRENT > 3 )); then
    _bash_complete -o bashdefault -o default -F _lightning_expedite
  else
    _python "$@"
  fi
}
compdef _lightning_expedite_zsh python python3
""",
}


def run(arguments: Sequence[str]) -> int:
    """Print the script for a shell."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_expedite completion",
        description="Print a script that completes subcommands, options and values after python -m lightning_expedite. "
        "It holds the options of this installation: make it again after an update.",
    )
    parser.add_argument("shell", choices=sorted(REGISTER), help="the shell that is to read it")
    print(script(parser.parse_args(arguments).shell), end="")
    return 0


def script(shell: str) -> str:
    """Make the script for ``bash`` or ``zsh``; it completes without starting Python.

    Every subcommand is asked for its help, which takes some seconds.
    """
    listed = {"": (["--help", "--version"], list(SUBCOMMANDS))}
    values: dict[str, list[str]] = {}
    waiting: list[tuple[str, ...]] = [(name,) for name in SUBCOMMANDS]
    while waiting:
        words = waiting.pop(0)
        text = help_text(words)
        further, found = kinds(words, text), with_classes(options(text))
        command = " ".join(words)
        listed[command] = ([name for option in found for name in option.names], list(further))
        values |= {f"{command} {name}": list(option.choices) for option in found for name in option.names}
        waiting += [(*words, kind) for kind in further]
    parts = [
        f"# lightning_expedite {__version__}; written by: python -m lightning_expedite completion {shell}",
        TEMPLATE.read_text(encoding="utf-8"),
        choose("_lightning_expedite_options", "$1", ((command, found) for command, (found, _) in listed.items())),
        choose("_lightning_expedite_kinds", "$1", ((command, further) for command, (_, further) in listed.items())),
        choose("_lightning_expedite_values", "$1 $2", values.items()),
    ]
    return "\n".join(parts) + REGISTER[shell]


def with_classes(found: Iterable[Option]) -> list[Option]:
    """Add, after the options that take a class of this package, those that set the classes' arguments; each once."""
    unique: dict[tuple[str, ...], Option] = {}
    for option in found:
        unique[option.names] = option
        for path in option.classes:
            unique = {added.names: added for added in _options_of_class(option.name, path)} | unique
    return list(unique.values())


@cache
def _options_of_class(name: str, path: str) -> tuple[Option, ...]:
    return tuple(options_of_class(name, path))


def choose(function: str, key: str, answers: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Write a shell function that prints the words that belong to a key, and nothing for other keys."""
    keys_of: dict[str, list[str]] = {}
    for name, words in answers:
        if words:
            keys_of.setdefault(" ".join(dict.fromkeys(words)), []).append(f'"{name}"')
    cases = [f'    {" | ".join(keys)}) echo "{words}" ;;' for words, keys in keys_of.items()]
    return "\n".join([f"{function}() {{", f'  case "{key}" in', *cases, "  esac", "}", ""])
