"""The options of ``sweep``: its own, and those that it hands on to ``test`` and ``benchmark``."""

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..cli.usage_parser import UsageParser
from ..errors import ConfigError
from .folders import STEPS
from .sharding import Shard, read_shard

_BOTH = ("data", "model", "trainer", "seed_everything")
_NOT_OF_BENCHMARK = ("config", "base", "output", "overwrite", *_BOTH)

DESCRIPTION = """\
Tests and benchmarks a model with every point of a grid of reducers and settings, and without any reducer.

Points that are done are skipped: the same command goes on where an earlier one was stopped, and tries failures again.
Further options are handed on:
  --data.*, --model.*, --seed_everything   to test and benchmark
  --trainer.*                              to test
  --benchmark.*                            to benchmark, such as --benchmark.seconds 10 for its --seconds 10
`test --help` and `benchmark --help` list them.
"""
EPILOG = """\
example:
  python -m lightning_expedite sweep --config configs/demo_none.yaml --grid configs/grids/demo.yaml --data.count 8
"""


@dataclass(frozen=True)
class Options:
    """What the user asked for.

    ``words`` are options for the points' configs, ``benchmark_words`` those of ``benchmark`` alone.
    """

    configs: tuple[Path, ...]
    grid: Path
    output: Path
    steps: tuple[str, ...]
    shard: Shard
    overwrite: bool
    words: tuple[str, ...]
    benchmark_words: tuple[str, ...]

    @property
    def place_words(self) -> list[str]:
        """Those of ``words`` that name the data's place: ``benchmark`` takes other data unless they are given to it."""
        chosen: list[str] = []
        inside = False
        for word in self.words:
            inside = word.startswith(("--data.root", "--data.images")) if word.startswith("--") else inside
            if inside:
                chosen.append(word)
        return chosen


def read_options(arguments: Sequence[str]) -> Options:
    """Read the command line after ``sweep``.

    Raises:
        ConfigError: An option is unknown, belongs elsewhere or has a value out of its range.
        SystemExit: After ``--help``, or where an option or a value is missing.
    """
    given, rest = _parser().parse_known_args(list(arguments))
    words, benchmark_words = split_words(rest)
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise ConfigError(
            "sweep is started once, not by torchrun: test starts the processes itself (--trainer.devices); "
            "to use several machines give --shard"
        )
    return Options(
        configs=tuple(given.config),
        grid=given.grid,
        output=given.output or Path("runs") / f"sweep_{given.config[-1].stem}",
        steps=_read_steps(given.steps),
        shard=read_shard(given.shard),
        overwrite=given.overwrite,
        words=tuple(words),
        benchmark_words=tuple(benchmark_words),
    )


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part the options that ``sweep`` hands on: those of the points' configs, and those of ``benchmark`` alone.

    Raises:
        ConfigError: An option is none of them, or the grid's, or one that ``sweep`` gives itself.
    """
    both: list[str] = []
    benchmark: list[str] = []
    target: list[str] | None = None
    for word in words:
        if not word.startswith("--"):
            if target is None:
                raise ConfigError(f"{word!r} belongs to no option")
            target.append(word)
            continue
        option = re.split(r"[=+]", word.removeprefix("--"), maxsplit=1)[0]
        family, _, name = option.partition(".")
        if option == "model.reducer" or option.startswith("model.reducer."):
            raise ConfigError(f"--{option}: the grid gives the reducers; add an entry to its file")
        if family in _BOTH:
            target = both
            target.append(word)
        elif family == "benchmark" and name and name.partition(".")[0] not in _NOT_OF_BENCHMARK:
            target = benchmark
            target.append(f"--{word.removeprefix('--benchmark.')}")
        else:
            raise ConfigError(
                f"--{option} is no option of sweep; those that it hands on begin with --data, --model, --trainer or "
                "--benchmark. (see sweep --help)"
            )
    return both, benchmark


def _read_steps(text: str) -> tuple[str, ...]:
    names = text.split(",")
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        raise ConfigError(f"--steps has {unknown[0]!r}: the steps are {', '.join(STEPS)}")
    return tuple(step for step in STEPS if step in names)


def _parser() -> argparse.ArgumentParser:
    parser = UsageParser(
        prog="python -m lightning_expedite sweep",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", "-c", type=Path, action="append", required=True, help="config without a reducer; may be repeated")
    add("--grid", type=Path, required=True, help="YAML file with reducers and settings, as in configs/grids")
    add("--output", type=Path, help="folder for all results (runs/sweep_<config name>)")
    add("--steps", default=",".join(STEPS), help="what to do for each point: test, benchmark or test,benchmark")
    add("--shard", default="1/1", metavar="I/N", help="do only part I of N; parts may share --output")
    add("--overwrite", action="store_true", help="replace results that were made with other settings")
    return parser
