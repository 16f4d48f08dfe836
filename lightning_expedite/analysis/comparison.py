"""Runs brought into the form in which they are compared: figures of each beside those of the unreduced model."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median_low
from typing import Any, NamedTuple

from ..text import plain, shortened
from .published import Published, find_published
from .runs import Run, Speed, Test


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Figures:
    """Speed of one setting in one environment.

    GFLOPs are multiply-adds of one window in the published convention, latency is of one window at batch 1 in
    milliseconds, throughput is images per second at ``batch_size``, memory the peak at batch 1 in MiB.
    """

    environment: str
    gflops: float
    flop_ratio: float | None
    latency: Spread
    speedup: Spread | None
    efficiency: float | None
    throughput: float
    batch_size: int
    peak_memory_mib: float | None


@dataclass(frozen=True, eq=False)
class Entry:
    """One row of a report: ``speed`` is where the figures are from, ``baseline`` what the scores are compared with."""

    run: Run
    title: str
    speed: Speed | None
    figures: Figures | None
    baseline: Test | None
    published: Published | None

    @property
    def method(self) -> str:
        """Name of the reducer's class, or ``none``."""
        return plain(self.run.method, 40)

    @property
    def unreduced(self) -> bool:
        """Whether nothing reduces the tokens."""
        return self.run.reducer is None

    @property
    def environment(self) -> str | None:
        """What the times are comparable within; ``None`` where there are none."""
        return self.figures.environment if self.figures else None

    def score(self, name: str) -> float | None:
        """Give mIoU, aAcc or mAcc in percent."""
        return self.run.test.content["scores"][name] if self.run.test else None

    @property
    def miou(self) -> float | None:
        """In percent."""
        return self.score("mIoU")

    @property
    def miou_difference(self) -> float | None:
        """MIoU minus that of the unreduced model, in points; of that model itself there is none."""
        if self.unreduced or self.baseline is None or self.miou is None:
            return None
        without = self.baseline.content["scores"]["mIoU"]
        return None if without is None else self.miou - without


@dataclass(frozen=True)
class Subject:
    """One model on one data set: what can be compared. ``data`` is ``None`` where nothing was scored."""

    checkpoint: str
    data: str | None
    entries: list[Entry]

    @property
    def title(self) -> str:
        """Weights and data in words."""
        return self.checkpoint if self.data is None else f"{self.checkpoint} on {self.data}"

    @property
    def environments(self) -> list[str]:
        """Where times were taken, in the order of the entries."""
        return list(dict.fromkeys(entry.environment for entry in self.entries if entry.environment is not None))

    @property
    def tests(self) -> list[Test]:
        """The scores, each once: a setting timed in several environments has one."""
        tests = {id(entry.run.test): entry.run.test for entry in self.entries if entry.run.test}
        return list(tests.values())

    @property
    def speeds(self) -> list[Speed]:
        """The rows of benchmarks, each once: the one beside which the unreduced model was timed counts for both."""
        speeds = {id(entry.speed): entry.speed for entry in self.entries if entry.speed}
        return list(speeds.values())


def compare(runs: Sequence[Run]) -> list[Subject]:
    """Bring runs of the same weights and data together.

    Where the unreduced model has no benchmark of its own in an environment, its figures are those measured in turns
    with a reducer: of the row whose unreduced latency is the median of all rows.

    Args:
        runs: As `read_runs` gives them.

    Returns:
        The subjects in the order of the runs; in each the unreduced model first, then method by method with the most
        FLOPs first.
    """
    data_of: dict[str, list[str]] = {}
    for run in runs:
        if run.test:
            data_of.setdefault(run.checkpoint, []).append(data_key(run.test))
    grouped: dict[tuple[str, str | None], list[Run]] = {}
    for run in runs:
        data = data_key(run.test) if run.test else next(iter(data_of.get(run.checkpoint, [])), None)
        grouped.setdefault((run.checkpoint, data), []).append(run)
    return [_subject(checkpoint, group) for (checkpoint, _), group in grouped.items()]


def data_key(test: Test) -> str:
    """Give a text that is the same for the same images and labels, wherever they lie on a machine."""
    settings = test.content["config"]["data"].get("init_args") or {}
    return json.dumps([test.data, *(settings.get(name) for name in ("split", "images", "labels"))], default=str)


def data_title(test: Test) -> str:
    """Say which data a test was of."""
    settings = test.content["config"]["data"].get("init_args") or {}
    words = [test.data]
    words += [f"split {settings['split']}"] if settings.get("split") else []
    words += [str(settings["images"])] if settings.get("images") else []
    return plain(", ".join(words))


