"""Which of the measured settings can be compared with the unreduced model, and with what reservations."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError
from .counts import ImageCounts, read_counts
from .runs import FAILURE_FILE, POINT_FILE, Run, Speed, Test, setting_key
from .speed import SpeedFigures, figures_of

UNREDUCED = "none"


@dataclass(frozen=True)
class Candidate:
    """A setting with its scores and, where it was benchmarked, its speed."""

    name: str
    label: str
    reducer: Mapping[str, Any] | None
    test: Test
    counts: ImageCounts
    speed: SpeedFigures | None
    gflops: float | None

    @property
    def point(self) -> Path | None:
        """The config that a sweep keeps beside the results, where there is one."""
        path = self.test.path.parent.parent / POINT_FILE
        return path if path.is_file() else None


@dataclass
class Field:
    """The unreduced model, what can be compared with it, what cannot and why, and what to keep in mind."""

    unreduced: Candidate
    reduced: list[Candidate]
    environment: str | None
    left_out: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def gather(runs: Sequence[Run], environment: str | None = None) -> Field:
    """Bring the runs of one model on one data set together.

    Args:
        runs: As `read_runs` gives them.
        environment: Part of the environment's text whose speeds count; needed where there are several.

    Raises:
        DataError: There are several models or data sets, no test of the unreduced model, or a damaged file.
        ConfigError: Which environment is meant is not clear.
    """
    checkpoint = _only_model(runs)
    left_out = [(name_of(run), f"of other weights, {run.checkpoint}") for run in runs if run.checkpoint != checkpoint]
    runs = [run for run in runs if run.checkpoint == checkpoint]
    chosen = choose_environment(runs, environment)
    warnings: list[str] = []
    found = [_one_run(alike, chosen, warnings) for alike in _by_setting(runs)]
    baseline = next((run for run in found if run.reducer is None and run.test is not None), None)
    if baseline is None:
        raise DataError(
            f"there is no test of the unreduced model {checkpoint} among the results, so no loss is known: run test "
            "with the same config without model.reducer, and name its results too"
        )
    unreduced = _candidate(baseline, beside=next((run.speed for run in found if run.speed is not None), None))
    result = Field(unreduced, [], chosen, left_out, warnings)
    for run in found:
        if run.reducer is not None:
            _enter(run, result)
    _warn_of_speed(found, result)
    return result


def _enter(run: Run, result: Field) -> None:
    if run.test is None:
        result.left_out.append((name_of(run), "not tested: its scores are not known"))
        return
    candidate = _candidate(run)
    obstacle = incomparable(candidate, result.unreduced)
    if obstacle:
        result.left_out.append((candidate.name, obstacle))
        return
    result.reduced.append(candidate)
    result.warnings += reservations(candidate, result.unreduced)


def read_failures(paths: Iterable[Path]) -> list[tuple[str, str]]:
    """List the points of sweeps that failed: names and reasons."""
    failures = []
    for path in paths:
        for file in sorted(path.rglob(FAILURE_FILE)) if path.is_dir() else ():
            try:
                content = json.loads(file.read_bytes())
                failures.append((file.parent.name, f"{content['step']} failed: {content['error']}"))
            except (OSError, ValueError, KeyError, TypeError):
                failures.append((file.parent.name, f"failed; {file} cannot be read"))
    return failures


def name_of(run: Run) -> str:
    """Give a run's name: of a sweep's point that of its folder, as all its files are named alike."""
    for result in (run.test, run.speed):
        if result is not None and (result.path.parent.parent / POINT_FILE).is_file():
            return result.path.parent.parent.name
    return run.name


def choose_environment(runs: Sequence[Run], wanted: str | None) -> str | None:
    """Choose what times are taken from; ``None`` where nothing was benchmarked.

    Raises:
        ConfigError: There are several and ``wanted`` does not tell one of them.
    """
    known = sorted({run.speed.environment for run in runs if run.speed is not None})
    if wanted is None and len(known) < 2:
        return known[0] if known else None
    matches = [text for text in known if wanted == text] or [
        text for text in known if wanted is not None and wanted.casefold() in text.casefold()
    ]
    if len(matches) == 1:
        return matches[0]
    listed = "; ".join(known) or "none, as nothing was benchmarked"
    if wanted is None:
        raise ConfigError(f"times of several environments are there; choose one with --environment TEXT: {listed}")
    reason = "is part of several" if matches else "is part of no"
    raise ConfigError(f"--environment {wanted!r} {reason} of the environments: {listed}")


def incomparable(candidate: Candidate, unreduced: Candidate) -> str | None:
    """Say why a setting's scores cannot be compared with the unreduced model's; ``None`` where they can."""
    mine, its = candidate.counts, unreduced.counts
    if mine.images != its.images:
        return f"tested on other images than {unreduced.name}: {_difference(mine, its)}"
    if mine.label.shape != its.label.shape or (mine.label != its.label).any():
        return f"tested with other labels or classes than {unreduced.name}"
    protocols = candidate.test.content.get("protocol", {}), unreduced.test.content.get("protocol", {})
    differing = [key for key in {**protocols[1], **protocols[0]} if protocols[0].get(key) != protocols[1].get(key)]
    if differing:
        key = differing[0]
        return f"tested with {key} {protocols[0].get(key)}, {unreduced.name} with {protocols[1].get(key)}"
    return None


def reservations(candidate: Candidate, unreduced: Candidate) -> list[str]:
    """Say what makes a comparison with the unreduced model less than clean."""
    mine, its = candidate.test.content["environment"], unreduced.test.content["environment"]
    return [
        f"{candidate.name} was tested with {key} {mine.get(key)}, {unreduced.name} with {its.get(key)}: part of the "
        "difference may come from that"
        for key in ("precision", "device", "torch", "lightning_expedite")
        if mine.get(key) != its.get(key)
    ]


def _difference(mine: ImageCounts, its: ImageCounts) -> str:
    names, others = {image[1] for image in mine.images}, {image[1] for image in its.images}
    if names == others:
        return "the same names in another order, or of other sizes"
    missing, more = sorted(others - names), sorted(names - others)
    parts = [f"{len(missing)} are missing, such as {missing[0]}"] if missing else []
    return " and ".join([*parts, *([f"{len(more)} are more, such as {more[0]}"] if more else [])])


def _only_model(runs: Sequence[Run]) -> str:
    tested = sorted({(run.checkpoint, run.test.data) for run in runs if run.test is not None})
    if not tested:
        raise DataError("there are benchmarks but no test among the results: run test for the same configs")
    if len(tested) > 1:
        listed = "; ".join(f"{checkpoint} on {data}" for checkpoint, data in tested)
        raise DataError(f"the results are of several models or data sets ({listed}): give the paths of one of them")
    return tested[0][0]


def _by_setting(runs: Sequence[Run]) -> list[list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(setting_key(run.checkpoint, run.reducer), []).append(run)
    return list(groups.values())


def _one_run(alike: Sequence[Run], environment: str | None, warnings: list[str]) -> Run:
    """Make one run of all those of a setting: with the speed in the environment, and the test that goes with it."""
    timed = [run for run in alike if run.speed is not None and run.speed.environment == environment]
    chosen = next((run for run in timed if run.test is not None), None) or next(iter([*timed, *alike]))
    test = chosen.test or next((run.test for run in alike if run.test is not None), None)
    name = name_of(chosen)
    others = {run.test.path for run in alike if run.test is not None}
    if test is not None and len(others) > 1:
        warnings.append(f"{name} was tested {len(others)} times; the scores are those of {test.path}")
    if len(timed) > 1:
        assert chosen.speed is not None
        warnings.append(f"{name} was benchmarked {len(timed)} times; the times are those of {chosen.speed.path}")
    return replace(chosen, test=test, speed=chosen.speed if timed else None)


def _candidate(run: Run, beside: Speed | None = None) -> Candidate:
    """Make a candidate; the unreduced model was also timed ``beside`` any other that was."""
    assert run.test is not None
    timed = run.speed or beside
    speed = None if timed is None else figures_of(timed, unreduced=run.reducer is None)
    counts = read_counts(run.test)
    return Candidate(
        name_of(run), run.label, run.reducer, run.test, counts, speed, None if speed is None else speed.gflops
    )


def _warn_of_speed(runs: Sequence[Run], result: Field) -> None:
    speeds = [run.speed for run in runs if run.speed is not None]
    inputs = {str((speed.row.get("input") or {}).get("size")) for speed in speeds}
    if len(inputs) > 1:
        result.warnings.append(f"the benchmarks are of inputs of different sizes: {', '.join(sorted(inputs))}")
    batches = {speed.row["throughput"]["batch_size"] for speed in speeds}
    if len(batches) > 1:
        result.warnings.append(f"images/s are at batches of different sizes: {', '.join(map(str, sorted(batches)))}")
    if any(speed.row["model"].get("untrained") for speed in speeds):
        result.warnings.append("some benchmarks are of untrained weights: the times of ACT then mean nothing")
    own = [speed.row["latency"]["unreduced"]["median_ms"] for speed in speeds]
    if own and max(own) > 1.1 * min(own):
        result.warnings.append(
            f"the unreduced model's own latency was {min(own):.4g} to {max(own):.4g} ms in the different benchmarks: "
            "limits in ms or images/s are as uncertain; speed-ups, which decide what is fastest, are not"
        )
    precisions = {speed.content["settings"]["precision"] for speed in speeds}
    tested = {result.unreduced.test.precision, *(candidate.test.precision for candidate in result.reduced)}
    if precisions and tested != precisions:
        result.warnings.append(
            f"scores are at precision {', '.join(sorted(tested))}, times at {', '.join(sorted(precisions))}"
        )
    images = result.unreduced.test.content
    if not images.get("complete", True):
        result.warnings.append(
            f"only {images['images']} of the data set's {images['images_total']} images were tested: the confidence "
            "holds for images like these"
        )
