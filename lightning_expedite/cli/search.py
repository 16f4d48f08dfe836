"""``search``: find good settings of a reducer on a subset of the images, then test and benchmark the best ones."""

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..errors import ConfigError
from .parser import Parser
from .sweep import STEPS, prepare_steps, split_options

DESCRIPTION = """\
Search the settings of one reducer on a subset of the images, then test the best ones on all images and benchmark them.

The results are laid out as a sweep's: report and recommend read them. The same command resumes an interrupted search,
and continues it with more --seconds. Started several times, on one machine or on several with a common folder, it
makes as many workers. Options that begin with --data, --model and --trainer are passed on as by sweep, and apply to the
search too; those with --benchmark are passed on to benchmark. Example:

    lightning-expedite search --config configs/demo_none.yaml --reducer ToMe --seconds 60 --max_loss 0.5
"""


def run(arguments: Sequence[str]) -> int:
    """Search, and test and benchmark the finalists.

    Returns:
        The exit status: 2 if a finalist failed.

    Raises:
        ExpediteError: An option cannot be used, or the folder belongs to something else.
    """
    options = split_options(arguments, "search")
    given = make_parser().parse_args(options["own"])
    if not given.config or not given.reducer:
        raise ConfigError("search needs --config, a config without a reducer, and --reducer, a class such as ToMe")
    for name in ("images", "finalists"):
        if given[name] < 1:
            raise ConfigError(f"--{name} is {given[name]}: it must be 1 or more")
    if not (given.seconds > 0 and math.isfinite(given.seconds)):
        raise ConfigError(f"--seconds is {given.seconds}: it must be above 0")
    if given.max_loss is not None and not given.max_loss >= 0:
        raise ConfigError(f"--max_loss is {given.max_loss}: it must be 0 or more")
    output = given.output or Path("runs") / f"search_{Path(given.config[-1]).stem}_{given.reducer.rpartition('.')[2]}"

    # Only here: importing torch takes seconds.
    from ..benchmarking.variants import parse_precision
    from ..search.search import Subset, search

    steps, settings, cli = prepare_steps(given.config, options, STEPS)
    device, precision = cli.trainer.strategy.root_device, parse_precision(cli.trainer.precision)
    return search(
        given.reducer,
        output,
        Subset(cli.model, cli.datamodule, given.images, device, precision),
        settings,
        steps,
        Console(),
        seconds=given.seconds,
        finalists=given.finalists,
        max_loss=given.max_loss,
        seed=given.seed,
        overwrite=given.overwrite,
    )


def make_parser() -> Parser:
    """Return the parser of the command's own options."""
    parser = Parser("search", DESCRIPTION)
    add = parser.add_argument
    add("--config", "-c", type=str, metavar="FILE", action="append", help="config without a reducer; may be repeated")
    add("--reducer", metavar="CLASS", help="class to search, e.g. ToMe, or the path of your own")
    add("--output", type=Path, metavar="FOLDER", help="folder for all results (runs/search_<config name>_<class>)")
    add("--seconds", type=float, default=600.0, help="time for trials, summed over all workers (600)")
    add("--images", type=int, default=32, help="images to search on, spread over the data set (32)")
    add("--finalists", type=int, default=5, help="settings that are then tested on all images (5)")
    add("--max_loss", type=float, metavar="POINTS", help="look for the cheapest settings that lose no more mIoU")
    add("--seed", type=int, default=0, help="of the search (0)")
    add("--overwrite", action="store_true", help="remove a search with other settings in the folder")
    return parser
