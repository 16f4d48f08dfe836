"""How much memory a real `test` of noise takes above what the program held before, in a process of its own.

python tests/memory_run.py FOLDER '{"width": 384, ...}' WORD...

makes a model of these sizes, tests it on one small image, so that all that is used once is there, and then with the
words given. Prints by how many bytes resident memory rose at most, as JSON: that of the process as the kernel noted it,
and that of the process and its children together, pages they share counted once, with all shared memory of the machine
(most of it is in no process while it is under way), as it was seen every few milliseconds.
"""

import gc
import json
import os
import sys
import threading
from pathlib import Path

import torch

from lightning_expedite.benchmarking.memory import MEBIBYTE, give_back_free_memory, peak_memory_mib
from lightning_expedite.cli import main
from lightning_expedite.models.segmenter import Architecture, Segmenter
from lightning_expedite.models.segmenter.checkpoint import save_segmenter

EVERY = 0.02  # seconds


class Together(threading.Thread):
    """Watches the memory of this process and its children until it is told to end."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.start_bytes = self.most = together()
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(EVERY):
            self.most = max(self.most, together())

    def rise(self) -> int:
        self.over.set()
        self.join()
        return self.most - self.start_bytes


def together():
    children = "".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()
    return shared() + sum(own(process) for process in (os.getpid(), *children))


def shared():
    return kibibytes(Path("/proc/meminfo"))["Shmem"] << 10


def own(process):
    try:
        held = kibibytes(Path(f"/proc/{process}/smaps_rollup"))
    except OSError:
        return 0  # it has ended meanwhile
    return held["Pss"] - held["Pss_Shmem"] << 10


def kibibytes(file):
    lines = (line.split() for line in file.read_text().splitlines())
    return {words[0].removesuffix(":"): int(words[1]) for words in lines if words[-1] == "kB"}


def score(folder, name, *words):
    options = ["--data", "noise_data.Noise", "--model.checkpoint", str(folder / "model")]
    options += ["--output", str(folder / name), "--trainer.accelerator", "cpu", "--trainer.devices", "1"]
    options += ["--trainer.enable_progress_bar", "false"]
    assert main(["test", *options, *words]) == 0


def run(folder, sizes, words):
    torch.manual_seed(0)
    save_segmenter(Segmenter(Architecture(**sizes)), folder / "model")
    score(folder, "small", *words, "--data.count", "1", "--data.height", "64", "--data.width", "64")
    gc.collect()
    give_back_free_memory()
    watch = Together()
    watch.start()
    rise = peak_memory_mib(lambda: score(folder, "large", *words), torch.device("cpu"))
    print(json.dumps({"process": rise * MEBIBYTE, "together": watch.rise()}))


if __name__ == "__main__":
    run(Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:])
