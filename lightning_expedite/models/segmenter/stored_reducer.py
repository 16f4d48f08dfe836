"""A reducer's class and settings as JSON, and the reducer made from them again.

What a downloaded file names is never imported: a class is looked up by its name among those of the installed package
and those that the caller hands over.
"""

import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import CheckpointError, ReducerError
from ...reducers.base import Reducer
from .variant import Section

_PACKAGE = f"{__name__.split('.')[0]}.reducers."


@dataclass(frozen=True)
class StoredReducer:
    """Name of a reducer's class and its settings, in JSON's types."""

    name: str
    settings: dict[str, Any]
    place: str = field(default="", compare=False)  # file and key it was read from, for messages

    def __str__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        return f"{self.name}({settings})"


def store_reducer(reducer: Reducer) -> StoredReducer:
    """Describe a reducer by the arguments of its constructor, which it keeps as attributes of the same names.

    Raises:
        ReducerError: An argument is kept under another name, or JSON cannot hold it.
    """
    name = type(reducer).__name__
    settings = {}
    for parameter in inspect.signature(type(reducer)).parameters:
        if not hasattr(reducer, parameter):
            raise ReducerError(
                f"{name} keeps no attribute {parameter} for its argument of that name, so that it cannot be stored: "
                "keep it, or store the model without its reducer (model.reducer = None)"
            )
        settings[parameter] = getattr(reducer, parameter)
    try:
        settings = json.loads(json.dumps(settings, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ReducerError(
            f"{name}: its settings are not of JSON's types ({error}), so that it cannot be stored"
        ) from (error)
    return StoredReducer(name, settings)


def read_reducer(section: Section) -> StoredReducer:
    """Read a stored reducer, without making it.

    Raises:
        CheckpointError: It has no class name or no settings.
    """
    name = section.values.get("class")
    if not isinstance(name, str):
        raise section.error("class", "the name of a reducer's class")
    return StoredReducer(name, dict(section.section("settings").values), section.place)


def make_reducer(stored: StoredReducer, given: Sequence[type[Reducer]] = ()) -> Reducer:
    """Make a stored reducer, of a class of this package or one of ``given``.

    Raises:
        CheckpointError: The class is neither, or does not take the settings.
    """
    classes = {one.__name__: one for one in (*package_reducers(), *given)}
    if stored.name not in classes:
        raise CheckpointError(
            f"{stored.place}: class is {stored.name!r}, which is no reducer of this package (there are "
            f"{', '.join(sorted(classes))}): hand the class over, from_pretrained(..., reducer={_word(stored.name)}), "
            "or load without a reducer, reducer=None"
        )
    try:
        return classes[stored.name](**stored.settings)
    except (ReducerError, TypeError, ValueError) as error:
        raise CheckpointError(f"{stored.place}: {stored.name} does not take the settings: {error}") from error


def package_reducers() -> Iterator[type[Reducer]]:
    """Give the reducers that the installed package defines."""
    waiting: list[Any] = [Reducer]
    while waiting:
        found = waiting.pop()
        waiting += found.__subclasses__()
        if found.__module__.startswith(_PACKAGE) and not inspect.isabstract(found):
            yield found


def _word(name: str) -> str:
    return name.rpartition(".")[2] or "Class"
