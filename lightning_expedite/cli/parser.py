"""Option parsers whose errors fit on one line: the option, its value, what is expected and the nearest right name."""

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Self

import jsonargparse

from ..errors import ConfigError, nearest

PROGRAM = "lightning-expedite"
_PACKAGE = "lightning_expedite"
_KINDS = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "dict": "a mapping",
    **dict.fromkeys(("list", "tuple", "set", "Sequence", "Iterable"), "a list"),
}
_CONFIG_NAMES = {"ours": "TokenClustering"}  # names in configs that are not like the class's
_ATTEMPT = r"Expected an? (?:<class '([^']+)'>|typing.Literal\[(.*)\])"


class ShortErrors:
    """Mixin for jsonargparse parsers: `ConfigError` in one line instead of usage, advice and a tree of attempts."""

    def error(self: Any, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise `ConfigError`, or what jsonargparse expects of the parsers that it makes for nested classes."""
        if not self.exit_on_error:
            super().error(message, ex)  # type: ignore[misc]
        raise ConfigError(explain(self, message)) from ex


class Parser(ShortErrors, jsonargparse.ArgumentParser):
    """The parser of a command that needs neither Lightning nor torch to read its options."""

    def __init__(self, command: str, description: str | None = None, **settings: Any) -> None:
        program = f"{PROGRAM} {command}".strip()
        super().__init__(prog=program, usage=f"{program} [options]", description=description, **settings)

    @classmethod
    def of_function(cls, command: str, function: Callable[..., Any]) -> Self:
        """Return a parser of a function's arguments, described by its docstring; ``overwrite`` is a flag."""
        parser = cls(command, (inspect.getdoc(function) or "").partition("\n")[0])
        parser.add_function_arguments(function, skip={"overwrite"})
        if "overwrite" in inspect.signature(function).parameters:
            parser.add_argument("--overwrite", action="store_true", help="replace existing files")
        return parser


def explain(parser: Any, message: str) -> str:
    """Return jsonargparse's message in one line, without the alternatives that are of no use to a reader."""
    options = [name for name in parser._option_string_actions if name.startswith("--")]
    unknown = re.search(r"unrecognized arguments: (\S+)", message)
    if unknown:
        word = unknown[1].partition("=")[0]
        kind = "option" if word.startswith("-") else "argument"
        return f"unknown {kind} {word}{nearest(word, options)}; {parser.prog} --help lists the options"
    key = ".".join(re.findall(r'Parser key "([^"]+)"', message))
    owner = re.findall(r"Problem with given class_path '([^']+)'", message)
    refused = re.search(r"(?:Group '([^']*)' does not accept option|Option) '([^']*)'", message)
    if refused:
        group, name = refused[1] or key, refused[2]
        known = [option.removeprefix(f"--{group}.") for option in options if option.startswith(f"--{group}.")]
        known = _arguments_of(owner[-1]) if owner else known if group else [name[2:] for name in options]
        where = owner[-1].rpartition(".")[2] if owner else group or parser.prog
        hint = nearest(name, known) or (f"; its settings are {', '.join(known)}" if owner else "")
        return f"unknown key {_join(group, name)}: {where} has no {name!r}{hint}"
    required = re.search(r"the following arguments are required: (\S+)", message)
    if required and owner:
        return f"{key}: {owner[-1].rpartition('.')[2]} needs a value for {required[1]} (--{_join(key, required[1])})"
    found = re.search(r"G(?:ot|iven) value: (.*)", message)
    if found is None or not key:
        return message
    value = found[1].strip()
    return f"{key} is {value or 'empty'}: expected {_expected(message, value)}"


def _expected(message: str, value: str) -> str:
    """Describe the values that would be accepted, by the types that jsonargparse tried."""
    if re.search("import path|No module named|instantiatable class", message, re.IGNORECASE):
        named = re.search(r"'class_path': '([^']*)'", value)
        classes, listed = _known_classes(message)
        names = (
            f"{', '.join(listed)} or the import path of your own" if listed else "the name or import path of a class"
        )
        word = named[1] if named else value
        return f"{names}{nearest(_CONFIG_NAMES.get(word, word), classes)}"
    kinds: dict[str, None] = {}
    choices: list[str] = []
    for path, literal in re.findall(_ATTEMPT, message):
        choices += re.findall(r"[\w.-]+", literal)
        kind = _KINDS.get(path.rpartition(".")[2], "")
        if kind == "a list" and re.fullmatch(r"[\d.,-]+", value):
            kind = f"a list such as [{value}]"
        kinds[kind] = None
    if choices:
        kinds[f"one of {', '.join(dict.fromkeys(choices))}{nearest(value, choices)}"] = None
    return " or ".join(filter(None, kinds)) or "a value of another kind"


def _known_classes(message: str) -> tuple[list[str], list[str]]:
    """Return the names of the classes that the message's type includes: all of them, and those worth listing."""
    bases = re.search(r"Subtypes: \[(.*)", message)
    paths = re.findall(r"[\w.]+\.[\w.]+", bases[1]) if bases else []
    found = {
        kind.__name__: path.startswith(_PACKAGE) and kind.__module__.startswith(_PACKAGE)
        for path in paths
        for kind in _subclasses(_load(path))
        if not inspect.isabstract(kind) and not kind.__name__.startswith("_")
    }
    return list(found), sorted(name for name, is_own in found.items() if is_own)


def _subclasses(kind: Any) -> Iterator[type]:
    if isinstance(kind, type):
        for below in list[type](kind.__subclasses__()):
            yield below
            yield from _subclasses(below)


def _arguments_of(path: str) -> list[str]:
    """Return the names of a class's settings, those that it hands on to its bases included."""
    names: list[str] = jsonargparse.ArgumentParser().add_class_arguments(_load(path), fail_untyped=False)
    return names


def _load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _join(*names: str) -> str:
    return ".".join(filter(None, names))
