"""What ``--help`` of every subcommand says: as text for the documentation, and the options in it for completion.

Subcommands read their options in different ways; their help is what all of them have.
"""

import contextlib
import importlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WHOLE_LINES = 100_000  # columns: nothing is wrapped
PACKAGE = "lightning_expedite"


@dataclass(frozen=True)
class Option:
    """One line of a help text: the names of an option, what stands for its value, and what is said of it."""

    names: tuple[str, ...]
    value: str  # empty for an option without a value
    text: str

    @property
    def name(self) -> str:
        """The long name that takes a whole value, rather than one more of a list."""
        return next((name for name in self.names if name.startswith("--") and name[-1] != "+"), self.names[0])

    @property
    def classes(self) -> tuple[str, ...]:
        """Paths of this package's classes that the option takes."""
        known = re.search(r"known subclasses: ([\w., ]+)", self.text)
        paths = known.group(1).split(", ") if known else []
        return tuple(path for path in paths if path.startswith(f"{PACKAGE}."))

    @property
    def choices(self) -> tuple[str, ...]:
        """Values that the option takes where they can be listed: given ones, or the names of this package's classes."""
        given = re.fullmatch(r"\{([^{}]+)\}", self.value)
        return tuple(given.group(1).split(",")) if given else tuple(path.rpartition(".")[2] for path in self.classes)


def help_text(words: Sequence[str], columns: int = WHOLE_LINES) -> str:
    """Give what ``python -m lightning_expedite WORDS --help`` prints.

    Args:
        words: The subcommand, and the words that choose among its kinds (``prepare pascal_context``).
        columns: Width of the terminal that the text is for.
    """
    run = importlib.import_module(f"{PACKAGE}.cli.{words[0]}").run
    printed = io.StringIO()
    with _columns(columns), contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        run([*words[1:], "--help"])
    return printed.getvalue().replace(" \b", "")  # jsonargparse writes --print_config[=flags] so


def kinds(words: Sequence[str], text: str) -> tuple[str, ...]:
    """List the words of which one has to follow a subcommand's, by its help."""
    usage = re.match(rf"usage: python -m {PACKAGE} {' '.join(words)} (?:\[-h\] )?\{{([\w,]+)\}}", text)
    return tuple(usage.group(1).split(",")) if usage else ()


def options(text: str) -> list[Option]:
    """List the options of a help text that was made for `WHOLE_LINES`, in its order."""
    found: list[Option] = []
    lines = text.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if not re.match(r" {2,6}-", line):
            continue
        invocation, _, said = line.strip().partition("  ")
        if not said and following.startswith(" " * 8):
            said = following
        names = re.findall(r"(?:^|, )(--?[\w.+-]+)", invocation)
        value = re.search(r"[ =](\S.*)$", invocation.rpartition(", -")[2])
        found.append(Option(tuple(names), value.group(1) if value else "", said.strip()))
    return found


def options_of_class(name: str, path: str) -> list[Option]:
    """List the options that set a class's arguments.

    Args:
        name: The option that the class is a value of, such as ``--model.reducer``.
        path: The class's path.
    """
    import jsonargparse

    module, _, kind = path.rpartition(".")
    parser = jsonargparse.ArgumentParser(add_help=False)
    parser.add_class_arguments(
        getattr(importlib.import_module(module), kind), name.removeprefix("--"), fail_untyped=False
    )
    with _columns(WHOLE_LINES):
        found = options(parser.format_help())
    return [option for option in found if name not in option.names]


@contextlib.contextmanager
def _columns(columns: int) -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(columns)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
