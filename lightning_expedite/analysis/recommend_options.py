"""The options of ``recommend``."""

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..cli.usage_parser import UsageParser
from ..errors import ConfigError, OutputError
from .goals import COSTS, Goal

DESCRIPTION = """\
Says which of the measured settings to use, with which config, and how sure that is.

PATH is a sweep's folder, or any results.json, benchmark.json or folders that hold them; the unreduced model has to be
among them. With --max_loss the fastest setting that keeps all limits is wanted, without it the one of the best mIoU.

With --search the settings of one reducer are first searched on a part of the images, the best ones are then tested on
all and benchmarked, and the results are laid out as a sweep's. Further options are handed on:
  --data.*, --model.*, --trainer.*   to the search and to test, --data.* and --model.* to benchmark too
  --benchmark.*                      to benchmark, such as --benchmark.seconds 10 for its --seconds 10
"""
EPILOG = """\
examples:
  python -m lightning_expedite recommend runs/sweep --max_loss 0.5
  python -m lightning_expedite recommend --search --config configs/demo_none.yaml --reducer ToMe --max_loss 0.5
"""
HANDED_ON = ("--data", "--model", "--trainer", "--seed_everything", "--benchmark")


@dataclass(frozen=True)
class SearchOptions:
    """What to search, and where."""

    configs: tuple[Path, ...]
    output: Path
    reducer: str
    seconds: float
    images: int
    finalists: int
    seed: int
    words: tuple[str, ...]
    benchmark_words: tuple[str, ...]


@dataclass(frozen=True)
class Options:
    """What the user asked for; ``search`` and ``goal`` are ``None`` where there is none."""

    paths: tuple[Path, ...]
    goal: Goal | None
    environment: str | None
    json: Path | None
    write_config: Path | None
    overwrite: bool
    search: SearchOptions | None = None


def read_options(arguments: Sequence[str]) -> Options:
    """Read the command line after ``recommend``.

    Raises:
        ConfigError: An option is unknown, missing, belongs elsewhere or has a value out of its range.
        SystemExit: After ``--help``, or where a value is missing.
    """
    own, handed_on = part(arguments)
    given = _parser().parse_args(own)
    limits = {name: getattr(given, name) for name in ("max_loss", "min_throughput", "max_latency", "max_memory")}
    goal = None
    if not given.search or any(value is not None for value in limits.values()):
        goal = Goal(**limits, by=given.by, by_estimate=given.by_estimate, confidence=given.confidence)
    if not given.search:
        _require_no_search(given, handed_on)
        if not given.paths:
            raise ConfigError("recommend needs results: name a sweep's folder, or give --search and --config")
    for option, path in (("json", given.json), ("write_config", given.write_config)):
        if path is not None and goal is None:
            raise ConfigError(f"--{option} is for a recommendation: give a goal, such as --max_loss 0.5")
        if path is not None and path.exists() and not given.overwrite:
            raise OutputError(f"--{option} {path} exists already; give --overwrite or another name")
    return Options(
        paths=tuple(given.paths),
        goal=goal,
        environment=given.environment,
        json=given.json,
        write_config=given.write_config,
        overwrite=given.overwrite,
        search=_search_options(given, handed_on) if given.search else None,
    )


def _require_no_search(given: argparse.Namespace, rest: Sequence[str]) -> None:
    if rest:
        raise ConfigError(f"{rest[0]} is an option of test or benchmark: give --search too, or leave it out")
    for name, usual in _SEARCH_DEFAULTS.items():
        if getattr(given, name) != usual:
            raise ConfigError(f"--{name} is an option of the search: give --search too, or leave it out")


