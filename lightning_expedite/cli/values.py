"""Values that the parser lets through and no run can work with."""

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

from ..errors import ConfigError
from ..evaluation import SegmenterModule

_SEEDS = 1 << 32


def check_values(config: Any) -> None:
    """Check what jsonargparse does not.

    Args:
        config: All settings, as the parser of ``test`` and ``predict`` gives them.

    Raises:
        ConfigError: A setting is null that has to have a value, the seed is out of its range, or the output is empty.
    """
    for place, kind, values in _parts(config):
        _require_given(place, kind, values)
    seed = config.seed_everything
    if isinstance(seed, int) and not 0 <= seed < _SEEDS:
        raise ConfigError(f"seed_everything is {seed}: it must lie between 0 and {_SEEDS - 1}")
    if config.output == "":
        raise ConfigError("--output is empty: give a folder, or leave the option out")


def _parts(config: Any) -> Iterator[tuple[str, type, dict[str, Any]]]:
    """Give model, data and reducer: place in the config, class and settings."""
    yield "model", SegmenterModule, vars(config.model)
    for place, chosen in (("data", config.data), ("model.reducer", config.model.reducer)):
        if chosen is not None:
            module, _, name = chosen.class_path.rpartition(".")
            settings = chosen.get("init_args")
            yield place, getattr(importlib.import_module(module), name), vars(settings) if settings else {}


def _require_given(place: str, kind: type, values: dict[str, Any]) -> None:
    """Refuse null, which the parser takes for any setting, where the setting's type has none."""
    for owner in kind.__mro__[:-1]:
        if "__init__" not in vars(owner):
            continue
        for name, parameter in inspect.signature(owner).parameters.items():
            kind_of_value = str(parameter.annotation)  # a text in modules that put off their annotations
            untyped = parameter.annotation is parameter.empty
            may_be_none = untyped or "None" in kind_of_value or "Optional[" in kind_of_value
            if name in values and values[name] is None and not may_be_none:
                raise ConfigError(f"{place}.{name} is null: give a value, or leave the setting out")
