"""``sweep``: test and benchmark a model with every point of a grid of reducers and settings."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console

from ..errors import ConfigError, ExpediteError
from ..search.grid import read_grid
from .parser import Parser

if TYPE_CHECKING:
    from ..search.workers import Steps
    from .settings import EvaluationCLI
    from .test import ScoringCLI

STEPS = ("test", "benchmark")
PRELOADED = ("lightning_expedite.cli.test", "lightning_expedite.cli.benchmark")  # by the processes of steps
_SHARED = ("data", "model", "trainer", "seed_everything")
_NOT_OF_BENCHMARK = ("config", "base", "output", "overwrite", *_SHARED)
_DATA_LOCATION = ("--data.root", "--data.images")  # without them a benchmark may take other data

DESCRIPTION = """\
Test and benchmark a model with every point of a grid of reducers and settings, and without a reducer.

The same command resumes an interrupted sweep, and tries failed points again. Started several times, on one machine or
on several with a common folder, it makes as many workers, which share the points. Options that begin with --data,
--model and --seed_everything are passed on to test and benchmark, those with --trainer to test, and those with
--benchmark to benchmark (--benchmark.seconds 10 as its --seconds 10). Example:

    lightning-expedite sweep --config configs/demo_none.yaml --grid configs/grids/demo.yaml --data.count 8
"""


def run(arguments: Sequence[str]) -> int:
    """Run a sweep, or what is left of it.

    Returns:
        The exit status: 2 if a point failed.

    Raises:
        ExpediteError: An option or the grid cannot be used, or the folder has results with other settings.
    """
    options = split_options(arguments, "sweep")
    given = make_parser().parse_args(options["own"])
    if not given.config or not given.grid:
        raise ConfigError("sweep needs --config, a config without a reducer, and --grid, a file with the points")
    if given.shard is not None:
        if not re.fullmatch(r"[1-9]\d*/[1-9]\d*", given.shard):
            raise ConfigError(f"--shard is {given.shard!r}: it must be I/N, such as 2/4")
        Console(stderr=True).print("--shard is deprecated and has no effect: workers share the points by themselves")
    names = given.steps.split(",")
    if unknown := [name for name in names if name not in STEPS]:
        raise ConfigError(f"--steps has {unknown[0]!r}: the steps are {', '.join(STEPS)}")
    entries, grid = read_grid(given.grid)
    output = given.output or Path("runs") / f"sweep_{Path(given.config[-1]).stem}"

    # Only here: importing torch takes seconds.
    from ..reducers import EncoderShape
    from ..search.points import Point, require_different, resolve_reducer
    from ..search.workers import run_points

    steps, settings, cli = prepare_steps(given.config, options, [step for step in STEPS if step in names])
    from .benchmark import configured_architecture

    shape = configured_architecture(cli.model)
    encoder = EncoderShape(shape.depth, shape.grid, shape.class_token)
    points = []
    for point in grid:
        try:
            reducer = None if point.reducer is None else resolve_reducer(point.reducer, encoder)
        except ExpediteError as error:
            raise type(error)(f"--grid {given.grid}: {point.origin}: {error}") from error
        points.append(Point(output, point.name, reducer, settings))
    require_different(points, str(given.grid))
    content = {"config": given.config, "grid": {"file": str(given.grid), "entries": entries}}
    return run_points(output, points, steps, content, given.overwrite, Console())


def split_options(arguments: Sequence[str], command: str) -> dict[str, list[str]]:
    """Split the command line into a command's ``own`` options, those ``shared`` by the steps, and ``benchmark``'s.

    Of the shared ones, ``data`` has those that name where the data are.

    Raises:
        ConfigError: An option that is passed on is unknown there, or set by the command itself; or under torchrun.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise ConfigError(
            f"{command} is not started by torchrun: test starts its processes itself (--trainer.devices), and further "
            f"workers are further starts of the same {command}"
        )
    options: dict[str, list[str]] = {"own": [], "shared": [], "data": [], "benchmark": []}
    targets = ["own"]
    for word in arguments:
        if word.startswith("-"):
            option = re.split(r"[=+]", word.removeprefix("--"), maxsplit=1)[0]
            family, _, name = option.partition(".")
            targets = ["own"]
            if option == "model.reducer" or option.startswith("model.reducer."):
                raise ConfigError(f"--{option}: {command} sets the reducer; leave this option out")
            if family in _SHARED:
                targets = ["shared", "data"] if word.startswith(_DATA_LOCATION) else ["shared"]
            elif family == "benchmark":
                if not name or name.partition(".")[0] in _NOT_OF_BENCHMARK:
                    raise ConfigError(f"--{option} is not an option of {command}; see {command} --help")
                targets = ["benchmark"]
                word = f"--{word.removeprefix('--benchmark.')}"
        for target in targets:
            options[target].append(word)
    return options


def prepare_steps(
    configs: Sequence[str], options: dict[str, list[str]], names: Sequence[str]
) -> "tuple[Steps, dict[str, dict[str, Any]], ScoringCLI]":
    """Check the options of the steps, and start the server of their processes.

    Returns:
        The steps; the settings of each of them without a reducer, as their results store them; and the parsed options
        of ``test``.

    Raises:
        ExpediteError: A config has a reducer, or an option cannot be used.
    """
    from ..search.processes import start_processes
    from ..search.workers import Steps
    from . import main

    start_processes(PRELOADED)

    from .benchmark import BenchmarkCLI, describe_settings
    from .test import ScoringCLI

    words = [word for config in configs for word in ("--config", config)] + options["shared"]
    cli = ScoringCLI(words)
    if cli.config.model.reducer is not None:
        raise ConfigError(f"config {configs[-1]} has a reducer: take one without model.reducer, e.g. demo_none.yaml")
    settings = {"test": resolved(cli)}
    if "benchmark" in names:
        words += options["benchmark"]
        try:
            benchmark = BenchmarkCLI(words)
            settings["benchmark"] = describe_settings([benchmark])
        except ExpediteError as error:
            raise type(error)(f"benchmark: {error}") from error
        del settings["benchmark"]["configs"]
        settings["benchmark"] |= {key: resolved(benchmark)[key] for key in ("model", "data")}
    passed_on = {"test": [], "benchmark": options["data"] + options["benchmark"]}
    return Steps({name: passed_on[name] for name in names}, main), settings, cli


def resolved(cli: "EvaluationCLI") -> dict[str, Any]:
    """Return all settings as results store them."""
    content: dict[str, Any] = yaml.safe_load(cli.resolved_config())
    return content


def make_parser() -> Parser:
    """Return the parser of the command's own options."""
    parser = Parser("sweep", DESCRIPTION)
    add = parser.add_argument
    add("--config", "-c", type=str, metavar="FILE", action="append", help="config without a reducer; may be repeated")
    add("--grid", type=Path, help="YAML file with reducers and settings, as in configs/grids")
    add("--output", type=Path, help="folder for all results (runs/sweep_<config name>)")
    add("--steps", default=",".join(STEPS), help="what to do for each point: test, benchmark or test,benchmark")
    add("--shard", metavar="I/N", help="deprecated, without effect: workers share the points by themselves")
    add("--overwrite", action="store_true", help="replace results that were made with other settings")
    return parser
