"""Values that jsonargparse lets through although no run can work with them."""

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

from ..errors import ConfigError
from ..evaluation import SegmenterModule

_SEEDS = 1 << 32


def check_values(config: Any) -> None:
    """Check parsed settings.

    Raises:
        ConfigError: A required setting is null, the seed is out of range, or the output is empty.
    """
    for place, kind, values in _classes(config):
        for parameter in _parameters(kind):
            annotation = str(parameter.annotation)  # a string in modules with postponed annotations
            optional = parameter.annotation is parameter.empty or "None" in annotation or "Optional[" in annotation
            if parameter.name in values and values[parameter.name] is None and not optional:
                raise ConfigError(f"{place}.{parameter.name} is null: set a value, or leave the setting out")
    seed = config.seed_everything
    if isinstance(seed, int) and not 0 <= seed < _SEEDS:
        raise ConfigError(f"seed_everything is {seed}: it must lie between 0 and {_SEEDS - 1}")
    if config.output == "":
        raise ConfigError("--output is empty: name a folder, or leave the option out")


def _classes(config: Any) -> Iterator[tuple[str, type, dict[str, Any]]]:
    """Return model, data and reducer: key in the config, class and settings."""
    yield "model", SegmenterModule, vars(config.model)
    for key, chosen in (("data", config.data), ("model.reducer", config.model.reducer)):
        if chosen is not None:
            module, _, name = chosen.class_path.rpartition(".")
            settings = chosen.get("init_args")
            yield key, getattr(importlib.import_module(module), name), vars(settings) if settings else {}


def _parameters(kind: type) -> Iterator[inspect.Parameter]:
    for owner in kind.__mro__[:-1]:
        if "__init__" in vars(owner):
            yield from inspect.signature(owner).parameters.values()
