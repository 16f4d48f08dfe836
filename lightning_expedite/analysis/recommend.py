"""The measured setting that meets a goal best, and how certain that is."""

import importlib
import inspect
import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
import yaml

from ..errors import ConfigError, DataError, ExpediteError
from ..files import POINT_FILE
from ..version import __version__
from .bootstrap import RESAMPLES, SEED, Losses, bootstrap_losses
from .cautions import cautions
from .comparison import ImageCounts, common_counts, obstacle, protocol_difference, read_counts
from .results import point_of, read_failures, read_results, setting_key
from .schema import ClassSpec, Evaluation

BASELINE = "none"
"""Name of the baseline among a sweep's points."""
Cost = Literal["latency", "throughput", "gflops", "memory"]
COSTS: tuple[Cost, ...] = get_args(Cost)
_FEW_IMAGES, _FEW_PAIRS = 100, 10


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
    by: Cost = "latency"
    by_estimate: bool = False
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.limits == ():
            raise ConfigError(
                "recommend needs a goal: set --max_loss, --min_throughput, --max_latency or --max_memory, or several"
            )
        for name in self.limits:
            value = getattr(self, name)
            least = "0 or more" if name == "max_loss" else "above 0"
            if not math.isfinite(value) or value < 0 or (value == 0 and name != "max_loss"):
                raise ConfigError(f"--{name} is {value}: it must be {least}")
        if not 0.5 <= self.confidence < 1:
            raise ConfigError(f"--confidence is {self.confidence}: it must be from 0.5 to below 1, such as 0.95")

    @property
    def limits(self) -> tuple[str, ...]:
        """Names of the limits that are set."""
        names = ("max_loss", "min_throughput", "max_latency", "max_memory")
        return tuple(name for name in names if getattr(self, name) is not None)

    @property
    def speed_limits(self) -> tuple[str, ...]:
        """Names of those that need a benchmark."""
        return tuple(name for name in self.limits if name != "max_loss")

    @property
    def fastest(self) -> bool:
        """Whether the fastest setting is wanted, not the best mIoU."""
        return self.max_loss is not None


@dataclass(frozen=True)
class Candidate:
    """A scored setting: its row of the results table, and the counts of the images that the baseline has too."""

    row: Mapping[str, Any]
    counts: ImageCounts

    @property
    def name(self) -> str:
        """Name of the run."""
        return str(self.row["name"])

    @property
    def is_baseline(self) -> bool:
        """Whether it has no reducer."""
        return bool(self.row["is_baseline"])

    @property
    def timed(self) -> bool:
        """Whether it was benchmarked."""
        return self.row["latency_ms"] is not None

    @property
    def config(self) -> Path:
        """A sweep's config of the point, or the one beside the results; relative to the current folder if below it."""
        results: Path = self.row["evaluation"].path
        point = point_of(results)
        path = results.with_name("config.yaml") if point is None else point / POINT_FILE
        return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path

    @property
    def commands(self) -> dict[str, str]:
        """The command lines that score and that label with this setting."""
        words: dict[str, list[str]] = {"test": [], "predict": ["--overlay"]}
        program = ["python", "-m", "lightning_expedite"]
        config = ["--config", str(self.config)]
        return {
            task: shlex.join([*program, task, *config, *more, "--output", f"runs/{self.name}_{task}"])
            for task, more in words.items()
        }

    def cost(self, by: Cost) -> float | None:
        """Return what is to be low; of times the fraction of the baseline's, which was timed alternately."""
        if by in ("gflops", "memory"):
            value: float | None = self.row["gflops" if by == "gflops" else "peak_memory_mib"]
            return value
        ratio = self.row["speedup" if by == "latency" else "throughput_speedup"]
        return None if ratio is None else 1 / ratio


@dataclass(frozen=True)
class Verdict:
    """A candidate in view of a goal.

    ``loss`` is in points of mIoU, ``interval`` its confidence interval, ``bound`` its bound that holds for all settings
    at once, ``within`` the probability that it is within the goal's limit. ``misses`` are the limits that it does not
    meet: in words, and by which fraction of the limit.
    """

    candidate: Candidate
    loss: float
    interval: tuple[float, float]
    bound: float
    within: float | None
    misses: tuple[tuple[str, float], ...]


