"""``search``: find good settings of a reducer on a subset of the images, then test and benchmark the best ones."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from ..errors import ConfigError, ExpediteError, fail
from .sweep import INTERRUPTED, STEPS, PassedOn, prepare_steps, require_one_process, split_options
from .usage_parser import UsageParser

DESCRIPTION = """\
Searches the settings of one reducer on a subset of the images, then tests the best ones on all images and benchmarks
them. The results are laid out as a sweep's: `report` and `recommend` read them.

The same command resumes an interrupted search; with more --seconds it goes on searching. Started several times, on one
machine or on several with a common folder, it makes as many workers. Further options are passed on:
  --data.*, --model.*   to the search, test and benchmark
  --trainer.*           to the search and test
  --benchmark.*         to benchmark, e.g. --benchmark.seconds 10 as its --seconds 10
"""
EPILOG = """\
example:
  python -m lightning_expedite search --config configs/demo_none.yaml --reducer ToMe --seconds 60 --max_loss 0.5
"""


@dataclass(frozen=True)
class Request:
    """What is searched, and where the results go."""

    configs: tuple[Path, ...]
    output: Path
    options: dict[str, Any]  # of `search.search.SearchOptions`
    overwrite: bool
    passed_on: PassedOn


def run(arguments: Sequence[str]) -> int:
    """Search; the exit status is 2 if a finalist failed."""
    try:
        own, passed_on = split_options(arguments, "search")
        return search(make_request(_parser().parse_args(own), passed_on))
    except ExpediteError as error:  # shown here: elsewhere Lightning is imported for it
        return fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on from here")
        return INTERRUPTED


def make_request(given: argparse.Namespace, passed_on: PassedOn) -> Request:
    """Check the options of a search.

    Raises:
        ConfigError: An option is missing or out of range.
    """
    for name in ("config", "reducer"):
        if not getattr(given, name):
            raise ConfigError(f"a search needs --{name}: a config without a reducer, and a class to search, e.g. ToMe")
    for name in ("images", "finalists"):
        if getattr(given, name) < 1:
            raise ConfigError(f"--{name} is {getattr(given, name)}: it must be 1 or more")
    if not (given.seconds > 0 and math.isfinite(given.seconds)):
        raise ConfigError(f"--seconds is {given.seconds}: it must be above 0")
    if given.max_loss is not None and not given.max_loss >= 0:
        raise ConfigError(f"--max_loss is {given.max_loss}: it must be 0 or more")
    output = given.output or Path("runs") / f"search_{given.config[-1].stem}_{given.reducer.rpartition('.')[2]}"
    names = ("reducer", "seconds", "images", "finalists", "max_loss", "seed")
    options = {name: getattr(given, name) for name in names}
    return Request(tuple(given.config), output, options, given.overwrite, passed_on)


def search(request: Request) -> int:
    """Search, and test and benchmark the finalists.

    Raises:
        ExpediteError: An option cannot be used, or the folder belongs to something else.
    """
    require_one_process("search")

    # Only here: importing torch takes seconds.
    from ..benchmarking.variants import Precision
    from ..search import search as searching

    steps, settings, cli = prepare_steps(request.configs, request.passed_on, STEPS)
    precision, device = cli.trainer.precision, cli.trainer.strategy.root_device
    if precision not in get_args(Precision):
        raise ConfigError(f"trainer.precision is {precision}: a search needs one of {', '.join(get_args(Precision))}")
    options = searching.SearchOptions(**request.options)
    subset = searching.Subset(cli.model, cli.datamodule, options.images, device, precision)
    return searching.search(options, request.output, subset, settings, steps, request.overwrite, Console())


def add_arguments(add: Any) -> None:
    """Add the options of a search.

    Args:
        add: The method ``add_argument`` of a parser.
    """
    add("--config", "-c", type=Path, action="append", help="config without a reducer; may be repeated")
    add("--reducer", metavar="CLASS", help="class to search, e.g. ToMe, or the path of your own")
    add("--output", type=Path, metavar="FOLDER", help="folder for all results (runs/search_<config name>_<class>)")
    add("--seconds", type=float, default=600.0, help="time for trials, summed over all workers (600)")
    add("--images", type=int, default=32, help="images to search on, spread over the data set (32)")
    add("--finalists", type=int, default=5, help="settings that are then tested on all images (5)")
    add("--seed", type=int, default=0, help="of the search (0)")


def _parser() -> argparse.ArgumentParser:
    parser = UsageParser(
        prog="python -m lightning_expedite search",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_arguments(parser.add_argument)
    parser.add_argument("--max_loss", type=float, metavar="POINTS", help="look for the cheapest settings within it")
    parser.add_argument("--overwrite", action="store_true", help="remove a search with other settings in the folder")
    return parser
