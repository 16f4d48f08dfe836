"""What a reader has to know before comparing: runs that are not alike, and results that are missing."""

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..text import digits, plain
from .comparison import Entry, Subject
from .runs import POINT_FILE, Failure, Speed, Test

PROTOCOL = ("window", "stride", "short_side", "long_side", "convention", "normalization", "scales", "mirror")
NAMED_AT_MOST = 3
STEADY = 1.1  # the largest latency of the unreduced model over the least that passes for the same machine, equally free


class Missing(NamedTuple):
    """A result that is not there: what it would be, and the command that brings it."""

    what: str
    command: str


def cautions(subjects: Sequence[Subject], failures: Sequence[Failure]) -> list[str]:
    """Say in what the runs differ, one sentence for each difference."""
    found = []
    if len(subjects) > 1:
        titles = "; ".join(subject.title for subject in subjects)
        found.append(f"Weights or data differ, so scores are compared within each of these only: {titles}.")
    for subject in subjects:
        before = f"{subject.title}: " if len(subjects) > 1 else ""
        found += [f"{before}{text}" for text in (*_of_tests(subject), *_of_speeds(subject), *_of_both(subject))]
    found += [f"{plain(failure.name, 60)} failed: {plain(failure.error, 300)}" for failure in failures]
    return found


def _of_tests(subject: Subject) -> Iterator[str]:
    tests = {name: test for entry in subject.entries if (test := entry.run.test) for name in [entry.title]}
    incomplete = [name for name, test in tests.items() if not test.content.get("complete", True)]
    if incomplete:
        yield f"Scores of a part of the images only, which are not the data set's: {_names(incomplete)}."
    yield from _differences(
        tests,
        {
            "Numbers of scored images differ": lambda test: test.content["images"],
            "Scores were computed on several devices": lambda test: test.content["environment"].get("device") or None,
            "Scores were computed at several precisions": lambda test: test.precision,
            "Scores are of several commits": lambda test: _commit(test.content["environment"].get("commit")),
            "Scores are of several versions of PyTorch": lambda test: test.content["environment"].get("torch"),
            **{f"The protocol differs in {name}": _protocol(name) for name in PROTOCOL},
        },
    )
    classes = {tuple(row["name"] for row in test.content.get("per_class", [])) for test in tests.values()}
    if len(classes) > 1:
        yield "Lists of classes differ: classes are compared where the list is that of the unreduced model."


def _of_speeds(subject: Subject) -> Iterator[str]:
    speeds = {entry.title: entry.speed for entry in subject.entries if entry.speed}
    every = subject.speeds
    untrained = [entry.title for entry in subject.entries if entry.speed and entry.speed.row["model"].get("untrained")]
    if untrained:
        yield (
            f"Times are of untrained weights: {_names(untrained)}. Trained ones take the same time, but not with "
            "a method that adapts to content (ACT)."
        )
    scaled = [name for name, speed in speeds.items() if speed.row["model"].get("query_scale", 1.0) != 1]
    if scaled:
        yield f"Queries were scaled before the timing: {_names(scaled)}."
    yield from _drift(subject)
    yield from _differences(
        dict(enumerate(every)),
        {
            "Times were taken on several devices": lambda speed: speed.content["environment"]["device"],
            "Times were taken at several precisions": lambda speed: speed.content["settings"]["precision"],
            "Times were taken with several numbers of threads": lambda speed: speed.content["environment"]["threads"],
            "Times were taken compiled in several ways": lambda speed: str(speed.content["settings"]["compile"]),
            "Times are of several input sizes": _input_size,
            "Times are of several commits": lambda speed: _commit(
                speed.row.get("commit") or speed.content["environment"].get("commit")
            ),
            "Times are of several versions of PyTorch": lambda speed: speed.content["environment"].get("torch"),
            "Throughput is at several batch sizes": lambda speed: speed.row["throughput"]["batch_size"],
            "Peak memory is of several kinds of pass": lambda speed: speed.row.get("peak_memory_pass"),
        },
    )


def _of_both(subject: Subject) -> Iterator[str]:
    pairs = [(entry, entry.run.test, entry.speed) for entry in subject.entries]
    joined = [(entry, test, speed) for entry, test, speed in pairs if test is not None and speed is not None]
    other: dict[tuple[str, str], list[str]] = {}
    for entry, test, speed in joined:
        precisions = (test.precision, str(speed.content["settings"]["precision"]))
        if precisions[0] != precisions[1]:
            other.setdefault(precisions, []).append(entry.title)
    for (scored, timed), names in other.items():
        yield f"Scored at {plain(scored)}, timed at {plain(timed)}: {_names(names)}."
    sizes = [
        entry.title
        for entry, test, speed in joined
        if (window := _protocol("window")(test)) is not None
        and (size := _input_size(speed)) is not None
        and size != f"{window} x {window}"
    ]
    if sizes:
        yield f"Timed on inputs of another size than the scored windows: {_names(sizes)}."