@dataclass
class Recommendation:
    """The answer: ``kept`` are the settings that meet all limits, best first, ``nearest`` the others, nearest first."""

    goal: Goal
    environment: str | None
    baseline: Candidate
    reduced: list[Candidate]
    kept: list[Verdict] = field(default_factory=list)
    nearest: list[Verdict] = field(default_factory=list)
    best_share: float | None = None
    left_out: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def chosen(self) -> Verdict | None:
        """The recommended setting; ``None`` where nothing meets the limits."""
        return self.kept[0] if self.kept else None


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
    found = collect_candidates(read_results(paths), goal, environment)
    found.left_out += read_failures(paths)
    if not any(candidate.timed for candidate in [found.baseline, *found.reduced]):
        _use_gflops(found)
    losses = bootstrap_losses(found.baseline.counts, [candidate.counts for candidate in found.reduced])
    choose(found, losses)
    _add_notes(found)
    return found


# --- Which settings can be compared ----------------------------------------------------------------------------------


def collect_candidates(table: pd.DataFrame, goal: Goal, environment: str | None) -> Recommendation:
    """Collect the settings that can be compared with the baseline; see `recommend`."""
    tested = sorted(set(table[table["evaluation"].notna()]["subject"]))
    if not tested:
        raise DataError("there are benchmarks but no test among the results: run test for the same configs")
    if len(tested) > 1:
        raise DataError(
            f"the results are of several models or data sets ({'; '.join(tested)}): name the paths of one of them"
        )
    others = table[table["subject"] != tested[0]]
    left_out = list(zip(others["name"], "of other weights, " + others["checkpoint"], strict=True))
    table = table[table["subject"] == tested[0]]
    environment = choose_environment(table["environment"].dropna().unique(), environment)
    groups: dict[str, list[dict[str, Any]]] = {}
    for index, row in zip(table.index, table.astype(object).where(table.notna(), None).to_dict("records"), strict=True):
        run = row["run"]
        groups.setdefault(setting_key(run.checkpoint, run.reducer), []).append({**row, "index": index})
    warnings: list[str] = []
    rows = [_one_row(alike, environment, warnings) for alike in groups.values()]
    baseline = next((row for row in rows if row["is_baseline"] and row["evaluation"] is not None), None)
    if baseline is None:
        raise DataError(
            f"there is no test of the baseline {table['checkpoint'].iloc[0]} among the results, so no loss is known: "
            "run test with the same config without model.reducer, and name its results too"
        )
    counts = read_counts(baseline["evaluation"])
    found = Recommendation(goal, environment, Candidate(baseline, counts), [], left_out=left_out, warnings=warnings)
    for row in rows:
        if not row["is_baseline"]:
            pair = _comparable_counts(row["evaluation"], baseline["evaluation"])
            if isinstance(pair, str):
                found.left_out.append((row["name"], pair))
            else:
                found.reduced.append(Candidate(row, pair))
                if len(pair.images) < len(counts.images):
                    text = f"{row['name']} is compared on the {len(pair.images)} images that the baseline has too"
                    found.warnings.append(f"{text}, of {len(counts.images)}")
    kept = [candidate.row["index"] for candidate in [found.baseline, *found.reduced]]
    found.warnings += cautions(table.loc[kept].assign(compared_images=pd.NA, obstacle=None, on_front=True))
    return found


def _comparable_counts(evaluation: Evaluation | None, baseline: Evaluation) -> ImageCounts | str:
    """Return the counts of the images that both have, or why the two cannot be compared."""
    if evaluation is None:
        return "not tested: its scores are not known"
    reason = obstacle(evaluation, baseline) or protocol_difference(evaluation, baseline)
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
    matches = [text for text in known if wanted == text] or [
        text for text in known if wanted is not None and wanted.casefold() in text.casefold()
    ]
    if len(matches) == 1:
        return matches[0]
    listed = "; ".join(known) or "none, since nothing was benchmarked"
    if wanted is None:
        raise ConfigError(f"there are times of several environments; choose one with --environment TEXT: {listed}")
    reason = "is part of several" if matches else "is part of none"
    raise ConfigError(f"--environment {wanted!r} {reason} of the environments: {listed}")


_TIMES = (
    *("latency_ms", "latency_ms_q3", "speedup", "speedup_q1", "speedup_q3", "speedup_pairs", "peak_memory_mib"),
    *("throughput_images_per_s", "throughput_low", "throughput_speedup", "throughput_batch_size", "gflops"),
)


