"""Runs of several processes on slow data, of which a test ends one.

``start(folder, ...)`` starts a run whose images, from a position on, are read only when ``hasten(folder)`` was called;
``Running.process_of(rank)`` waits until a process is at such an image, ``Running.kill(rank)`` kills it.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from small_run import CLASSES, make_config, make_data

ROOT = Path(__file__).parents[1]
MARK = "LIGHTNING_EXPEDITE_TEST_RUN"  # in the environment of all processes of a run, orphans included

SLOW = """
import os, time
from pathlib import Path
from torch.utils.data import get_worker_info
from lightning_expedite.data import Folder
from lightning_expedite.errors import DataError

class Waiting:
    def __init__(self, source, quick):
        self.source, self.quick = source, quick
        self.name, self.label = source.name, source.label

    def __len__(self):
        return len(self.source)

    def image(self, index):
        rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
        if Path(f"damaged.{index}").exists():
            raise DataError(f"image {index} is damaged on purpose")
        if index >= self.quick and not Path("hastened").exists():
            note = Path(f"reading.{rank}")
            note.with_suffix(".new").write_text(str(os.getppid() if get_worker_info() else os.getpid()))
            note.with_suffix(".new").rename(note)
            while not Path("hastened").exists():
                time.sleep(0.02)
        return self.source.image(index)

class Slow(Folder):
    def __init__(self, quick: int = 0, **settings):
        super().__init__(**settings)
        self.quick = quick

    def source(self):
        return Waiting(super().source(), self.quick)
"""


def wait_for(condition, seconds=90):
    """Wait until a function gives something true, and give that."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return found


def hasten(folder):
    """Let images be read without waiting, from now on."""
    (folder / "hastened").touch()


def damage(folder, index):
    """Let the reading of an image fail."""
    (folder / f"damaged.{index}").touch()


def slow_words(folder, images=4, quick=0, **model):
    """Write data and their config, on the first call, and give the words for a run without its output.

    Args:
        folder: Folder of everything, and the one to run in.
        images: Number of images.
        quick: How many of them, the first ones, are read without waiting.
        model: Settings of the model.
    """
    config = folder / "slow.yaml"
    if not config.exists():
        make_config(make_data(folder, images), config.name, **model)
        text = config.read_text().replace("class_path: Folder", "class_path: slow.Slow")
        config.write_text(text.replace("init_args:\n", f"init_args:\n    quick: {quick}\n", 1))
        (folder / "slow.py").write_text(SLOW)
    assert CLASSES[0] in config.read_text()
    return ["test", "--config", str(config)]


@dataclass
class Running:
    """A run: its first process, and where it runs and what it prints."""

    process: subprocess.Popen
    folder: Path
    printed: Path
    mark: str

    def process_of(self, rank):
        """Wait until a process is at a slow image; give its number."""
        note = self.folder / f"reading.{rank}"
        wait_for(lambda: note.exists() or self.process.poll() is not None)
        assert note.exists(), self.text
        return int(note.read_text())

    def kill(self, rank):
        """Kill a process that is at a slow image."""
        number = self.process_of(rank)
        os.kill(number, signal.SIGKILL)
        return number

    @property
    def text(self):
        """What all processes printed so far."""
        return self.printed.read_text()

    def alive(self):
        """Numbers of processes of this run that are alive, wherever they were started from."""
        return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if self._is_mine(path)]

    def _is_mine(self, path):
        try:
            return f"{MARK}={self.mark}".encode() in path.read_bytes().split(b"\0")
        except OSError:
            return False  # it has ended meanwhile, or is another user's

    def end(self):
        """Kill what is left."""
        for number in self.alive():
            os.kill(number, signal.SIGKILL)
        self.process.wait()


def start(folder, words, launcher=(), name="run", **environment):
    """Start a run in a folder.

    Args:
        folder: See `slow_words`.
        words: Words of the command line.
        launcher: What stands before ``-m lightning_expedite``, this Python by default.
        name: Tells several runs in one folder apart.
        environment: Further variables.
    """
    command = [*(launcher or (sys.executable,)), "-m", "lightning_expedite", *map(str, words)]
    kept = {key: value for key, value in os.environ.items() if key not in ("WORLD_SIZE", "LOCAL_RANK", "RANK")}
    mark, printed = f"{folder}/{name}", folder / f"{name}.txt"
    more = {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", MARK: mark}
    with printed.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=folder, env={**kept, **more, **environment}, stdout=stream, stderr=stream
        )
    return Running(process, folder, printed, mark)
