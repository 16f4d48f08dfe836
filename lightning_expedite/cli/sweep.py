"""``sweep``: test and benchmark a model with every point of a grid of reducers and settings."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console

from ..errors import ConfigError, ExpediteError, fail
from ..search.grid import read_grid
from .parser import Parser

if TYPE_CHECKING:
    from ..reducers import EncoderShape
    from ..search.workers import Steps
    from .settings import EvaluationCLI
    from .test import ScoringCLI

INTERRUPTED = 130  # what shells return after Ctrl-C
STEPS = ("test", "benchmark")
PRELOADED = ("lightning_expedite.cli.test", "lightning_expedite.cli.benchmark")  # by the processes of steps
_SHARED = ("data", "model", "trainer", "seed_everything")
_NOT_OF_BENCHMARK = ("config", "base", "output", "overwrite", *_SHARED)

DESCRIPTION = """\
Test and benchmark a model with every point of a grid of reducers and settings, and without a reducer.

The same command resumes an interrupted sweep, and tries failed points again. Started several times, on one machine or
on several with a common folder, it makes as many workers, which share the points. Options that begin with --data,
--model and --seed_everything are passed on to test and benchmark, those with --trainer to test, and those with
--benchmark to benchmark (--benchmark.seconds 10 as its --seconds 10). Example:

    lightning-expedite sweep --config configs/demo_none.yaml --grid configs/grids/demo.yaml --data.count 8
"""


@dataclass(frozen=True)
class PassedOn:
    """Options for the configs of the steps, and those of ``benchmark`` alone."""

    shared: list[str]
    benchmark: list[str]

    @property
    def data_location(self) -> list[str]:
        """The shared options that name where the data are: ``benchmark`` uses other data unless it is given them."""
        chosen: list[str] = []
        inside = False
        for word in self.shared:
            inside = word.startswith(("--data.root", "--data.images")) if word.startswith("--") else inside
            if inside:
                chosen.append(word)
        return chosen


def run(arguments: Sequence[str]) -> int:
    """Run a sweep, or what is left of it; its exit status is 2 if a point failed."""
    try:
        return sweep(arguments)
    except ExpediteError as error:  # shown here: elsewhere Lightning is imported for it
        return fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; the same command continues from here")
        return INTERRUPTED


def sweep(arguments: Sequence[str]) -> int:
    """Run a sweep.

    Raises:
        ExpediteError: An option or the grid cannot be used, or the folder has results with other settings.
    """
    own, passed_on = split_options(arguments, "sweep")
    given = make_parser().parse_args(own)
    require_one_process("sweep")
    if not given.config or not given.grid:
        raise ConfigError("sweep needs --config, a config without a reducer, and --grid, a file with the points")
    if given.shard is not None:
        if not re.fullmatch(r"[1-9]\d*/[1-9]\d*", given.shard):
            raise ConfigError(f"--shard is {given.shard!r}: it must be I/N, such as 2/4")
        Console(stderr=True).print("--shard is deprecated and has no effect: workers share the points by themselves")
    names = given.steps.split(",")
    if unknown := [name for name in names if name not in STEPS]:
        raise ConfigError(f"--steps has {unknown[0]!r}: the steps are {', '.join(STEPS)}")
    grid = read_grid(given.grid)
    output = given.output or Path("runs") / f"sweep_{Path(given.config[-1]).stem}"

    # Only here: importing torch takes seconds.
    from ..search.points import Point, require_different, resolve_reducer
    from ..search.workers import run_points

    steps, settings, cli = prepare_steps(given.config, passed_on, [step for step in STEPS if step in names])
    encoder = encoder_of(cli)
    points = []
    for point in grid.points:
        try:
            reducer = None if point.reducer is None else resolve_reducer(point.reducer, encoder)
        except ExpediteError as error:
            raise type(error)(f"--grid {grid.path}: {point.origin}: {error}") from error
        points.append(Point(output, point.name, reducer, settings))
    require_different(points, str(grid.path))
    content = {"config": given.config, "grid": {"file": str(grid.path), "entries": grid.entries}}
    return run_points(output, points, steps, content, given.overwrite, Console())


def split_options(arguments: Sequence[str], command: str) -> tuple[list[str], PassedOn]:
    """Split the command line into a command's own options and those that it passes on.

    Raises:
        ConfigError: An option that is passed on is unknown there, or set by the command itself.
    """
    own: list[str] = []
    passed_on = PassedOn([], [])
    target = own
    for word in arguments:
        if word.startswith("-"):
            option = re.split(r"[=+]", word.removeprefix("--"), maxsplit=1)[0]
            family, _, name = option.partition(".")
            target = own
            if option == "model.reducer" or option.startswith("model.reducer."):
                raise ConfigError(f"--{option}: {command} sets the reducer; leave this option out")
            if family in _SHARED:
                target = passed_on.shared
            elif family == "benchmark":
                if not name or name.partition(".")[0] in _NOT_OF_BENCHMARK:
                    raise ConfigError(f"--{option} is not an option of {command}; see {command} --help")
                target = passed_on.benchmark
                word = f"--{word.removeprefix('--benchmark.')}"
        target.append(word)
    return own, passed_on


def require_one_process(command: str) -> None:
    """Raise `ConfigError` under torchrun."""
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise ConfigError(
            f"{command} is not started by torchrun: test starts its processes itself (--trainer.devices), and further "
            f"workers are further starts of the same {command}"
        )


def prepare_steps(
    configs: Sequence[str], passed_on: PassedOn, names: Sequence[str]
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

    from .benchmark import describe_settings
    from .benchmark_options import BenchmarkCLI, read_options
    from .test import ScoringCLI

    words = [word for config in configs for word in ("--config", config)] + passed_on.shared
    cli = ScoringCLI(words)
    if cli.config.model.reducer is not None:
        raise ConfigError(f"config {configs[-1]} has a reducer: take one without model.reducer, e.g. demo_none.yaml")
    settings = {"test": resolved(cli)}
    options = {"test": [], "benchmark": [*passed_on.data_location, *passed_on.benchmark]}
    if "benchmark" in names:
        try:
            benchmark = BenchmarkCLI([*words, *passed_on.benchmark])
            common = describe_settings([benchmark], read_options([benchmark], [*words, *passed_on.benchmark]))
        except ExpediteError as error:
            raise type(error)(f"benchmark: {error}") from error
        del common["configs"]
        model_and_data = {key: resolved(benchmark)[key] for key in ("model", "data")}
        settings["benchmark"] = json.loads(json.dumps({**common, **model_and_data}))
    return Steps({name: options[name] for name in names}, main), settings, cli


def resolved(cli: "EvaluationCLI") -> dict[str, Any]:
    """Return all settings as results store them."""
    content: dict[str, Any] = json.loads(json.dumps(yaml.safe_load(cli.resolved_config())))
    return content


def encoder_of(cli: "ScoringCLI") -> "EncoderShape":
    """Return the encoder's shape, without its weights where they are known ones."""
    from ..reducers import EncoderShape
    from .benchmark import configured_architecture

    shape = configured_architecture(cli.model)
    return EncoderShape(shape.depth, shape.grid, shape.class_token)


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
