"""The measured setting that meets a goal best, and how certain that is."""

import importlib
import inspect
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from ..errors import ConfigError, DataError, ExpediteError
from ..version import __version__
from .bootstrap import RESAMPLES, SEED, bootstrap_losses
from .cautions import differences
from .comparison import ImageCounts, common_counts, obstacle, read_counts
from .results import command, config_of, read_results
from .schema import ClassSpec, Evaluation

_FEW_IMAGES, _FEW_PAIRS = 100, 10
LIMITS = ("max_loss", "min_throughput", "max_latency", "max_memory")
Row = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """Limits, and what decides among the settings that meet them.

    With ``max_loss`` the fastest is wanted, by the cost ``by``; without it the best mIoU.

    Args:
        max_loss: Most points of mIoU lost from the baseline.
        min_throughput: Least images per second.
        max_latency: Most milliseconds at batch 1.
        max_memory: Most MiB of peak memory at batch 1.
        by: What fastest means.
        by_estimate: Judge limits by estimates instead of the confidence bound of the loss and third quartiles of times.
        confidence: Of the loss's bound and interval.

    Raises:
        ConfigError: There is no limit, or a number is out of its range.
    """

    max_loss: float | None = None
    min_throughput: float | None = None
    max_latency: float | None = None
    max_memory: float | None = None
    by: Literal["latency", "throughput", "gflops", "memory"] = "latency"
    by_estimate: bool = False
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not self.limits:
            raise ConfigError(
                "recommend needs a goal: set --max_loss, --min_throughput, --max_latency or --max_memory, or several"
            )
        for name, value in self.limits.items():
            least = "0 or more" if name == "max_loss" else "above 0"
            if not math.isfinite(value) or value < 0 or (value == 0 and name != "max_loss"):
                raise ConfigError(f"--{name} is {value}: it must be {least}")
        if not 0.5 <= self.confidence < 1:
            raise ConfigError(f"--confidence is {self.confidence}: it must be from 0.5 to below 1, such as 0.95")

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set."""
        return {name: getattr(self, name) for name in LIMITS if getattr(self, name) is not None}

    @property
    def fastest(self) -> bool:
        """Whether the fastest setting is wanted, not the best mIoU."""
        return self.max_loss is not None

    def cost(self, row: Row) -> float | None:
        """Return what is to be low; of times the fraction of the baseline's, which was timed alternately."""
        if self.by in ("gflops", "memory"):
            value: float | None = row["gflops" if self.by == "gflops" else "peak_memory_mib"]
            return value
        ratio = row["speedup" if self.by == "latency" else "throughput_speedup"]
        return None if ratio is None else 1 / ratio


@dataclass
class Recommendation:
    """The answer: ``kept`` are the settings that meet all limits, best first, ``nearest`` the others, nearest first.

    They are rows of the table of `read_results`, in which what is missing is ``None``, with more entries: ``counts``
    (of the images that the baseline has too), ``loss`` (points of mIoU), ``interval`` (its confidence interval),
    ``bound`` (one that holds for all settings at once), ``within`` (probability that the loss is within the limit) and
    ``misses`` (the limits that it does not meet: in words, and by which fraction of the limit).
    """

    goal: Goal
    environment: str | None
    images: int
    kept: list[Row]
    nearest: list[Row]
    best_share: float | None = None
    left_out: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def chosen(self) -> Row | None:
        """The recommended setting; ``None`` where nothing meets the limits."""
        return self.kept[0] if self.kept else None

    @property
    def compared(self) -> int:
        """Number of reduced settings."""
        return len(self.kept) + len(self.nearest) - 1


