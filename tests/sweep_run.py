"""Sweeps on a small data set, with a worker in this process where its start is not what is tested."""

import json
import os
import sys
from pathlib import Path

import yaml
from small_run import make_config, make_data

from lightning_expedite.search.client import Answer
from lightning_expedite.search.worker import do

ROOT = Path(__file__).parents[1]
QUICK = ("iterations", "5"), ("seconds", "0.01"), ("batch_size", "1"), ("warmup", "1"), ("whole_images", "0")
QUICK_WORDS = tuple(word for name, value in QUICK for word in (f"--benchmark.{name}", value))
TOME = {"class_path": "ToMe", "grid": {"ratio": [0.2, 0.4]}}
ONE = {"class_path": "ToMe", "init_args": {"ratio": 0.2}}

# A reducer that does something terrible until a file says that it is mended.
TROUBLE = """
import os, signal, time
from pathlib import Path
from lightning_expedite.reducers import Reducer, Reduction

class Trouble(Reducer):
    def __init__(self, kind: str):
        self.kind = kind

    def start(self, layout):
        if not Path("mended").exists():
            Path("trouble").write_text(str(os.getpid()))
            if self.kind == "error":
                raise RuntimeError("broken on purpose")
            if self.kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        return Reduction(layout)
"""


def trouble(kind):
    return {"class_path": "trouble.Trouble", "init_args": {"kind": kind}}


class WorkerHere:
    """A worker that does its jobs in this process; ``jobs`` are those of all sweeps so far."""

    jobs: list = []  # noqa: RUF012 (on purpose shared by all)

    def start(self):
        pass

    def close(self):
        pass

    def ask(self, job):
        type(self).jobs.append(job)
        answer = json.loads(json.dumps(do(json.loads(json.dumps(job)))))
        answer.pop("usable")
        return Answer(**answer)


def steps_asked():
    """Names of points and steps that were asked for since the last look."""
    jobs = [job for job in WorkerHere.jobs if job["kind"] != "resolve"]
    WorkerHere.jobs = []
    return [(Path(job["log"]).parent.name, job["words"][0]) for job in jobs]


def prepare(folder, *entries, images=2):
    """Write data, config, grid and the terrible reducer; returns a sweep's words."""
    config = make_config(make_data(folder, images))
    (folder / "grid.yaml").write_text(yaml.safe_dump(list(entries or (TOME,))))
    (folder / "trouble.py").write_text(TROUBLE)
    return ["sweep", "--config", str(config), "--grid", str(folder / "grid.yaml"), "--output", "out", *QUICK_WORDS]


def command(words):
    """A sweep as a process of its own: command and environment."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return [sys.executable, "-m", "lightning_expedite", *map(str, words)], environment


def failure_of(folder):
    return json.loads((folder / "failed.json").read_text())
