"""What a reader has to know before comparing: how runs differ, which results are missing, and what made them."""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..files import POINT_FILE
from ..text import digits, plain
from .schema import Evaluation, Timing

PROTOCOL = ("window", "stride", "short_side", "long_side", "convention", "normalization", "scales", "mirror")
FACTS = ("device", "threads", "precision", "processes", "torch", "timm", "lightning_expedite", "commit", "platform")
MAX_NAMES = 3
MAX_DRIFT = 1.1  # of the baseline's latency between rows of one environment: an idle machine stays below


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


def cautions(table: pd.DataFrame, failures: Sequence[tuple[str, str]] = ()) -> list[str]:
    """Name every difference between runs that can make a comparison unfair, one sentence each."""
    found = []
    subjects = subjects_of(table)
    if len(subjects) > 1:
        titles = "; ".join(subject for subject, _ in subjects)
        found.append(f"Weights or data differ, so scores are compared within each of these only: {titles}.")
    for subject, part in subjects:
        before = f"{subject}: " if len(subjects) > 1 else ""
        found += [f"{before}{text}" for text in (*_about_scores(part), *_about_times(part), *_about_both(part))]
    return [*found, *(f"{plain(name, 60)} failed: {plain(error, 300)}" for name, error in failures)]


def _about_scores(table: pd.DataFrame) -> Iterator[str]:
    scored = table[table["evaluation"].notna()]
    for reason, part in scored.groupby("obstacle", sort=False):
        yield f"Not compared with the baseline: {_names(part['setting'])}: {plain(reason, 300)}."
    for images, part in scored.groupby("compared_images", sort=False):
        yield f"Compared with the baseline on the {images} images that both have: {_names(part['setting'])}."
    apart = scored[~scored["on_front"] & scored["obstacle"].isna() & scored["compared_images"].isna()]
    if not apart.empty:
        yield f"Left out of the chart, since weights, images or labels changed: {_names(apart['setting'])}."
    evaluations: list[Evaluation] = list(scored["evaluation"])
    incomplete = [not one.complete for one in evaluations]
    if any(incomplete):
        yield f"Scores of only some of the data set's images: {_names(scored[incomplete]['setting'])}."
    yield from _differences("Numbers of scored images differ", [one.images for one in evaluations])
    yield from _differences("Scores were computed on several devices", _facts(evaluations, "device"))
    yield from _differences("Scores were computed at several precisions", [one.precision for one in evaluations])
    yield from _differences("Scores are of several commits", map(_short_commit, _facts(evaluations, "commit")))
    yield from _differences("Scores are of several versions of PyTorch", _facts(evaluations, "torch"))
    for name in PROTOCOL:
        values = [one.protocol[name] for one in evaluations if name in one.protocol]
        values = ["not set" if value is None else value for value in values]
        yield from _differences(f"The protocol differs in {name}", values)


def _about_times(table: pd.DataFrame) -> Iterator[str]:
    timed = table[table["timing"].notna()]
    untrained = [timing.untrained for timing in timed["timing"]]
    if any(untrained):
        yield (
            f"Times are of untrained weights: {_names(timed[untrained]['setting'])}. Trained ones take the same time, "
            "except with a method that adapts to content (ACT)."
        )
    scaled = [timing.query_scale != 1 for timing in timed["timing"]]
    if any(scaled):
        yield f"Queries were scaled before the timing: {_names(timed[scaled]['setting'])}."
    timings: list[Timing] = list(dict.fromkeys(timed["timing"]))
    for environment in dict.fromkeys(timing.place for timing in timings):
        medians = [timing.latency.unreduced.median for timing in timings if timing.place == environment]
        if max(medians) > MAX_DRIFT * min(medians):
            yield (
                f"The baseline took {digits(min(medians))} to {digits(max(medians))} ms in different rows "
                f"({plain(environment)}): the machine was not equally fast throughout, so compare speed-ups, not "
                "latencies."
            )
    commits = [timing.commit or timing.environment.get("commit") for timing in timings]
    yield from _differences("Times were taken on several devices", _facts(timings, "device"))
    yield from _differences("Times were taken at several precisions", [timing.precision for timing in timings])
    yield from _differences("Times were taken with several numbers of threads", _facts(timings, "threads"))
    yield from _differences("Times were taken compiled in several ways", [str(timing.compile) for timing in timings])
    yield from _differences("Times are of several input sizes", [timing.input_size for timing in timings])
    yield from _differences("Times are of several commits", map(_short_commit, commits))
    yield from _differences("Times are of several versions of PyTorch", _facts(timings, "torch"))
    yield from _differences("Throughput is at several batch sizes", [timing.batch_size for timing in timings])
    yield from _differences("Peak memory is of several kinds of pass", [timing.memory_pass for timing in timings])


