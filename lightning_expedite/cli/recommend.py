"""``recommend``: say which measured setting to use, and search for better ones."""

import json
from collections.abc import Sequence
from pathlib import Path

from ..analysis.recommend_options import Options, read_options
from ..errors import ExpediteError, fail
from ..files import write_atomically

INTERRUPTED = 130  # what shells give after Ctrl-C


def run(arguments: Sequence[str]) -> int:
    """Answer; errors are shown here, as the command line's own way imports Lightning."""
    try:
        return recommend(read_options(arguments))
    except ExpediteError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on from here")
        return INTERRUPTED


def recommend(options: Options) -> int:
    """Search where that is wanted, then recommend where there is a goal.

    Returns:
        The exit status: 0, also where no setting meets the goal, as that is an answer; 2 where a finalist failed.
    """
    failed = 0
    paths = options.paths
    if options.search is not None:
        from ..search.search import search  # imports torch

        failed = search(options.search, options.goal, options.overwrite)
        paths = (options.search.output,)
    if options.goal is not None:
        _answer(paths, options)
    return 2 if failed else 0


def _answer(paths: Sequence[Path], options: Options) -> None:
    from rich.console import Console

    from ..analysis.answer import answer, config_text, content_of
    from ..analysis.showing import show

    assert options.goal is not None
    found = answer(paths, options.goal, options.environment)
    show(found, Console())
    if options.json is not None:
        content = json.dumps(content_of(found), indent=1, allow_nan=False, default=str)
        write_atomically(options.json, content.encode())
    if options.write_config is not None and found.choice.chosen is not None:
        write_atomically(options.write_config, config_text(found.choice.chosen.candidate).encode())
        print(f"wrote {options.write_config}")
