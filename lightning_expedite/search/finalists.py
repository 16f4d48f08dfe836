"""The search's best settings, tested on all images and benchmarked; laid out as a sweep's points."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..analysis.candidates import UNREDUCED
from ..files import write_atomically
from .folders import SWEEP_FILE, Failure, PointFolder


@dataclass(frozen=True)
class Finalist:
    """A setting to be tested: its name, and class and settings of its reducer."""

    name: str
    reducer: dict[str, Any] | None


def finalist(class_path: str, settings: Mapping[str, Any]) -> Finalist:
    """Name a setting after its class and settings, such as ``tome_ratio0.3``."""
    words = [class_path.rpartition(".")[2].lower(), *(f"{key}{_text(value)}" for key, value in settings.items())]
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", "_".join(words))
    return Finalist(name, {"class_path": class_path, "init_args": dict(settings)})


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ("x" if len(value) == 2 else "-").join(map(_text, value))
    return str(value)


def write_points(output: Path, finalists: Sequence[Finalist], settings: Mapping[str, Any], search: Any) -> None:
    """Write the config of every point, and ``sweep.json``; points of earlier calls stay in it.

    Args:
        output: The folder.
        finalists: All but the unreduced model, which is always a point.
        settings: All settings of the search's config.
        search: What was searched, for ``sweep.json``.
    """
    points = [Finalist(UNREDUCED, None), *earlier_points(output), *finalists]
    for point in points:
        folder = PointFolder(output, point.name)
        folder.path.mkdir(parents=True, exist_ok=True)
        content = {**settings, "model": {**settings["model"], "reducer": point.reducer}}
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        header = f"# Written by recommend --search: all settings of the point {point.name}.\n"
        write_atomically(folder.config, (header + text).encode())
    listed = {point.name: {"name": point.name, "reducer": point.reducer} for point in points}
    content = {"kind": "sweep", "config": settings, "grid": {"search": search}, "points": list(listed.values())}
    write_atomically(output / SWEEP_FILE, json.dumps(content, indent=1).encode())


def earlier_points(output: Path) -> list[Finalist]:
    """List the reduced points of earlier calls."""
    try:
        points = json.loads((output / SWEEP_FILE).read_bytes())["points"]
        return [Finalist(point["name"], point["reducer"]) for point in points if point["reducer"] is not None]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def run_point(folder: PointFolder, words: Mapping[str, Sequence[str]], say: Callable[[str], None]) -> bool:
    """Do the steps of a point that have no result yet.

    Args:
        folder: The point's folder, with its config.
        words: The steps, each with the options that go to it.
        say: Told what is done.

    Returns:
        Whether all are done; otherwise ``failed.json`` says which failed and why.
    """
    folder.set_failure(None)
    for step, options in words.items():
        if folder.content(step) is not None:
            continue
        say(f"{folder.name}: {step}")
        error = run_step(folder, step, options)
        if error is not None:
            folder.set_failure(Failure(step, error))
            say(f"{folder.name}: {step} failed: {error}")
            return False
    return True


def run_step(folder: PointFolder, step: str, options: Sequence[str]) -> str | None:
    """Run a subcommand in a process of its own, what it prints going to the log; gives its error, if there is one."""
    command = [sys.executable, "-m", "lightning_expedite", *folder.words(step), *options]
    log = folder.log
    before = log.stat().st_size if log.is_file() else 0
    with log.open("ab") as stream:
        status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, check=False).returncode
    if status == 0:
        return None
    printed = log.read_bytes()[before:].decode(errors="replace").strip().splitlines()
    errors = [line.removeprefix("error: ") for line in printed if line.startswith("error: ")]
    return (errors or printed or [f"it ended with status {status}"])[-1]
