"""A search for better settings of one reducer: first on a part of the images, then the best on all of them."""

import importlib
import inspect
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..analysis.candidates import UNREDUCED
from ..analysis.counts import ImageCounts
from ..analysis.goals import Goal
from ..analysis.recommend_options import SearchOptions
from ..errors import ConfigError, OutputError
from ..reducers import EncoderShape, Reducer
from ..reducers.spaces import SearchRange
from .finalists import (
    Finalist,
    finalist,
    run_point,
    write_points,
)
from .folders import POINTS_FOLDER, SWEEP_FILE, PointFolder
from .study import JOURNAL_FILE, Study, Tried, choose_finalists
from .subset import SearchCLI, Subset

SEARCH_FOLDER = "search"


def search(options: SearchOptions, goal: Goal | None, overwrite: bool) -> int:
    """Search, test the finalists on all images and benchmark them.

    Args:
        options: What to search.
        goal: Where it limits the loss, the search looks for the cheapest settings that keep it on the subset.
        overwrite: Whether an earlier search in the same folder is thrown away.

    Returns:
        How many points failed.

    Raises:
        ConfigError: The reducer declares nothing to search, or an option cannot be used.
        OutputError: The folder has another search's or a sweep's results.
    """
    configs = [word for config in options.configs for word in ("--config", str(config))]
    cli = SearchCLI([*configs, *options.words])
    kind = find_reducer(options.reducer)
    require_own(options.output)
    say("loading model and images")
    subset = Subset(cli, options.images)
    shape = subset.model.architecture
    space = search_space(kind, EncoderShape(shape.depth, shape.grid, shape.class_token))
    settings = yaml.safe_load(cli.resolved_config())
    path = f"{kind.__module__}.{kind.__qualname__}"
    if overwrite:
        clear(options.output)
    max_loss = None if goal is None else goal.max_loss
    study = Study(
        options.output / SEARCH_FOLDER,
        space,
        {"config": settings, "reducer": path, "images": list(subset.positions), "space": repr(space)},
        options.seed,
        max_loss,
    )
    say(f"searching {kind.__name__} on {len(subset.positions)} of {subset.total} images for {options.seconds:g} s")
    run_study(study, subset, kind, options.seconds)
    chosen = choose_finalists(study.tried, options.finalists, max_loss)
    if not chosen:
        raise ConfigError(f"--seconds {options.seconds:g} was not enough for one setting: give more, or fewer --images")
    finalists = [finalist(path, one.settings) for one in chosen]
    what = {"reducer": path, "images": len(subset.positions), "seconds": study.seconds, "settings": len(study.tried)}
    write_points(options.output, finalists, settings, what)
    say(f"{len(study.tried)} settings tried in {study.seconds:.0f} s; testing {len(finalists)} on all images")
    return run_finalists(options, finalists, subset)


def run_study(study: Study, subset: Subset, make: Callable[..., Reducer], seconds: float) -> None:
    """Fill the time with trials; the unreduced model, with which all are compared, is scored first."""
    start = time.perf_counter()
    unreduced = subset.score(None)
    assert unreduced is not None
    loading = time.perf_counter() - start

    def attempt(settings: dict[str, Any], end: float) -> Tried | None:
        begin = time.perf_counter()
        reducer = make(**settings)
        counts = subset.score(reducer, end)
        if counts is None:
            return None
        return tried_from(settings, counts, unreduced, subset.gflops(reducer), time.perf_counter() - begin)

    study.run(attempt, seconds - loading, lambda tried: say(describe(tried)))


def tried_from(
    settings: dict[str, Any], counts: ImageCounts, unreduced: ImageCounts, gflops: float, seconds: float
) -> Tried:
    """Put together what a trial found."""
    return Tried(settings, counts.miou, unreduced.miou - counts.miou, gflops, seconds)


def run_finalists(options: SearchOptions, finalists: list[Finalist], subset: Subset) -> int:
    """Test and benchmark the unreduced model and the finalists; gives how many failed."""
    benchmark = list(options.benchmark_words)
    for name, value in (("--device", subset.device.type), ("--precision", subset.precision)):
        if not any(word.partition("=")[0] == name for word in benchmark):
            benchmark += [name, value]
    words: dict[str, list[str]] = {"test": [], "benchmark": benchmark}
    failed = 0
    for point in [Finalist(UNREDUCED, None), *finalists]:
        failed += not run_point(PointFolder(options.output, point.name), words, say)
    return failed


def find_reducer(name: str) -> type[Reducer]:
    """Find a reducer's class by its name, or its path where it is not the project's own.

    Raises:
        ConfigError: There is none.
    """
    module, _, last = name.rpartition(".")
    known = {kind.__name__: kind for kind in _subclasses(Reducer) if not inspect.isabstract(kind)}
    found: Any = known.get(name)
    if module:
        try:
            found = getattr(importlib.import_module(module), last)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"--reducer {name} cannot be imported: {error}") from error
    if not (inspect.isclass(found) and issubclass(found, Reducer)) or inspect.isabstract(found):
        raise ConfigError(f"--reducer {name} is no reducer; there are {', '.join(sorted(known))}")
    return found


def search_space(kind: type[Reducer], encoder: EncoderShape) -> Mapping[str, SearchRange]:
    """Give what a reducer declares as worth searching.

    Raises:
        ConfigError: It declares nothing.
    """
    space = kind.search_space(encoder)
    if not space:
        raise ConfigError(
            f"--reducer {kind.__name__} declares no settings to search: add the class method search_space to "
            f"{inspect.getsourcefile(kind)}"
        )
    return space


def require_own(output: Path) -> None:
    """Raise `OutputError` where a folder holds a sweep that is not of a search."""
    try:
        grid = json.loads((output / SWEEP_FILE).read_bytes()).get("grid")
        foreign = not (isinstance(grid, dict) and "search" in grid)
    except (OSError, ValueError, AttributeError):
        foreign = (output / SWEEP_FILE).exists() or (output / POINTS_FOLDER).exists()
    if foreign and not (output / SEARCH_FOLDER / JOURNAL_FILE).exists():
        raise OutputError(f"{output} holds results of a sweep, not of a search: give another --output")


def clear(output: Path) -> None:
    """Throw an earlier search of a folder away, where there is one."""
    if (output / SEARCH_FOLDER / JOURNAL_FILE).exists():
        for folder in (output / SEARCH_FOLDER, output / POINTS_FOLDER):
            shutil.rmtree(folder, ignore_errors=True)
        (output / SWEEP_FILE).unlink(missing_ok=True)


def describe(tried: Tried) -> str:
    """Say what a trial found."""
    settings = ", ".join(f"{key} {value}" for key, value in tried.settings.items())
    return f"{settings}: loses {tried.loss:.2f} points, {tried.gflops:.4g} GFLOPs"


def say(text: str) -> None:
    """Tell the user what is being done."""
    print(text, file=sys.stderr, flush=True)


def _subclasses(kind: Any) -> Iterator[type[Reducer]]:
    for below in kind.__subclasses__():
        yield below
        yield from _subclasses(below)
