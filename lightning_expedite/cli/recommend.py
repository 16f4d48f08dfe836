"""``recommend``: which measured setting to use for a goal, and how certain that is."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from ..errors import ConfigError, OutputError
from ..files import write_atomically
from .parser import Parser

LIMITS = {
    "max_loss": ("POINTS", "most points of mIoU lost from the baseline"),
    "min_throughput": ("N", "least images per second"),
    "max_latency": ("MS", "most milliseconds at batch 1"),
    "max_memory": ("MIB", "most MiB of peak memory at batch 1"),
}
_OTHERS = ("json", "write_config", "overwrite", "by", "environment", "confidence", "by_estimate")
DESCRIPTION = """\
Recommend one of the measured settings, with its config, and say how certain the choice is.

The paths are a sweep's folder, or any results; the baseline must be among them. With --max_loss the fastest setting
that meets all limits is recommended, without it the one of the best mIoU. Example:

    lightning-expedite recommend runs/sweep --max_loss 0.5
"""


def run(arguments: Sequence[str]) -> int:
    """Recommend a setting, after the deprecated ``--search`` of one.

    Returns:
        The exit status: 0, even if no setting meets the goal, since that is an answer; 2 after an error.
    """
    return _search(arguments) if "--search" in arguments else _recommend(make_parser().parse_args(list(arguments)))


def _recommend(options: Namespace) -> int:
    from rich.console import Console

    from ..analysis.recommend import Goal, config_text, content_of, recommend
    from ..analysis.recommend_text import print_recommendation

    names = (*LIMITS, "by", "by_estimate", "confidence")
    goal = Goal(**{name: getattr(options, name) for name in names})
    if not options.paths:
        raise ConfigError("recommend needs results: name a sweep's folder")
    for option, path in (("json", options.json), ("write_config", options.write_config)):
        if path is not None and path.exists() and not options.overwrite:
            raise OutputError(f"--{option} {path} exists already; use --overwrite or another name")
    found = recommend(options.paths, goal, options.environment)
    print_recommendation(found, Console())
    if options.json is not None:
        content = json.dumps(content_of(found), indent=1, allow_nan=False, default=str)
        write_atomically(options.json, content.encode())
    if options.write_config is not None and found.chosen is not None:
        write_atomically(options.write_config, config_text(found.chosen).encode())
        print(f"wrote {options.write_config}")
    return 0


def _search(arguments: Sequence[str]) -> int:
    """Run the command ``search``, and recommend one of its settings where there is a goal."""
    from .search import run as search

    print("warning: recommend --search is deprecated: use search, then recommend on its folder", file=sys.stderr)
    own: list[str] = []
    words: list[str] = []
    targets = [own]
    for word in arguments:
        if word.startswith("-"):
            name = word.removeprefix("--").partition("=")[0]
            targets = [own] if name in (*LIMITS, *_OTHERS) else [words]
            targets += [words] if name in ("max_loss", "overwrite") else []
        for target in targets:
            target.append(word)
    words.remove("--search")
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--config", "--reducer", "--output"):
        known.add_argument(name, default="")
    given = known.parse_known_args(["--config" if word == "-c" else word for word in words])[0]
    output = given.output or f"runs/search_{Path(given.config).stem}_{given.reducer.rpartition('.')[2]}"
    options = make_parser().parse_args([output, *own])
    status = search(words)  # which checks the options
    if Path(output).is_dir() and any(getattr(options, name) is not None for name in LIMITS):
        _recommend(options)
    return status


def make_parser() -> Parser:
    """Return the parser of the command's options."""
    parser = Parser("recommend", DESCRIPTION)
    add = parser.add_argument
    add("paths", nargs="*", type=Path, help="results.json, benchmark.json or folders that hold them")
    add("--json", type=Path, metavar="FILE", help="also write the answer as JSON")
    add("--write_config", type=Path, metavar="FILE", help="write all settings of the recommended one as a config")
    add("--overwrite", action="store_true", help="replace existing files")
    goals = parser.add_argument_group("goal").add_argument
    for name, (unit, text) in LIMITS.items():
        goals(f"--{name}", type=float, metavar=unit, help=text)
    by = Literal["latency", "throughput", "gflops", "memory"]
    goals("--by", type=by, default="latency", help="what fastest means (latency)")
    goals("--environment", metavar="TEXT", help="whose times count, if there are several: a part of its text")
    goals("--confidence", type=float, default=0.95, help="of bounds and intervals of the loss (0.95)")
    goals("--by_estimate", action="store_true", help="judge limits by estimates, not by bounds and third quartiles")
    return parser
