"""Sweeps and searches on a small data set, with their steps in this process."""

import contextlib
import traceback

import pytest
import yaml
from small_run import make_config, make_data

from lightning_expedite.search import processes, workers

QUICK = ("iterations", "5"), ("seconds", "0.01"), ("batch_size", "1"), ("warmup", "1"), ("whole_images", "0")
QUICK_WORDS = tuple(word for name, value in QUICK for word in (f"--benchmark.{name}", value))
TOME = {"class_path": "ToMe", "grid": {"ratio": [0.2, 0.4]}}
ONE = {"class_path": "ToMe", "init_args": {"ratio": 0.2}}
BROKEN = {"class_path": "broken.Broken"}

# A reducer that raises an error until there is a file named fixed.
BROKEN_REDUCER = """
from pathlib import Path
from lightning_expedite.reducers import Reducer, Reduction

class Broken(Reducer):
    def start(self, layout):
        if not Path("fixed").exists():
            raise RuntimeError("broken on purpose")
        return Reduction(layout)
"""


@pytest.fixture
def steps_here(monkeypatch):
    """Runs steps in this process; the fixture is the list of points and steps that were run."""
    ran = []

    def run_here(command, words, log):
        ran.append((log.parent.name, words[0]))
        with log.open("a") as stream, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            try:
                return command(words)
            except Exception:
                traceback.print_exc()
                return 1

    monkeypatch.setattr(workers, "run_in_process", run_here)
    monkeypatch.setattr(processes, "start_processes", lambda modules: None)
    return ran


def prepare(folder, *entries, images=2):
    """Write data, config, grid and the broken reducer; return the words of a sweep."""
    config = make_config(make_data(folder, images))
    (folder / "grid.yaml").write_text(yaml.safe_dump(list(entries or (TOME,))))
    (folder / "broken.py").write_text(BROKEN_REDUCER)
    return ["sweep", "--config", str(config), "--grid", str(folder / "grid.yaml"), "--output", "out", *QUICK_WORDS]
