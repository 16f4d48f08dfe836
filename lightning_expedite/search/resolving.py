"""What a sweep's options and grid come to: checked, and with all defaults filled in. Runs in the worker process."""

import contextlib
import importlib
import inspect
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jsonargparse
import yaml

from ..cli.benchmark import architecture_of, describe_settings
from ..cli.benchmark_options import BenchmarkCLI, read_options
from ..cli.settings import EvaluationCLI
from ..cli.test import ScoringCLI
from ..errors import ConfigError, ExpediteError
from ..reducers import EncoderShape, Reducer


@dataclass(frozen=True)
class Request:
    """A sweep's configs, options and reducers; ``reducers`` are pairs of where in the grid one stands, and its spec."""

    configs: Sequence[str]
    words: Sequence[str]
    benchmark_words: Sequence[str] | None  # none where nothing is benchmarked
    reducers: Sequence[tuple[str, Mapping[str, Any] | None]]


def resolve(request: Request) -> dict[str, Any]:
    """Check a sweep before any of its work.

    Returns:
        ``overrides``: what the options change in the configs; ``processes``: how many ``test`` will start;
        ``points``: of each its ``reducer`` with all settings, and as ``settings`` those of its ``test`` and
        ``benchmark``, in the form in which their results have them.

    Raises:
        ExpediteError: A reducer, a setting or an option cannot be used; the message names it.
        SystemExit: After jsonargparse has printed an error in an option or config.
    """
    configs = [word for config in request.configs for word in ("--config", config)]
    cli = ScoringCLI([*configs, *request.words])
    if cli.config.model.reducer is not None:
        raise ConfigError(
            f"config {request.configs[-1]} has a reducer, but the grid gives them: take one without model.reducer"
        )
    test = resolved(cli)
    benchmark = _resolve_benchmark(configs, request)
    shape = architecture_of(cli.model)
    encoder = EncoderShape(shape.depth, shape.grid, shape.class_token)
    points = []
    for origin, spec in request.reducers:
        with _named(origin):
            reducer = None if spec is None else resolve_reducer(spec, encoder)
        settings = {"test": with_reducer(test, reducer)}
        if benchmark is not None:
            settings["benchmark"] = with_reducer(benchmark, reducer)
        points.append({"reducer": reducer, "settings": settings})
    overrides = changes(_without_words(configs), test)
    return {"overrides": overrides, "processes": cli.trainer.world_size, "points": points}


def resolved(cli: EvaluationCLI) -> dict[str, Any]:
    """Give all settings as ``test`` stores them."""
    content: dict[str, Any] = json.loads(json.dumps(yaml.safe_load(cli.resolved_config())))
    return content


def with_reducer(settings: Mapping[str, Any], reducer: Any) -> dict[str, Any]:
    """Give settings with another reducer."""
    return {**settings, "model": {**settings["model"], "reducer": reducer}}