def _one_row(alike: Sequence[dict[str, Any]], environment: str | None, warnings: list[str]) -> dict[str, Any]:
    """Return one row of all those of a setting, with the times of the environment."""
    timed = [row for row in alike if environment is not None and row["environment"] == environment]
    chosen = next((row for row in timed if row["evaluation"] is not None), None) or next(iter([*timed, *alike]))
    tests = {row["evaluation"] for row in alike if row["evaluation"] is not None}
    if len(tests) > 1:
        text = f"{chosen['name']} was tested {len(tests)} times; the scores are those of "
        warnings.append(text + str(chosen["evaluation"].path))
    if len({row["timing"] for row in timed}) > 1:
        text = f"{chosen['name']} was benchmarked {len(timed)} times; the times are those of "
        warnings.append(text + str(chosen["timing"].path))
    return chosen if timed else {**chosen, **dict.fromkeys(_TIMES)}


# --- The choice ------------------------------------------------------------------------------------------------------


def choose(found: Recommendation, losses: Losses) -> None:
    """Judge all settings and rank them; ``losses`` are those of ``found.reduced``."""
    goal = found.goal
    within = None if goal.max_loss is None else 1.0
    verdicts = [Verdict(found.baseline, 0.0, (0.0, 0.0), 0.0, within, _misses(found.baseline, 0.0, goal))]
    for number, (candidate, bound) in enumerate(zip(found.reduced, losses.upper_bounds(goal.confidence), strict=True)):
        loss = float(losses.estimates[number])
        verdicts.append(
            Verdict(
                candidate,
                loss,
                losses.interval(number, goal.confidence),
                float(bound),
                None if goal.max_loss is None else losses.probability(number, goal.max_loss),
                _misses(candidate, loss if goal.by_estimate else float(bound), goal),
            )
        )

    def rank(verdict: Verdict) -> tuple[float, float]:
        cost = verdict.candidate.cost(goal.by)
        cost = math.inf if cost is None else cost
        return (cost, verdict.loss) if goal.fastest else (verdict.loss, cost)

    found.kept = sorted((verdict for verdict in verdicts if not verdict.misses), key=rank)
    found.nearest = sorted(
        (verdict for verdict in verdicts if verdict.misses),
        key=lambda verdict: (len(verdict.misses), sum(share for _, share in verdict.misses)),
    )
    if not goal.fastest and found.kept and not any(verdict.candidate.is_baseline for verdict in found.kept):
        among = [found.reduced.index(verdict.candidate) for verdict in found.kept]
        found.best_share = losses.share_smallest(among[0], among)


def _misses(candidate: Candidate, loss: float, goal: Goal) -> tuple[tuple[str, float], ...]:
    """Return the limits that a setting does not meet, given the loss that it is judged by."""
    misses: list[tuple[str, float]] = []
    row = candidate.row
    if goal.max_loss is not None and loss > goal.max_loss:
        what = "loses" if goal.by_estimate else "may lose"
        misses.append((f"{what} {loss:.2f} points", (loss - goal.max_loss) / (goal.max_loss or 1)))
    if not candidate.timed and (goal.speed_limits or (goal.fastest and candidate.cost(goal.by) is None)):
        return (*misses, ("not benchmarked", 1.0))
    if goal.min_throughput is not None:
        rate = row["throughput_images_per_s" if goal.by_estimate else "throughput_low"]
        if rate is None:
            raise DataError(f"{row['timing'].path}: a row lacks its 'seconds': run benchmark again")
        if rate < goal.min_throughput:
            misses.append((f"{rate:.4g} images/s", goal.min_throughput / rate - 1))
    for limit, key, unit in (
        (goal.max_latency, "latency_ms" if goal.by_estimate else "latency_ms_q3", "ms"),
        (goal.max_memory, "peak_memory_mib", "MiB"),
    ):
        value = row[key]
        if limit is not None and value is None:
            misses.append(("its memory is not known", 1.0))
        elif limit is not None and value > limit:
            misses.append((f"{value:.4g} {unit}", value / limit - 1))
    if goal.fastest and candidate.cost(goal.by) is None:
        misses.append((f"no {goal.by} is known", 1.0))
    return tuple(misses)


