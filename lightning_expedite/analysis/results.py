"""The one table of results: what `read_results` returns, ``report`` shows and ``recommend`` chooses from."""

import importlib.resources
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from statistics import median_low
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..errors import DataError
from ..files import BENCHMARK_FILE, FAILURE_FILE, POINT_FILE, RESULTS_FILE
from ..text import plain, shortened
from .comparison import best_baseline, compare_with_baseline, obstacle
from .schema import ClassSpec, Evaluation, FailedRun, Timing, check, read_json, read_result

NUMBERS = (
    *("mIoU", "mIoU_difference", "aAcc", "mAcc", "gflops", "flop_ratio", "latency_ms", "latency_ms_q1"),
    *("latency_ms_q3", "speedup", "speedup_q1", "speedup_q3", "speedup_pairs", "efficiency"),
    *("throughput_images_per_s", "throughput_low", "throughput_speedup", "peak_memory_mib", "published_mIoU"),
    *("published_gflops", "published_speedup"),
)


class Run(NamedTuple):
    """One setting of one model: its scores, its times in one environment, or both."""

    name: str
    checkpoint: str
    reducer: ClassSpec | None
    evaluation: Evaluation | None
    timing: Timing | None


def read_results(paths: Iterable[str | Path]) -> pd.DataFrame:
    """Read results of ``test`` and ``benchmark`` into a table.

    The table has one row per setting and environment. Within each ``subject`` (weights and data set) the baseline is
    first, then one method after the other, with the most FLOPs first. A baseline without a benchmark of its own takes
    the times measured alternately with a reducer, from the row whose baseline latency is the median. A timing takes
    the scores of the same weights and reducer settings, of its own precision and data if there are several.

    Args:
        paths: Files ``results.json`` and ``benchmark.json``, or folders, which are searched at any depth.

    Returns:
        A table with these columns; what was not measured is missing (NaN or ``None``).

        - ``subject``, ``checkpoint``, ``data``, ``setting`` (unique within subject and environment), ``label``,
          ``name`` (of the run), ``method``, ``is_baseline``, ``key`` (the same for the same weights and settings)
        - scores in percent: ``mIoU``, ``aAcc``, ``mAcc``; ``mIoU_difference`` from the baseline in points, with a list
          of those of all classes in ``class_differences``, ``compared_images`` if they are on a part of the images, and
          ``obstacle``, why there are none
        - times: ``environment``, ``latency_ms``, ``speedup`` (both with ``_q1`` and ``_q3``), ``speedup_pairs``,
          ``efficiency``, ``throughput_images_per_s``, ``throughput_low`` (three quarters of the batches were at least
          as fast), ``throughput_speedup``, ``throughput_batch_size``
        - costs: ``gflops`` (published convention), ``flop_ratio``, ``peak_memory_mib``
        - ``published_mIoU``, ``published_gflops``, ``published_speedup`` of the published row with these settings
        - ``on_front``: whether its mIoU can be drawn beside that of the other settings
        - objects: ``reducer``, ``evaluation``, ``timing``

        Its attribute ``attrs["failures"]`` has the name and error of each point and config that failed.

    Raises:
        DataError: A path does not exist, a file is damaged or of another kind, or there is no result.
    """
    folders = [Path(path) for path in paths]
    read = [read_result(file) for file in dict.fromkeys(file.resolve() for file in _find(folders))]
    results = [result for found, _ in read for result in found]
    evaluations = [result for result in results if isinstance(result, Evaluation)]
    runs = list(_pair(evaluations, [result for result in results if isinstance(result, Timing)]))
    if not runs:
        raise DataError(f"no result in {', '.join(map(str, folders)) or 'no path'}: run test or benchmark first")
    data_of = {one.checkpoint: one.data_title for one in reversed(evaluations)}
    groups: dict[tuple[str, str | None], list[Run]] = {}
    for run in runs:
        data = run.evaluation.data_title if run.evaluation else data_of.get(run.checkpoint)
        groups.setdefault((run.checkpoint, data), []).append(run)
    table = pd.DataFrame([row for (_, data), group in groups.items() for row in _rows(group, data)])
    table = table.astype(dict.fromkeys(NUMBERS, float) | {"throughput_batch_size": "Int64", "compared_images": "Int64"})
    table = _with_unique_settings(table)
    failures = [(one.name, one.error) for _, failed in read for one in failed]
    for file in sorted(file for folder in folders for file in folder.rglob(FAILURE_FILE)):
        failure = check(read_json(file), FailedRun, file)
        failures.append((file.parent.name, f"{failure.name}: {failure.error}"))
    table.attrs["failures"] = list(dict.fromkeys(failures))
    return table


def config_of(path: Path) -> Path:
    """Return the config of a results file: that of a sweep's point, or the one that ``test`` leaves beside it."""
    point = _point_of(path)
    config = path.with_name("config.yaml") if point is None else point / POINT_FILE
    return config.relative_to(Path.cwd()) if config.is_relative_to(Path.cwd()) else config


