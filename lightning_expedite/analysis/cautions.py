"""What a reader has to know before comparing: how runs differ, which results are missing, and what made them."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ..text import digits, plain, visible
from .results import command, config_of
from .schema import Timing

# Facts that should be the same in all runs.
_SCORED = (
    *("images", "device", "precision", "commit", "torch", "window", "stride", "short side", "long side", "convention"),
    *("normalization", "scales", "mirror"),
)
_TIMED = (
    *("device", "precision", "threads", "compile", "input size", "commit", "torch", "batch size", "query scale"),
    "memory pass",
)
_MAX_NAMES = 3
_MAX_DRIFT = 1.1  # of the baseline's latency between rows of one environment: an idle machine stays below


class Missing(NamedTuple):
    """A missing result, and the command that makes it."""

    what: str
    command: str


class Provenance(NamedTuple):
    """Facts that the ``scores`` or ``times`` (``kind``) of some settings have in common."""

    kind: str
    facts: tuple[tuple[str, str], ...]
    settings: list[str]


def subjects_of(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Split a table of `read_results` by subject."""
    return [(str(subject), part) for subject, part in table.groupby("subject", sort=False)]


def cautions(table: pd.DataFrame) -> list[str]:
    """Name what failed and every difference between runs that can make a comparison unfair, one sentence each."""
    found = []
    subjects = subjects_of(table)
    if len(subjects) > 1:
        titles = "; ".join(subject for subject, _ in subjects)
        found.append(f"Weights or data differ, so scores are compared within each of these only: {titles}.")
    for subject, part in subjects:
        before = f"{subject}: " if len(subjects) > 1 else ""
        found += [f"{before}{text}" for text in (*_not_compared(part), *differences(part))]
    return [*found, *(f"{plain(name, 60)} failed: {plain(error, 300)}" for name, error in table.attrs["failures"])]


def _not_compared(table: pd.DataFrame) -> Iterator[str]:
    scored = table[table["evaluation"].notna()]
    for reason, part in scored.groupby("obstacle", sort=False):
        yield f"Not compared with the baseline: {_names(part['setting'])}: {plain(reason, 300)}."
    for images, part in scored.groupby("compared_images", sort=False):
        yield f"Compared with the baseline on the {images} images that both have: {_names(part['setting'])}."
    apart = scored[~scored["on_front"] & scored["obstacle"].isna() & scored["compared_images"].isna()]
    if not apart.empty:
        yield f"Left out of the chart, since weights, images or labels changed: {_names(apart['setting'])}."


def differences(table: pd.DataFrame) -> Iterator[str]:
    """Name what scores and times of one subject do not have in common."""
    scored, timed = (table[table[column].notna()] for column in ("evaluation", "timing"))
    incomplete = [not evaluation.complete for evaluation in scored["evaluation"]]
    if any(incomplete):
        yield f"Scores of only some of the data set's images: {_names(scored[incomplete]['setting'])}."
    yield from _several("Scores", scored["evaluation"], _SCORED)
    untrained = [timing.untrained for timing in timed["timing"]]
    if any(untrained):
        yield (
            f"Times are of untrained weights: {_names(timed[untrained]['setting'])}. Trained ones take the same time, "
            "except with a method that adapts to content (ACT)."
        )
    for environment, part in timed.groupby("environment", sort=False):
        medians = [timing.latency.unreduced.median for timing in part["timing"]]
        if max(medians) > _MAX_DRIFT * min(medians):
            yield (
                f"The baseline took {digits(min(medians))} to {digits(max(medians))} ms in different rows "
                f"({environment}): the machine was not equally fast throughout, so compare speed-ups, not latencies."
            )
    yield from _several("Times", timed["timing"], _TIMED)
    both = timed[timed["evaluation"].notna()]
    precisions = [both[column].map(lambda one: plain(one.precision)) for column in ("evaluation", "timing")]
    for (score, time), part in both.groupby(precisions, sort=False):
        if score != time:
            yield f"Scored at {score}, timed at {time}: {_names(part['setting'])}."
    windows = [one.protocol.get("window") for one in both["evaluation"]]
    sizes = [None if window is None else f"{window} x {window}" for window in windows]
    timings = zip(sizes, both["timing"], strict=True)
    other = [None not in (size, timing.input_size) and size != timing.input_size for size, timing in timings]
    if any(other):
        yield f"Timed on inputs of another size than the scored windows: {_names(both[other]['setting'])}."


def _several(what: str, results: pd.Series, names: Iterable[str]) -> Iterator[str]:
    """Name the facts that are not the same in all results; results that do not know a fact are skipped."""
    facts = [result.facts for result in results.unique()]
    for name in names:
        known = dict.fromkeys(plain(one[name], 60) for one in facts if one.get(name) is not None)
        if len(known) > 1:
            yield f"{what} differ in {name}: {_names(known)}."


def _names(values: Iterable[object]) -> str:
    """List some of the values, each once, and how many more there are."""
    names = list(dict.fromkeys(map(str, values)))
    listed = ", ".join(names[:_MAX_NAMES])
    return listed if len(names) <= _MAX_NAMES else f"{listed} and {len(names) - _MAX_NAMES} more"


def missing(table: pd.DataFrame) -> Iterator[Missing]:
    """Name missing results with the command that makes them, for each subject at most one of each kind."""
    for subject, part in subjects_of(table):
        reduced = part[~part["is_baseline"]]
        if part[part["is_baseline"]]["mIoU"].isna().all():
            what = f"{subject}: no score of the baseline, so there are no differences from it"
            yield Missing(what, _command("test", part, "--model.reducer", "null", "--output", "runs/none"))
        untimed = reduced[reduced["timing"].isna()]
        if not untimed.empty:
            names = _names(part[part["timing"].isna()]["setting"])
            yield Missing(f"{subject}: no times of {names}", _command("benchmark", untimed, "--output", "runs/speed"))
        unscored = reduced[reduced["evaluation"].isna()]
        if not unscored.empty:
            names = _names(unscored["setting"])
            yield Missing(f"{subject}: no score of {names}", _command("test", unscored, "--output", "runs/scores"))


def _command(task: str, table: pd.DataFrame, *words: str) -> str:
    """Return a command line with a config of one of the results: its own, or by its name."""
    places = []
    for result in [*table["evaluation"].dropna(), *table["timing"].dropna()]:
        name = result.config if isinstance(result, Timing) else result.path.parent.name
        places += [config_of(result.path), Path("configs") / Path(f"{name}.yaml").name]
    return visible(command(task, next((path for path in places if path.is_file()), Path("CONFIG.yaml")), *words))


def provenances(table: pd.DataFrame) -> list[Provenance]:
    """Return what scores and times were computed with, settings with the same facts together."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = {}
    names = table["subject"] + ": " + table["setting"] if table["subject"].nunique() > 1 else table["setting"]
    for kind, column in (("scores", "evaluation"), ("times", "timing")):
        for name, result in zip(names, table[column], strict=True):
            facts = [] if result is None else [fact for fact in result.facts.items() if fact[1] is not None]
            shown = tuple((plain(fact, 40), plain(value)) for fact, value in facts)
            if shown:
                found.setdefault((kind, shown), []).append(name)
    return [Provenance(kind, shown, settings) for (kind, shown), settings in found.items()]