def _subject(checkpoint: str, runs: Sequence[Run]) -> Subject:
    scored = next((run.test for run in runs if run.test), None)
    without = [run.test for run in runs if run.reducer is None and run.test]
    entries = [*_unreduced(checkpoint, runs), *_reduced(runs)]
    return Subject(
        plain(checkpoint),
        data_title(scored) if scored else None,
        _with_titles([_with_baseline(entry, without) for entry in entries]),
    )


def _reduced(runs: Sequence[Run]) -> list[Entry]:
    found = [run for run in runs if run.reducer is not None]
    methods = list(dict.fromkeys(run.method for run in found))
    entries = [_entry(run, run.speed, "reduced") for run in found]
    return sorted(
        entries, key=lambda entry: (methods.index(entry.run.method), -(entry.figures.gflops if entry.figures else 0))
    )


def _unreduced(checkpoint: str, runs: Sequence[Run]) -> Iterator[Entry]:
    """Give the unreduced model once for each environment, and scores of it that belong to none."""
    own = [run for run in runs if run.reducer is None]
    used = []
    for environment in dict.fromkeys(run.speed.environment for run in runs if run.speed):
        timed = [run for run in own if run.speed and run.speed.environment == environment]
        if not timed:
            beside = _median_row([run.speed for run in runs if run.speed and run.speed.environment == environment])
            precision = beside.content["settings"]["precision"]
            tests = [run.test for run in own if run.test]
            test = max(tests, key=lambda test: test.precision == precision, default=None)
            used.append(test)
            yield _entry(Run("none", checkpoint, None, test, None), beside, "unreduced")
        for run in timed:
            used.append(run.test)
            yield _entry(run, run.speed, "unreduced")
    for run in own:
        if run.speed is None and not any(run.test is test for test in used):
            yield _entry(run, None, "unreduced")


def _median_row(speeds: Sequence[Speed]) -> Speed:
    medians = {speed.row["latency"]["unreduced"]["median_ms"]: speed for speed in reversed(speeds)}
    return medians[median_low(medians)]


def _entry(run: Run, speed: Speed | None, side: str) -> Entry:
    figures = None if speed is None else figures_of(speed, side)
    return Entry(run, plain(run.label), speed, figures, None, find_published(run))


def figures_of(speed: Speed, side: str) -> Figures:
    """Give the figures of one side of a benchmark's row, ``unreduced`` or ``reduced``."""
    row = speed.row
    latency, ratios, reduced = row["latency"][side], row["latency"]["speedup"], side == "reduced"
    return Figures(
        plain(speed.environment),
        row["gflops"][side],
        row["gflops"]["ratio"] if reduced else 1.0,
        Spread(latency["median_ms"], latency["q1_ms"], latency["q3_ms"]),
        Spread(ratios["median"], ratios["q1"], ratios["q3"]) if reduced else None,
        row["efficiency"] if reduced else None,
        row["throughput"][side],
        row["throughput"]["batch_size"],
        row["peak_memory_mib"][side],
    )


def speedup_of(figures: Figures | None) -> float | None:
    """Give the median speed-up; the unreduced model is as fast as itself."""
    if figures is None:
        return None
    return figures.speedup.median if figures.speedup else 1.0


def _with_baseline(entry: Entry, tests: Sequence[Test]) -> Entry:
    """Choose, of several unreduced scores, the one most like the entry's: in protocol, images and precision."""
    own = entry.run.test
    if own is None:
        return entry
    return replace(entry, baseline=max(tests, key=lambda test: _likeness(own.content, test.content), default=None))


def _likeness(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[bool, bool, bool]:
    return (
        one.get("protocol") == other.get("protocol"),
        one["images"] == other["images"],
        one["environment"]["precision"] == other["environment"]["precision"],
    )


def _with_titles(entries: Sequence[Entry]) -> list[Entry]:
    """Tell settings of the same label apart: by their runs' names, and where these are alike too by a number."""
    named = [
        replace(entry, title=f"{entry.title} ({plain(entry.run.name, 40)})") if repeated else entry
        for entry, repeated in zip(entries, _repeated(entries), strict=True)
    ]
    seen: Counter[tuple[str | None, str]] = Counter()
    titled = []
    for entry, repeated in zip(named, _repeated(named), strict=True):
        seen[place(entry)] += 1
        title = f"{entry.title} #{seen[place(entry)]}" if repeated else entry.title
        titled.append(replace(entry, title=shortened(title, 100)))
    return titled


def place(entry: Entry) -> tuple[str | None, str]:
    """Give what tells entries apart: environment and title."""
    return entry.environment, entry.title


def _repeated(entries: Iterable[Entry]) -> list[bool]:
    places = [place(entry) for entry in entries]
    counts = Counter(places)
    return [counts[one] > 1 for one in places]