def _about_both(table: pd.DataFrame) -> Iterator[str]:
    both = table[table["evaluation"].notna() & table["timing"].notna()]
    other: dict[tuple[str, str], list[str]] = {}
    sizes = []
    for setting, evaluation, timing in zip(both["setting"], both["evaluation"], both["timing"], strict=True):
        if evaluation.precision != timing.precision:
            other.setdefault((evaluation.precision, timing.precision), []).append(setting)
        window = evaluation.protocol.get("window")
        if window is not None and timing.input_size not in (None, f"{window} x {window}"):
            sizes.append(setting)
    for (scored, timed), names in other.items():
        yield f"Scored at {plain(scored)}, timed at {plain(timed)}: {_names(names)}."
    if sizes:
        yield f"Timed on inputs of another size than the scored windows: {_names(sizes)}."


def _differences(text: str, values: Iterable[Any]) -> Iterator[str]:
    """Name what is not the same everywhere; runs that do not know it are skipped."""
    known = list(dict.fromkeys(plain(value, 60) for value in values if value is not None))
    if len(known) > 1:
        yield f"{text}: {_names(known)}."


def _facts(results: Sequence[Evaluation] | Sequence[Timing], name: str) -> list[Any]:
    return [result.environment.get(name) for result in results]


def _short_commit(name: str | None) -> str | None:
    """Shorten a commit, keeping the suffix that says it was changed."""
    commit, dash, dirty = str(name or "").partition("-")
    return f"{commit[:10]}{dash}{dirty}" or None


def _names(values: Iterable[object]) -> str:
    """List some of the values, each once, and how many more there are."""
    names = list(dict.fromkeys(map(str, values)))
    listed = ", ".join(names[:MAX_NAMES])
    return listed if len(names) <= MAX_NAMES else f"{listed} and {len(names) - MAX_NAMES} more"


# --- What is missing -------------------------------------------------------------------------------------------------


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
    config = _config_of([*table["evaluation"].dropna(), *table["timing"].dropna()])
    return shlex.join(["python", "-m", "lightning_expedite", task, "--config", config, *words])


def _config_of(results: Iterable[Evaluation | Timing]) -> str:
    """Find a config of one of the results: of a sweep's point, the one that ``test`` left, or by its name."""
    for result in results:
        name = result.config if isinstance(result, Timing) else result.path.parent.name
        beside = (result.path.parent.parent / POINT_FILE, result.path.with_name("config.yaml"))
        for path in (*beside, Path("configs") / Path(f"{name}.yaml").name):
            if path.is_file():
                return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    return "CONFIG.yaml"


# --- Provenance ------------------------------------------------------------------------------------------------------


def provenances(table: pd.DataFrame) -> list[Provenance]:
    """Return what scores and times were computed with, settings with the same facts together."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = {}
    several = table["subject"].nunique() > 1
    for kind, column in (("scores", "evaluation"), ("times", "timing")):
        for subject, setting, result in zip(table["subject"], table["setting"], table[column], strict=True):
            if result is not None:
                facts = {name: result.environment.get(name) for name in FACTS} | _more_facts(result)
                shown = tuple((plain(name, 40), plain(fact)) for name, fact in facts.items() if fact is not None)
                found.setdefault((kind, shown), []).append(f"{subject}: {setting}" if several else setting)
    return [Provenance(kind, shown, settings) for (kind, shown), settings in found.items()]


def _more_facts(result: Evaluation | Timing) -> dict[str, Any]:
    if isinstance(result, Timing):
        weights = "untrained" if result.untrained else "trained"
        given = None if result.input_size is None else f"{result.source}, {result.input_size}"
        commit = result.commit or result.environment.get("commit")
        return {"commit": commit, "compile": result.compile, "input": given, "weights": weights}
    images = result.images if result.complete else f"{result.images} of {result.images_total}"
    return {"images": images, **{name.replace("_", " "): value for name, value in result.protocol.items()}}