def changes(plain: Mapping[str, Any], full: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a config has to say so that ``plain`` becomes ``full``.

    Sections and classes with the same path are gone into, all other values are taken whole: a config that is read later
    adds to the former and replaces the latter.
    """
    changed: dict[str, Any] = {}
    for key, value in full.items():
        if key in plain and plain[key] == value:
            continue
        changed[key] = _changed(plain.get(key), value, section=key in ("data", "model", "trainer"))
    return changed


def _changed(old: Any, new: Any, section: bool) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict) or old.get("class_path") != new.get("class_path"):
        return new
    if "class_path" in new:
        return {**new, "init_args": changes(old.get("init_args", {}), new.get("init_args", {}))}
    return changes(old, new) if section else new


class _SettingsCLI(ScoringCLI):
    """Reads settings without making anything of them."""

    def instantiate_classes(self) -> None:
        """Make nothing."""


def _without_words(configs: Sequence[str]) -> dict[str, Any]:
    """Give the settings of the configs alone; none where they are not whole without the user's options."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return resolved(_SettingsCLI(configs))
    except SystemExit:
        return {}


def _resolve_benchmark(configs: Sequence[str], request: Request) -> dict[str, Any] | None:
    if request.benchmark_words is None:
        return None
    with _named("benchmark"):
        cli = BenchmarkCLI([*configs, *request.words, *request.benchmark_words])
        options = read_options([cli], [*request.words, *request.benchmark_words])
    common = {name: value for name, value in describe_settings([cli], options).items() if name != "configs"}
    settings = resolved(cli)
    content: dict[str, Any] = json.loads(json.dumps({**common, "model": settings["model"], "data": settings["data"]}))
    return content


@contextlib.contextmanager
def _named(origin: str) -> Iterator[None]:
    try:
        yield
    except ExpediteError as error:
        raise type(error)(f"{origin}: {error}") from error


def resolve_reducer(spec: Mapping[str, Any], encoder: EncoderShape) -> dict[str, Any]:
    """Check a reducer's class and settings, and that it can apply to an encoder.

    Returns:
        ``class_path``, whole, and ``init_args`` with all settings.

    Raises:
        ConfigError: There is no such class or setting, or a value is of another type.
        ReducerError: A value is out of its range or does not suit the encoder.
    """
    kind = find_class(spec["class_path"])
    given = spec["init_args"]
    _check_names(kind, given)
    alike = [other for other in _subclasses(Reducer) if other.__name__ == kind.__name__]  # type: ignore[type-abstract]
    # By its name alone jsonargparse finds the same path that it finds in any config.
    path = kind.__name__ if len(alike) == 1 else spec["class_path"]
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--reducer", type=Reducer)
    try:
        config = parser.parse_object({"reducer": {"class_path": path, "init_args": given}})
    except jsonargparse.ArgumentError as error:
        raise ConfigError(_type_error(kind, str(error))) from error
    reducer = parser.instantiate(config).reducer
    reducer.check(encoder)
    content: dict[str, Any] = json.loads(json.dumps(config.reducer.as_dict(), default=str))
    return {"class_path": content["class_path"], "init_args": content.get("init_args", {})}


def find_class(name: str) -> type[Reducer]:
    """Find a reducer's class by its name, or by its path where it is not the project's own.

    Raises:
        ConfigError: There is none of that name.
    """
    module, _, last = name.rpartition(".")
    known = {kind.__name__: kind for kind in _subclasses(Reducer)}  # type: ignore[type-abstract]
    found: Any = known.get(name)
    if module:
        try:
            found = getattr(importlib.import_module(module), last)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(f"class_path {name!r} cannot be imported: {error}") from error
    if not (inspect.isclass(found) and issubclass(found, Reducer)):
        names = ", ".join(sorted(kind for kind in known if not inspect.isabstract(known[kind])))
        raise ConfigError(
            f"class_path {name!r} is no reducer; there are {names}, and classes of your own by their path"
        )
    return found


def _subclasses(kind: type[Reducer]) -> Iterator[type[Reducer]]:
    for below in kind.__subclasses__():
        yield below
        yield from _subclasses(below)


def _check_names(kind: type[Reducer], given: Mapping[str, Any]) -> None:
    parameters = inspect.signature(kind).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    unknown = [name for name in given if name not in parameters]
    if unknown:
        raise ConfigError(f"{unknown[0]} is no setting of {kind.__name__}; there are {', '.join(parameters)}")
    missing = [
        name for name, parameter in parameters.items() if parameter.default is parameter.empty and name not in given
    ]
    if missing:
        raise ConfigError(f"{kind.__name__} needs {', '.join(missing)}")


def _type_error(kind: type[Reducer], text: str) -> str:
    """Shorten jsonargparse's message to the setting that it is about and what is wrong with it."""
    last = re.split('[Kk]ey "', " ".join(text.split()))[-1]  # the innermost of several in each other
    setting, _, reason = last.rpartition('": ')
    return f"{setting or kind.__name__}: {reason}"