def recommend(paths: Sequence[Path], goal: Goal, environment: str | None = None) -> Recommendation:
    """Read results and find the setting that meets a goal best.

    Args:
        paths: Results, or folders with them.
        goal: What is wanted.
        environment: Part of the environment's text whose times count, if there are several.

    Raises:
        DataError: The results are damaged, or not of one model on one data set, or the baseline's are missing.
        ConfigError: The goal needs times and there are none, or the environment is ambiguous.
    """
    table = read_results(paths)
    tested = sorted(set(table[table["evaluation"].notna()]["subject"]))
    if not tested:
        raise DataError("there are benchmarks but no test among the results: run test for the same configs")
    if len(tested) > 1:
        titles = "; ".join(tested)
        raise DataError(f"the results are of several models or data sets ({titles}): name the paths of one of them")
    own, others = (table[table["subject"].eq(tested[0]) == same] for same in (True, False))
    left_out = list(zip(others["name"], "of other weights, " + others["checkpoint"], strict=True))
    environment = choose_environment(own["environment"].dropna().unique(), environment)
    warnings: list[str] = []
    groups = own.astype(object).where(own.notna(), None).reset_index().groupby("key", sort=False)
    rows = [_one_row(part.to_dict("records"), environment, warnings) for _, part in groups]
    baseline = next((row for row in rows if row["is_baseline"] and row["evaluation"] is not None), None)
    if baseline is None:
        raise DataError(
            f"there is no test of the baseline {own['checkpoint'].iloc[0]} among the results, so no loss is known: "
            "run test with the same config without model.reducer, and name its results too"
        )
    compared = [baseline | {"counts": read_counts(baseline["evaluation"])}]
    images = baseline["evaluation"].images
    for row in rows:
        counts = None if row["is_baseline"] else _comparable_counts(row["evaluation"], baseline["evaluation"])
        if isinstance(counts, str):
            left_out.append((row["name"], counts))
        elif counts is not None:
            compared.append(row | {"counts": counts})
            if len(counts.images) < images:
                text = f"{row['name']} is compared on the {len(counts.images)} images that the baseline has too"
                warnings.append(f"{text}, of {images}")
    warnings += differences(own.loc[[row["index"] for row in compared]])
    notes = []
    if not any(row["speedup"] for row in compared):
        goal = _use_gflops(goal, compared)
        notes = ["nothing was benchmarked: fastest means the fewest GFLOPs, which need not be the shortest time"]
    kept, nearest, best_share = _choose(compared, goal)
    left_out += table.attrs["failures"]
    found = Recommendation(goal, environment, images, kept, nearest, best_share, left_out, warnings, notes)
    found.notes += _notes(found)
    return found


# --- Which settings can be compared ----------------------------------------------------------------------------------


def _comparable_counts(evaluation: Evaluation | None, baseline: Evaluation) -> ImageCounts | str:
    """Return the counts of the images that both have, or why the two cannot be compared."""
    if evaluation is None:
        return "not tested: its scores are not known"
    reason = obstacle(evaluation, baseline)
    tested, reference = evaluation.protocol, baseline.protocol
    for name in {**reference, **tested}:
        if reason is None and tested.get(name) != reference.get(name):
            reason = f"tested with {name} {tested.get(name)}, the baseline with {reference.get(name)}"
    if reason is not None:
        return reason
    pair = common_counts(evaluation, baseline)
    return pair if isinstance(pair, str) else pair[0]


def choose_environment(known: Iterable[str], wanted: str | None) -> str | None:
    """Return the environment whose times count; ``None`` if nothing was benchmarked.

    Raises:
        ConfigError: There are several and ``wanted`` does not name exactly one of them.
    """
    known = sorted(known)
    if wanted is None and len(known) < 2:
        return known[0] if known else None
    listed = "; ".join(known) or "none, since nothing was benchmarked"
    if wanted is None:
        raise ConfigError(f"there are times of several environments; choose one with --environment TEXT: {listed}")
    parts = [text for text in known if wanted.casefold() in text.casefold()]
    matches = [wanted] if wanted in known else parts
    if len(matches) != 1:
        reason = "is part of several" if matches else "is part of none"
        raise ConfigError(f"--environment {wanted!r} {reason} of the environments: {listed}")
    return matches[0]


_TIMES = (
    *("latency_ms", "latency_ms_q3", "speedup", "speedup_q1", "speedup_q3", "speedup_pairs", "peak_memory_mib"),
    *("throughput_images_per_s", "throughput_low", "throughput_speedup", "throughput_batch_size", "gflops"),
)


def _one_row(alike: Sequence[Row], environment: str | None, warnings: list[str]) -> Row:
    """Return one row of all those of a setting, with the times of the environment."""
    timed = [row for row in alike if row["timing"] is not None and row["environment"] == environment]
    chosen = next((row for row in timed if row["evaluation"] is not None), None) or next(iter([*timed, *alike]))
    for column, rows, task, what in (
        ("evaluation", alike, "tested", "scores"),
        ("timing", timed, "benchmarked", "times"),
    ):
        found = {row[column] for row in rows} - {None}
        if len(found) > 1:
            text = f"{chosen['name']} was {task} {len(found)} times; the {what} are those of {chosen[column].path}"
            warnings.append(text)
    return chosen if timed else chosen | dict.fromkeys(_TIMES)


# --- The choice ------------------------------------------------------------------------------------------------------


