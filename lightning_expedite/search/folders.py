"""The folder of a sweep: where the settings, results, log and failure of each point are."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..analysis.runs import BENCHMARK_FILE, FAILURE_FILE, POINT_FILE, RESULTS_FILE
from ..errors import OutputError
from ..files import write_atomically

STEPS = ("test", "benchmark")
SWEEP_FILE, POINTS_FOLDER = "sweep.json", "points"
LOG_FILE = "log.txt"
_RESULTS = {"test": RESULTS_FILE, "benchmark": BENCHMARK_FILE}


@dataclass(frozen=True)
class Failure:
    """Why a point has no result: the step that failed, and its error."""

    step: str
    error: str


@dataclass(frozen=True)
class PointFolder:
    """The folder of one point of a sweep."""

    output: Path
    name: str

    @property
    def path(self) -> Path:
        """The folder."""
        return self.output / POINTS_FOLDER / self.name

    @property
    def config(self) -> Path:
        """The point's config, usable alone."""
        return self.path / POINT_FILE

    @property
    def log(self) -> Path:
        """What the steps printed."""
        return self.path / LOG_FILE

    @property
    def _failure(self) -> Path:
        return self.path / FAILURE_FILE

    def step(self, step: str) -> Path:
        """The folder that a step writes to."""
        return self.path / step

    def result(self, step: str) -> Path:
        """The file whose presence tells that a step is done."""
        return self.step(step) / _RESULTS[step]

    def words(self, step: str) -> list[str]:
        """Give a step's command line, which replaces results that were made before and goes on with a stopped test."""
        words = [step, "--config", str(self.config), "--output", str(self.step(step)), "--overwrite"]
        return [*words, "--resume", "true"] if step == "test" else words

    def content(self, step: str) -> dict[str, Any] | None:
        """Give the content of a step's result; ``None`` where there is none, or a part of one, or no row in it."""
        try:
            content: dict[str, Any] = json.loads(self.result(step).read_bytes())
            finished = content["config"] if step == "test" else content["rows"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return content if finished else None

    def settings(self, step: str) -> dict[str, Any] | None:
        """Give all settings that a step's result was made with, as `resolving.resolve` gives those it is to have."""
        content = self.content(step)
        if content is None:
            return None
        if step == "test":
            return dict(content["config"])
        common = {name: value for name, value in content["settings"].items() if name != "configs"}
        return {**common, **content["rows"][0].get("settings", {})}

    def write_config(self, configs: Sequence[Path], overrides: Mapping[str, Any], reducer: Any) -> None:
        """Write the point's config: the user's configs by their relative paths, the user's options, the reducer.

        Raises:
            OutputError: The folder cannot be written to.
        """
        make_folder(self.path)
        base = [os.path.relpath(config.resolve(), self.path.resolve()) for config in configs]
        model = {**overrides.get("model", {}), "reducer": reducer}
        text = yaml.safe_dump({"base": base, **overrides, "model": model}, sort_keys=False, allow_unicode=True)
        content = f"# Written by sweep: all settings of the point {self.name}.\n{text}".encode()
        if not self.config.is_file() or self.config.read_bytes() != content:
            write_atomically(self.config, content)

    def discard(self, step: str) -> None:
        """Take a step's result away."""
        self.result(step).unlink(missing_ok=True)

    def failure(self) -> Failure | None:
        """Give why the point failed when it was tried last."""
        try:
            return Failure(**json.loads(self._failure.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def set_failure(self, failure: Failure | None) -> None:
        """Write why the point failed, or take away what was written."""
        if failure is None:
            self._failure.unlink(missing_ok=True)
        else:
            write_atomically(self._failure, json.dumps(vars(failure), indent=1).encode())


def make_folder(path: Path) -> None:
    """Make a folder where there is none.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be made a folder: {error.strerror}") from error