def _differences(sources: Mapping[Any, Any], readings: Mapping[str, Callable[[Any], Any]]) -> Iterator[str]:
    """Name what is not the same in all sources; sources that do not tell are passed over."""
    for text, read in readings.items():
        values = dict.fromkeys(plain(value, 60) for source in sources.values() if (value := read(source)) is not None)
        if len(values) > 1:
            yield f"{text}: {_names(values)}."


def _protocol(name: str) -> Callable[[Test], Any]:
    """Read a setting; one that is null is a setting too, one that is not there is none."""

    def read(test: Test) -> Any:
        protocol = test.content.get("protocol", {})
        return None if name not in protocol else "not set" if protocol[name] is None else protocol[name]

    return read


def _commit(name: str | None) -> str | None:
    """Shorten a commit, but not the word that tells of changes to it."""
    if name is None:
        return None
    commit, dash, dirty = name.partition("-")
    return f"{commit[:10]}{dash}{dirty}"


def _drift(subject: Subject) -> Iterator[str]:
    """Tell where the unreduced model, timed in every row, was not equally fast in all: there the machine was not."""
    for environment in subject.environments:
        speeds = {id(one.speed): one.speed for one in subject.entries if one.speed and one.environment == environment}
        medians = [speed.row["latency"]["unreduced"]["median_ms"] for speed in speeds.values()]
        if max(medians) > STEADY * min(medians):
            yield (
                f"The unreduced model took {digits(min(medians))} to {digits(max(medians))} ms in different rows "
                f"({environment}): the machine was not equally fast throughout, so compare speed-ups, not latencies."
            )


def _input_size(speed: Speed) -> str | None:
    given = speed.row.get("input")
    return None if given is None else f"{given['size'][0]} x {given['size'][1]}"


def _names(values: Iterable[object]) -> str:
    """List some of the values, each once, and how many more there are."""
    names = list(dict.fromkeys(map(str, values)))
    more = len(names) - NAMED_AT_MOST
    listed = ", ".join(names[:NAMED_AT_MOST])
    return f"{listed} and {more} more" if more > 0 else listed


# --- What is missing ---------------------------------------------------------------------------------


def missing(subjects: Sequence[Subject]) -> list[Missing]:
    """Say what has no result, and which command brings it: for each subject at most one of each kind."""
    return [one for subject in subjects for one in _missing_of(subject)]


def _missing_of(subject: Subject) -> Iterator[Missing]:
    entries = subject.entries
    if not any(entry.unreduced and entry.miou is not None for entry in entries):
        what = f"{subject.title}: no score of the unreduced model, so there are no differences to it"
        config = _config_of(entries)
        yield Missing(what, _command("test", config, "--model.reducer", "null", "--output", "runs/none"))
    untimed = [entry for entry in entries if entry.figures is None]
    if untimed and not all(entry.unreduced for entry in untimed):
        what = f"{subject.title}: no speed of {_names(entry.title for entry in untimed)}"
        config = _config_of([entry for entry in untimed if not entry.unreduced])
        yield Missing(what, _command("benchmark", config, "--output", "runs/speed"))
    unscored = [entry for entry in entries if entry.run.test is None and not entry.unreduced]
    if unscored:
        what = f"{subject.title}: no score of {_names(entry.title for entry in unscored)}"
        yield Missing(what, _command("test", _config_of(unscored), "--output", "runs/scores"))


def _command(subcommand: str, config: str, *words: str) -> str:
    return shlex.join(["python", "-m", "lightning_expedite", subcommand, "--config", config, *words])


def _config_of(entries: Sequence[Entry]) -> str:
    """Find a config of one of the entries: a sweep's, one that ``test`` left, or one of the repository by its name."""
    for entry in entries:
        for source in (entry.run.test, entry.speed):
            if source is None:
                continue
            candidates = [source.path.parent.parent / POINT_FILE, source.path.with_name("config.yaml")]
            name = f"{source.row['config']}.yaml" if isinstance(source, Speed) else f"{source.path.parent.name}.yaml"
            for path in (*candidates, Path("configs") / Path(name).name):
                if path.is_file():
                    return _short(path)
    return "CONFIG.yaml"


def _short(path: Path) -> str:
    """Name a file relative to the current folder, where it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