def _choose(rows: Sequence[Row], goal: Goal) -> tuple[list[Row], list[Row], float | None]:
    """Add losses to rows, the baseline's first, and return those that meet the limits, the others and the best share.

    The share is the probability that the first one has the best mIoU of those that meet the limits.
    """
    losses = bootstrap_losses(rows[0]["counts"], [row["counts"] for row in rows[1:]])
    rows[0].update(loss=0.0, interval=(0.0, 0.0), bound=0.0, within=None if goal.max_loss is None else 1.0)
    for number, (row, bound) in enumerate(zip(rows[1:], losses.upper_bounds(goal.confidence), strict=True)):
        row.update(number=number, loss=float(losses.estimates[number]), bound=float(bound))
        row["interval"] = losses.interval(number, goal.confidence)
        row["within"] = None if goal.max_loss is None else losses.probability(number, goal.max_loss)
    for row in rows:
        row["misses"] = _misses(row, goal)

    def rank(row: Row) -> tuple[float, float]:
        cost = goal.cost(row)
        cost = math.inf if cost is None else cost
        return (cost, row["loss"]) if goal.fastest else (row["loss"], cost)

    kept = sorted((row for row in rows if not row["misses"]), key=rank)
    nearest = [row for row in rows if row["misses"]]
    nearest.sort(key=lambda row: (len(row["misses"]), sum(row["misses"].values())))
    if goal.fastest or not kept or not rows[0]["misses"]:
        return kept, nearest, None
    return kept, nearest, losses.share_smallest(kept[0]["number"], [row["number"] for row in kept])


def _misses(row: Row, goal: Goal) -> dict[str, float]:
    """Return the limits that a setting does not meet, in words, and by which fraction of the limit."""
    misses: dict[str, float] = {}
    estimate = goal.by_estimate
    loss = row["loss" if estimate else "bound"]
    if goal.max_loss is not None and loss > goal.max_loss:
        misses[f"{'loses' if estimate else 'may lose'} {loss:.2f} points"] = (loss - goal.max_loss) / (
            goal.max_loss or 1
        )
    unknown = goal.fastest and goal.cost(row) is None
    if row["speedup"] is None and (unknown or goal.limits.keys() - {"max_loss"}):
        return misses | {"not benchmarked": 1.0}
    if goal.min_throughput is not None:
        rate = row["throughput_images_per_s" if estimate else "throughput_low"]
        if rate is None:
            raise DataError(f"{row['timing'].path}: a row lacks its 'seconds': run benchmark again")
        if rate < goal.min_throughput:
            misses[f"{rate:.4g} images/s"] = goal.min_throughput / rate - 1
    latency, memory = row["latency_ms" if estimate else "latency_ms_q3"], row["peak_memory_mib"]
    for limit, value, unit in ((goal.max_latency, latency, "ms"), (goal.max_memory, memory, "MiB")):
        if limit is not None and value is None:
            misses["its memory is not known"] = 1.0
        elif limit is not None and value > limit:
            misses[f"{value:.4g} {unit}"] = value / limit - 1
    return misses | ({f"no {goal.by} is known": 1.0} if unknown else {})


def _notes(found: Recommendation) -> Iterable[str]:
    """Return what the certainty of the answer rests on."""
    chosen, goal = found.chosen, found.goal
    if found.images < _FEW_IMAGES:
        yield f"{found.images} images are few: intervals of the loss are wide, and themselves rough"
    if chosen is None or chosen["speedup"] is None:
        return
    timed = goal.limits.keys() - {"max_loss"} or goal.by in ("latency", "throughput")
    if timed and 0 < (chosen["speedup_pairs"] or 0) < _FEW_PAIRS:
        pairs = f"{chosen['speedup_pairs']:.0f} passes only"
        yield f"the chosen setting was timed in {pairs}: benchmark it for longer"
    for other in found.kept[1:]:
        slowest = chosen["speedup_q1"] or chosen["speedup"]
        if other["loss"] < chosen["loss"] and (other["speedup_q3"] or 0) >= slowest:
            yield (
                f"{other['name']} is as fast as far as the benchmarks can tell (their speed-ups' quartiles overlap) "
                f"and loses {other['loss']:.2f} points"
            )
    if found.best_share is not None and len(found.kept) > 1:
        yield (
            f"of {len(found.kept)} settings that meet the limits this one has the best mIoU with a probability of "
            f"{found.best_share:.0%}; the mIoU of the best of several is likely a little lower on other images"
        )


# --- Without a benchmark ---------------------------------------------------------------------------------------------


def _use_gflops(goal: Goal, rows: Sequence[Row]) -> Goal:
    """Count the GFLOPs of all rows and return the goal by them.

    Raises:
        ConfigError: The goal has a limit that needs a benchmark.
    """
    needed = [name for name in goal.limits if name != "max_loss"]
    needed += ["by memory"] if goal.by == "memory" and goal.fastest else []
    if needed:
        raise ConfigError(
            f"--{needed[0]} needs times or memory, and nothing was benchmarked: run benchmark for the same configs and "
            "name its results too"
        )
    for row, gflops in zip(rows, count_gflops([row["evaluation"] for row in rows]), strict=True):
        row["gflops"] = gflops
    return replace(goal, by="gflops")