def _search_options(given: argparse.Namespace, rest: Sequence[str]) -> SearchOptions:
    if given.paths:
        raise ConfigError(f"{given.paths[0]}: a search makes its own results; leave the path out, or --search")
    if not given.config or not given.reducer:
        missing = "config" if not given.config else "reducer"
        raise ConfigError(f"--search needs --{missing}: a config without a reducer, and the class to search, as ToMe")
    for name in ("images", "finalists"):
        if getattr(given, name) < 1:
            raise ConfigError(f"--{name} is {getattr(given, name)}: it must be 1 or more")
    if not (given.seconds > 0 and math.isfinite(given.seconds)):
        raise ConfigError(f"--seconds is {given.seconds}: it must be above 0")
    words, benchmark_words = _split(rest)
    return SearchOptions(
        configs=tuple(given.config),
        output=given.output or Path("runs") / f"search_{given.config[-1].stem}_{given.reducer.rpartition('.')[2]}",
        reducer=given.reducer,
        seconds=given.seconds,
        images=given.images,
        finalists=given.finalists,
        seed=given.seed,
        words=tuple(words),
        benchmark_words=tuple(benchmark_words),
    )


def part(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part the command line: options of ``recommend``, and those that it hands on, with their values."""
    parts: dict[bool, list[str]] = {False: [], True: []}
    handed_on = False
    for word in words:
        if word.startswith("-"):
            handed_on = re.split(r"[.=+]", word, maxsplit=1)[0] in HANDED_ON
        parts[handed_on].append(word)
    return parts[False], parts[True]


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part the options that are handed on: those of the configs, and those of ``benchmark`` alone."""
    parts: dict[bool, list[str]] = {False: [], True: []}
    benchmark = False
    for word in words:
        if word.startswith("--model.reducer"):
            raise ConfigError(f"{word}: the search gives the reducer its settings; leave it out")
        if word.startswith("--"):
            benchmark = word.startswith("--benchmark.")
        parts[benchmark].append(word.replace("--benchmark.", "--", 1) if benchmark else word)
    return parts[False], parts[True]


_SEARCH_DEFAULTS = {
    "config": None,
    "output": None,
    "reducer": None,
    "seconds": 600.0,
    "images": 32,
    "finalists": 5,
    "seed": 0,
}


def _parser() -> argparse.ArgumentParser:
    parser = UsageParser(
        prog="python -m lightning_expedite recommend",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("paths", nargs="*", type=Path, metavar="PATH", help="results.json, benchmark.json or folders that hold them")
    add("--json", type=Path, metavar="FILE", help="also write the answer as JSON")
    add("--write_config", type=Path, metavar="FILE", help="write all settings of the recommended one as a config")
    add("--overwrite", action="store_true", help="replace files that are there; with --search also its folder")
    goals = parser.add_argument_group("goal").add_argument
    goals("--max_loss", type=float, metavar="POINTS", help="most points of mIoU lost against the unreduced model")
    goals("--min_throughput", type=float, metavar="N", help="least images per second")
    goals("--max_latency", type=float, metavar="MS", help="most milliseconds at batch 1")
    goals("--max_memory", type=float, metavar="MIB", help="most MiB of peak memory at batch 1")
    goals("--by", choices=COSTS, default="latency", help="what fastest means (latency)")
    goals("--environment", metavar="TEXT", help="whose times count, where there are several: a part of its text")
    goals("--confidence", type=float, default=0.95, help="that losses stay below their bounds (0.95)")
    goals("--by_estimate", action="store_true", help="judge limits by estimates, not by bounds and third quartiles")
    searches = parser.add_argument_group("search").add_argument
    searches("--search", action="store_true", help="search settings of one reducer first (pip extra: search)")
    searches("--config", "-c", type=Path, action="append", help="config without a reducer; may be repeated")
    searches("--reducer", metavar="CLASS", help="class to search, such as ToMe, or the path of your own")
    searches("--output", type=Path, metavar="FOLDER", help="folder for the search's results")
    searches("--seconds", type=float, default=600.0, help="time for the search, before the final tests (600)")
    searches("--images", type=int, default=32, help="images to search with, spread over the data set (32)")
    searches("--finalists", type=int, default=5, help="settings that are then tested on all images (5)")
    searches("--seed", type=int, default=0, help="of the search (0)")
    return parser