def _add_notes(found: Recommendation) -> None:
    """Note what the certainty of the answer rests on."""
    images, chosen, goal = len(found.baseline.counts.images), found.chosen, found.goal
    if images < _FEW_IMAGES:
        found.notes.append(f"{images} images are few: intervals of the loss are wide, and themselves rough")
    if chosen is None or not chosen.candidate.timed:
        return
    row = chosen.candidate.row
    pairs = row["speedup_pairs"]
    if pairs is not None and 0 < pairs < _FEW_PAIRS and (goal.speed_limits or goal.by in ("latency", "throughput")):
        found.notes.append(f"the chosen setting was timed in {pairs:.0f} passes only: benchmark it for longer")
    for other in found.kept[1:]:
        name, fastest = other.candidate.name, other.candidate.row["speedup_q3"]
        slowest = row["speedup_q1"] or row["speedup"]
        if fastest is not None and fastest >= slowest and other.loss < chosen.loss:
            found.notes.append(
                f"{name} is as fast as far as the benchmarks can tell (their speed-ups' quartiles overlap) and loses "
                f"{other.loss:.2f} points"
            )
    if found.best_share is not None and len(found.kept) > 1:
        found.notes.append(
            f"of {len(found.kept)} settings that meet the limits this one has the best mIoU with a probability of "
            f"{found.best_share:.0%}; the mIoU of the best of several is likely a little lower on other images"
        )


# --- Without a benchmark ---------------------------------------------------------------------------------------------


def _use_gflops(found: Recommendation) -> None:
    """Rank by GFLOPs where nothing was benchmarked.

    Raises:
        ConfigError: The goal has a limit that needs a benchmark.
    """
    goal = found.goal
    needed = [*goal.speed_limits, *(["by memory"] if goal.by == "memory" and goal.fastest else [])]
    if needed:
        raise ConfigError(
            f"--{needed[0]} needs times or memory, and nothing was benchmarked: run benchmark for the same configs and "
            "name its results too"
        )
    found.goal = replace(goal, by="gflops")
    counted = count_gflops([candidate.row["evaluation"] for candidate in [found.baseline, *found.reduced]])
    found.baseline, *found.reduced = (
        replace(candidate, row={**candidate.row, "gflops": gflops})
        for candidate, gflops in zip([found.baseline, *found.reduced], counted, strict=True)
    )
    found.notes.append("nothing was benchmarked: fastest means the fewest GFLOPs, which need not be the shortest time")


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


def content_of(found: Recommendation) -> dict[str, Any]:
    """Return a recommendation in JSON's types."""
    chosen = found.chosen
    return {
        "kind": "recommendation",
        "lightning_expedite": __version__,
        "goal": asdict(found.goal),
        "environment": found.environment,
        "bootstrap": {"resamples": RESAMPLES, "seed": SEED, "images": len(found.baseline.counts.images)},
        "settings_compared": len(found.reduced),
        "reduced_setting_found": chosen is not None and not chosen.candidate.is_baseline,
        "recommended": None if chosen is None else describe(chosen),
        "config": None if chosen is None else str(chosen.candidate.config),
        "commands": None if chosen is None else chosen.candidate.commands,
        "best_share": found.best_share,
        "others": [describe(verdict) for verdict in found.kept[1:]],
        "nearest": [describe(verdict) for verdict in found.nearest],
        "left_out": [{"name": name, "reason": reason} for name, reason in found.left_out],
        "warnings": found.warnings,
        "notes": found.notes,
    }


def describe(verdict: Verdict) -> dict[str, Any]:
    """Return what is known of a setting; losses in points of mIoU."""
    candidate, row = verdict.candidate, verdict.candidate.row
    reducer = row["run"].reducer
    speed = {
        "latency_ms": row["latency_ms"],
        "slow_latency_ms": row["latency_ms_q3"],
        "speedup": [row["speedup"], row["speedup_q1"] or 1.0, row["speedup_q3"] or 1.0],
        "pairs": row["speedup_pairs"],
        "throughput": row["throughput_images_per_s"],
        "low_throughput": row["throughput_low"],
        "batch_size": row["throughput_batch_size"],
        "batch_speedup": row["throughput_speedup"],
        "memory_mib": row["peak_memory_mib"],
    }
    return {
        "name": candidate.name,
        "label": row["label"],
        "reducer": None if reducer is None else reducer.model_dump(),
        "mIoU": candidate.counts.miou,
        "loss": verdict.loss,
        "loss_interval": list(verdict.interval),
        "loss_bound_of_all": verdict.bound,
        "probability_within": verdict.within,
        "gflops": row["gflops"],
        "speed": speed if candidate.timed else None,
        "misses": [text for text, _ in verdict.misses],
        "results": str(row["evaluation"].path),
    }


def config_text(candidate: Candidate) -> str:
    """Return all settings of a test as YAML that ``--config`` takes."""
    path = candidate.row["evaluation"].path
    header = f"# {candidate.row['label']}: all settings of {path}\n"
    return header + yaml.safe_dump(json.loads(path.read_bytes())["config"], sort_keys=False, allow_unicode=True)