def count_gflops(evaluations: Sequence[Evaluation]) -> list[float | None]:
    """Count GFLOPs of one window, in the published convention; ``None`` where they depend on the images (ACT).

    Raises:
        CheckpointError: The weights are neither known nor there, so that the model's sizes are not known.
    """
    import torch  # only here: results are read where there is no torch

    from ..benchmarking.flops import count_multiply_adds
    from ..models import Segmenter, known_weights, open_checkpoint

    first = evaluations[0]
    known = known_weights(first.checkpoint)
    sizes = known.architecture if known is not None else None
    if sizes is None:
        sizes = open_checkpoint(first.checkpoint, first.weights_folder).architecture
    with torch.device("meta"):
        model = Segmenter(sizes, first.protocol["convention"]).eval()
    window = first.protocol["window"]
    image = torch.empty(1, 3, window, window, device="meta")
    counts: list[float | None] = []
    for evaluation in evaluations:
        model.reducer = None if evaluation.reducer is None else make_reducer(evaluation.reducer)
        unknown = model.reducer is not None and model.reducer.shapes_depend_on_content
        counts.append(None if unknown else count_multiply_adds(model, image) / 1e9)
    return counts


def make_reducer(spec: ClassSpec) -> Any:
    """Create a reducer from its class path and settings.

    Raises:
        ExpediteError: The class does not exist, is not a reducer, or does not take these settings.
    """
    from ..reducers.base import Reducer

    module, _, name = spec.class_path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module or "lightning_expedite.reducers"), name)
    except (ImportError, AttributeError) as error:
        raise ExpediteError(f"the reducer {spec.class_path} of a result cannot be imported: {error}") from error
    if not (inspect.isclass(kind) and issubclass(kind, Reducer)):  # else a results file could call anything
        raise ExpediteError(f"{spec.class_path}, which a result names as its reducer, is not a reducer")
    try:
        return kind(**spec.settings)
    except TypeError as error:
        raise ExpediteError(
            f"the reducer {spec.class_path} of a result no longer takes its settings: {error}"
        ) from error


# --- As data ---------------------------------------------------------------------------------------------------------

_SPEED = {
    "latency_ms": "latency_ms",
    "slow_latency_ms": "latency_ms_q3",
    "pairs": "speedup_pairs",
    "throughput": "throughput_images_per_s",
    "low_throughput": "throughput_low",
    "batch_size": "throughput_batch_size",
    "batch_speedup": "throughput_speedup",
    "memory_mib": "peak_memory_mib",
}


def content_of(found: Recommendation) -> dict[str, Any]:
    """Return a recommendation in JSON's types."""
    chosen = found.chosen
    return {
        "kind": "recommendation",
        "lightning_expedite": __version__,
        "goal": asdict(found.goal),
        "environment": found.environment,
        "bootstrap": {"resamples": RESAMPLES, "seed": SEED, "images": found.images},
        "settings_compared": found.compared,
        "reduced_setting_found": chosen is not None and not chosen["is_baseline"],
        "recommended": None if chosen is None else _describe(chosen),
        "config": None if chosen is None else str(config_of(chosen["evaluation"].path)),
        "commands": None if chosen is None else commands_of(chosen),
        "best_share": found.best_share,
        "others": [_describe(row) for row in found.kept[1:]],
        "nearest": [_describe(row) for row in found.nearest],
        "left_out": [{"name": name, "reason": reason} for name, reason in found.left_out],
        "warnings": found.warnings,
        "notes": found.notes,
    }


def _describe(row: Row) -> dict[str, Any]:
    quartiles = [row["speedup"], row["speedup_q1"] or 1.0, row["speedup_q3"] or 1.0]
    speed = {name: row[column] for name, column in _SPEED.items()} | {"speedup": quartiles}
    return {
        **{name: row[name] for name in ("name", "label", "loss", "gflops")},
        "reducer": None if row["reducer"] is None else row["reducer"].model_dump(),
        "mIoU": row["counts"].miou,
        "loss_interval": list(row["interval"]),
        "loss_bound_of_all": row["bound"],
        "probability_within": row["within"],
        "speed": None if row["speedup"] is None else speed,
        "misses": list(row["misses"]),
        "results": str(row["evaluation"].path),
    }


def commands_of(row: Row) -> dict[str, str]:
    """Return the command lines that score and that label with a setting."""
    tasks = {"test": (), "predict": ("--overlay",)}
    config = config_of(row["evaluation"].path)
    return {
        task: command(task, config, *words, "--output", f"runs/{row['name']}_{task}") for task, words in tasks.items()
    }


def config_text(row: Row) -> str:
    """Return all settings of a test as YAML that ``--config`` takes."""
    path = row["evaluation"].path
    header = f"# {row['label']}: all settings of {path}\n"
    return header + yaml.safe_dump(json.loads(path.read_bytes())["config"], sort_keys=False, allow_unicode=True)
