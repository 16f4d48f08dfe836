"""A recommendation as data: for ``--json``, and for what is shown."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError
from ..version import __version__
from .bootstrap import RESAMPLES, SEED, Losses, bootstrap_losses
from .candidates import Candidate, Field, gather, read_failures
from .choose import Choice, Verdict, choose, close_calls
from .counting import with_gflops
from .goals import Goal
from .runs import read_runs

CONFIG_FILE = "config.yaml"
_FEW_IMAGES, _FEW_PAIRS = 100, 10


@dataclass(frozen=True)
class Answer:
    """All that there is to say about a goal."""

    goal: Goal
    field: Field
    losses: Losses
    choice: Choice
    notes: list[str]


def answer(paths: Sequence[Path], goal: Goal, environment: str | None = None) -> Answer:
    """Read results and find the setting that meets a goal best.

    Args:
        paths: Results, or folders with them.
        goal: What is wanted.
        environment: Whose times count, where there are several.

    Raises:
        DataError: The results are damaged, or not of one model on one data set, or the unreduced model's are missing.
        ConfigError: The goal needs times and there are none, or the environment is not clear.
    """
    field = gather(read_runs(paths), environment)
    field.left_out.extend(read_failures(paths))
    goal, field, notes = settle_cost(goal, field)
    losses = bootstrap_losses(field.unreduced.counts, [candidate.counts for candidate in field.reduced])
    choice = choose(field, goal, losses)
    return Answer(goal, field, losses, choice, [*notes, *caveats(goal, field, choice)])


def settle_cost(goal: Goal, field: Field) -> tuple[Goal, Field, list[str]]:
    """Fall back to counted GFLOPs where nothing was benchmarked.

    Raises:
        ConfigError: The goal has a limit that only a benchmark can tell.
    """
    if any(candidate.speed is not None for candidate in [field.unreduced, *field.reduced]):
        return goal, field, []
    needed = [*goal.of_speed, *(["by memory"] if goal.by == "memory" and goal.fastest else [])]
    if needed:
        raise ConfigError(
            f"--{needed[0]} needs times or memory, and nothing was benchmarked: run benchmark for the same configs and "
            "name its results too"
        )
    note = "nothing was benchmarked: fastest means the fewest GFLOPs, which need not be the shortest time"
    return replace(goal, by="gflops"), with_gflops(field), [note]


def caveats(goal: Goal, field: Field, choice: Choice) -> list[str]:
    """Say what the answer's certainty rests on."""
    images = len(field.unreduced.counts.images)
    notes = []
    if images < _FEW_IMAGES:
        notes.append(f"{images} images are few: intervals of the loss are wide, and themselves rough")
    pairs = [verdict.candidate.speed.pairs for verdict in [choice.chosen] if verdict and verdict.candidate.speed]
    if pairs and pairs[0] < _FEW_PAIRS and (goal.of_speed or goal.by in ("latency", "throughput")):
        notes.append(f"the chosen setting was timed in {pairs[0]} passes only: benchmark it for longer")
    for other in close_calls(choice):
        notes.append(
            f"{other.candidate.name} is as fast as far as the benchmarks can tell (their speed-ups' quartiles overlap) "
            f"and loses {other.loss:.2f} points"
        )
    if choice.best_share is not None and choice.others:
        notes.append(
            f"of {1 + len(choice.others)} settings that keep the limits this one has the best mIoU with a probability "
            f"of {choice.best_share:.0%}; the mIoU of the best of several is likely a little lower on other images"
        )
    return notes


def content_of(found: Answer) -> dict[str, Any]:
    """Give a recommendation in JSON's types."""
    choice, goal, field = found.choice, found.goal, found.field
    chosen = choice.chosen
    return {
        "kind": "recommendation",
        "lightning_expedite": __version__,
        "goal": asdict(goal),
        "environment": field.environment,
        "bootstrap": {"resamples": RESAMPLES, "seed": SEED, "images": len(field.unreduced.counts.images)},
        "settings_compared": len(field.reduced),
        "reduced_setting_found": chosen is not None and chosen.candidate.reducer is not None,
        "recommended": None if chosen is None else describe(chosen),
        "config": None if chosen is None else str(config_file(chosen.candidate)),
        "commands": None if chosen is None else commands(chosen.candidate),
        "best_share": choice.best_share,
        "others": [describe(verdict) for verdict in choice.others],
        "nearest": [describe(verdict) for verdict in choice.nearest],
        "left_out": [{"name": name, "reason": reason} for name, reason in field.left_out],
        "warnings": field.warnings,
        "notes": found.notes,
    }


def describe(verdict: Verdict) -> dict[str, Any]:
    """Give what is known of a setting; losses in points of mIoU."""
    candidate = verdict.candidate
    return {
        "name": candidate.name,
        "label": candidate.label,
        "reducer": candidate.reducer,
        "mIoU": candidate.counts.miou,
        "loss": verdict.loss,
        "loss_interval": list(verdict.interval),
        "loss_bound_of_all": verdict.bound,
        "probability_within": verdict.within,
        "gflops": candidate.gflops,
        "speed": None if candidate.speed is None else asdict(candidate.speed),
        "misses": [miss.text for miss in verdict.misses],
        "results": str(candidate.test.path),
    }


def config_file(candidate: Candidate) -> Path:
    """Give the config of a setting: the sweep's, or the one beside its results."""
    path = candidate.point or candidate.test.path.with_name(CONFIG_FILE)
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def commands(candidate: Candidate) -> dict[str, str]:
    """Give the command lines that score and that label with a setting."""
    program = ["python", "-m", "lightning_expedite"]
    config = ["--config", str(config_file(candidate))]
    return {
        task: shlex.join([*program, task, *config, *more, "--output", f"runs/{candidate.name}_{task}"])
        for task, more in {"test": [], "predict": ["--overlay"]}.items()
    }


def config_text(candidate: Candidate) -> str:
    """Give all settings of a test as YAML that ``--config`` takes."""
    header = f"# {candidate.label}: all settings of {candidate.test.path}\n"
    return header + yaml.safe_dump(dict(candidate.test.content["config"]), sort_keys=False, allow_unicode=True)


def reducer_text(candidate: Candidate) -> str:
    """Give the part of a config that names the reducer, as YAML."""
    reducer = None if candidate.reducer is None else dict(candidate.reducer)
    return yaml.safe_dump({"model": {"reducer": reducer}}, sort_keys=False, allow_unicode=True).rstrip()