def command(task: str, config: Path, *words: str) -> str:
    """Return a command line with a config."""
    return shlex.join(["python", "-m", "lightning_expedite", task, "--config", str(config), *words])


def _point_of(path: Path) -> Path | None:
    folder = path.parent.parent
    return folder if (folder / POINT_FILE).is_file() else None


def _find(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist: name results.json, benchmark.json or folders that contain them")
        found = (file for name in (RESULTS_FILE, BENCHMARK_FILE) for file in path.rglob(name))
        yield from sorted(found) if path.is_dir() else [path]


def _pair(evaluations: Sequence[Evaluation], timings: Sequence[Timing]) -> Iterator[Run]:
    """Pair the scores and times of the same setting."""
    scored: dict[str, list[Evaluation]] = {}
    for one in evaluations:
        scored.setdefault(_key(one.checkpoint, one.reducer), []).append(one)
    used = set()
    for timing in timings:

        def likeness(one: Evaluation, timing: Timing = timing) -> tuple[bool, bool, bool]:
            beside = one.path.parent.parent == timing.path.parent.parent
            return one.precision == timing.precision, one.data.name == timing.source, beside

        nearest = max(scored.get(_key(timing.checkpoint, timing.reducer), []), key=likeness, default=None)
        used.add(nearest)
        point = (nearest and _point_of(nearest.path)) or _point_of(timing.path)
        yield Run(point.name if point else timing.config, timing.checkpoint, timing.reducer, nearest, timing)
    for one in evaluations:
        if one not in used:
            yield Run((_point_of(one.path) or one.path.parent).name, one.checkpoint, one.reducer, one, None)


def _key(checkpoint: str, reducer: ClassSpec | None) -> str:
    """Return a text that is the same for the same weights and reducer settings."""
    key = None if reducer is None else [reducer.name, _normalized(reducer.settings)]
    return json.dumps([checkpoint, key], sort_keys=True)


def _normalized(value: Any) -> Any:
    """Return a value of JSON with numbers as float."""
    if isinstance(value, dict):
        return {key: _normalized(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_normalized(item) for item in value]
    exact = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53
    return float(value) if exact else value


# --- Rows ------------------------------------------------------------------------------------------------------------


def _rows(runs: Sequence[Run], data: str | None) -> Iterator[dict[str, Any]]:
    """Return the rows of one model on one data set."""
    evaluations = [run.evaluation for run in runs if run.evaluation]
    baselines = list(dict.fromkeys(one for one in evaluations if one.reducer is None))
    reference = next(iter([*baselines, *evaluations]), None)
    checkpoint, data = plain(runs[0].checkpoint), plain(data) if evaluations else None
    reduced = [run for run in runs if run.reducer is not None]
    methods = list(dict.fromkeys(run.reducer.name for run in reduced if run.reducer))

    def order(run: Run) -> tuple[int, float]:
        gflops = run.timing.gflops.reduced if run.timing else None
        return methods.index(run.reducer.name if run.reducer else ""), -(gflops or 0)

    for run in [*_baseline_runs(runs), *sorted(reduced, key=order)]:
        own = run.evaluation
        baseline = None if own is None or run.reducer is None else best_baseline(own, baselines)
        row = {
            **dict.fromkeys((*NUMBERS, "environment", "throughput_batch_size")),
            **dict.fromkeys(("compared_images", "obstacle", "class_differences")),
            "subject": checkpoint if data is None else f"{checkpoint} on {data}",
            "checkpoint": checkpoint,
            "data": data,
            "setting": plain(_label(run.reducer)),
            "label": plain(_label(run.reducer)),
            "name": run.name,
            "method": "none" if run.reducer is None else plain(run.reducer.name, 40),
            "is_baseline": run.reducer is None,
            "key": _key(run.checkpoint, run.reducer),
            **{name: getattr(own, name, None) for name in ("mIoU", "aAcc", "mAcc")},
            **({} if own is None or baseline is None else compare_with_baseline(own, baseline)),
            **(_figures(run.timing, run.reducer is None) if run.timing else {}),
            **find_published(run),
            **{"reducer": run.reducer, "evaluation": own, "timing": run.timing},
        }
        compared = row["compared_images"] is None and row["obstacle"] is None
        row["on_front"] = bool(own and reference and compared and obstacle(own, reference) is None)
        yield row


def _baseline_runs(runs: Sequence[Run]) -> Iterator[Run]:
    """Return the baseline once per environment, and scores of it that belong to none."""
    own = [run for run in runs if run.reducer is None]
    scored = list(dict.fromkeys(run.evaluation for run in own if run.evaluation))
    used = set()
    for environment in dict.fromkeys(run.timing.place for run in runs if run.timing):
        timed = [run for run in own if run.timing and run.timing.place == environment]
        if not timed:
            beside = [run.timing for run in runs if run.timing and run.timing.place == environment]
            medians = {timing.latency.unreduced.median: timing for timing in reversed(beside)}
            timing = medians[median_low(medians)]
            same = [one for one in scored if one.precision == timing.precision]
            nearest = next(iter([*same, *scored]), None)
            name = next((run.name for run in own if run.evaluation is nearest), "none")
            timed = [Run(name, runs[0].checkpoint, None, nearest, timing)]
        used |= {run.evaluation for run in timed}
        yield from timed
    yield from (run for run in own if run.timing is None and run.evaluation not in used)


def _figures(timing: Timing, baseline: bool) -> dict[str, Any]:
    """Return what a benchmark's row measured of the baseline or of the reduced model."""
    variant = "unreduced" if baseline else "reduced"
    latency, gflops = getattr(timing.latency, variant), getattr(timing.gflops, variant)
    seconds = getattr(timing.seconds, variant, None)
    # Files of earlier versions hold one sample of a CPU's resident memory, which two runs of a pass do not repeat.
    sampled = timing.environment.get("device_type") == "cpu" and timing.memory_source is None
    return {
        "environment": plain(timing.place),
        "gflops": gflops,
        "flop_ratio": timing.gflops.unreduced / gflops,
        "latency_ms": latency.median,
        "latency_ms_q1": latency.q1,
        "latency_ms_q3": latency.q3,
        "speedup": 1.0 if baseline else timing.speedup.median,
        "speedup_q1": None if baseline else timing.speedup.q1,
        "speedup_q3": None if baseline else timing.speedup.q3,
        "speedup_pairs": timing.pairs,
        "efficiency": None if baseline else timing.efficiency,
        "throughput_images_per_s": getattr(timing.throughput, variant),
        "throughput_batch_size": timing.batch_size,
        "throughput_low": timing.batch_size / float(np.quantile(seconds, 0.75)) if seconds else None,
        "throughput_speedup": 1.0 if baseline else timing.batch_speedup,
        "peak_memory_mib": None if sampled else getattr(timing.memory, variant, None),
    }


_TELLING = ("location", "locations", "clusters", "keep_rate", "ratio", "query_hashes")


def _label(reducer: ClassSpec | None) -> str:
    """Return the method with its most telling settings."""
    if reducer is None:
        return "baseline"
    settings = reducer.settings
    known = [name for name in _TELLING if name in settings]
    names = known or [name for name, value in settings.items() if not isinstance(value, (dict, type(None)))][:3]
    return f"{reducer.name} {', '.join(f'{name} {_brief(settings[name])}' for name in names)}".rstrip()


def _brief(value: Any) -> str:
    if isinstance(value, list):
        return ("x" if len(value) == 2 else "/").join(map(_brief, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _with_unique_settings(table: pd.DataFrame) -> pd.DataFrame:
    """Add the run's name to settings that are alike, and a number where these are alike too."""
    keys = ["subject", "environment", "setting"]
    names = " (" + table["name"].map(lambda name: plain(name, 40)) + ")"
    table.loc[table.duplicated(keys, keep=False), "setting"] += names
    number = (table.groupby(keys, dropna=False).cumcount() + 1).astype(str)
    table.loc[table.duplicated(keys, keep=False), "setting"] += " #" + number
    table["setting"] = table["setting"].map(lambda setting: shortened(setting, 100))
    return table


# --- Published figures -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def published_tables() -> dict[str, Any]:
    """Return the published rows, their source, and the weights and reducer settings that they belong to."""
    text = importlib.resources.files("lightning_expedite").joinpath("assets/published.json").read_text("utf-8")
    tables: dict[str, Any] = json.loads(text)
    return tables


def find_published(run: Run) -> dict[str, float]:
    """Return the published mIoU in percent, GFLOPs and speed-up for the weights, data set and settings of a run.

    Settings that the published tables do not name must have their usual values; the seed does not matter. A run
    without scores is matched by its weights, since a model is timed on any data.
    """
    tables = published_tables()
    model = tables["models"].get(run.checkpoint)
    if model is None or (run.evaluation is not None and run.evaluation.data.name != model["data"]):
        return {}
    rows = tables["rows"][model["rows"]]
    (baseline,) = (row for row in rows if row["method"] == "none")
    for row in rows:
        method = tables["reducers"].get(row["method"])
        if run.reducer is None or method is None:
            found = run.reducer is None and method is None
        else:
            wanted = {method["names"][name]: value for name, value in row["setting"].items()}
            found = method["class"] == run.reducer.name
            found = found and _same(method["usual"] | wanted, method["usual"] | run.reducer.settings)
        if found:
            speedup = row["fps"] / baseline["fps"]
            return {"published_mIoU": row["mIoU"], "published_gflops": row["gflops"], "published_speedup": speedup}
    return {}


def _same(*settings: Mapping[str, Any]) -> bool:
    """Compare settings without the seed; one number of clusters is used for both rows and columns."""
    one, other = (
        {name: [value, value] if name == "clusters" and not isinstance(value, list) else value for name, value in items}
        for items in (mapping.items() for mapping in settings)
    )
    return one | {"seed": None} == other | {"seed": None}
