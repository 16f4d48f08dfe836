"""A long run in a process of its own: what it holds, how fast it is, and what it leaves behind.

python tests/soak_run.py FOLDER IMAGES SIZES
"""

import json
import multiprocessing
import os
import sys
import tempfile
import threading
from pathlib import Path

from pytorch_lightning import Callback

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
CHECKPOINT = Path(__file__).parent / "data" / "parity" / "official_mask"
WORKERS = 2


class Watch(Callback):
    """Notes, every few images, what the process and its loader's processes hold and have used.

    Args:
        file: Where the notes go, as JSON, at the end.
        every: Images from one note to the next.
    """

    def __init__(self, file: str, every: int = 50) -> None:
        self.file, self.every = Path(file), every
        self.notes, self.images = [], 0

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, *_):
        self.images += len(batch)
        if self.images % self.every == 0:
            processes = [os.getpid(), *sorted(child.pid for child in multiprocessing.active_children())]
            self.notes.append(
                {
                    "images": self.images,
                    "processor": sum(processor_seconds(process) for process in processes),
                    "resident": [resident(process) for process in processes],
                    "handles": [len(handles(process)) for process in processes],
                }
            )

    def on_test_end(self, trainer, pl_module):
        self.file.write_text(json.dumps(self.notes))


def resident(process):
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE


def processor_seconds(process):
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def handles(process):
    """What the open file descriptors are of, sorted; sockets and pipes without their numbers."""
    names = []
    for link in Path(f"/proc/{process}/fd").iterdir():
        try:
            names.append(str(link.readlink()).split(":[")[0])
        except FileNotFoundError:
            continue  # that of the listing itself
    return sorted(names)


def children():
    """Processes whose parent is this one."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = status.read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue  # it has ended meanwhile
        if int(parent) == os.getpid():
            found.append(int(status.parent.name))
    return found


def left():
    """What a run could leave behind in its process and on the machine."""
    return {
        "handles": handles(os.getpid()),
        "children": children(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "temporary files": sorted(str(path) for path in Path(tempfile.gettempdir()).rglob("*")),
        "shared memory": sorted(path.name for path in Path("/dev/shm").glob(f"*{os.getpid()}*")),
    }


def score(folder, name, images, sizes, *words):
    from lightning_expedite.cli import main

    data = {"count": images, "sizes": sizes, "num_workers": WORKERS}
    options = {"--data": "noise_data.Noise", **{f"--data.{key}": value for key, value in data.items()}}
    options |= {"--model.checkpoint": CHECKPOINT, "--model.window": 64, "--model.stride": 48}
    options |= {"--trainer.accelerator": "cpu", "--trainer.devices": 1, "--output": folder / name}
    status = main(["test", *(str(word) for pair in options.items() for word in pair), *words])
    assert status == 0


def main(folder, images, sizes):
    score(folder, "first", 40, sizes)  # what is imported and opened once
    before = left()
    watch = ["--trainer.callbacks+=soak_run.Watch", "--trainer.callbacks.file", str(folder / "notes.json")]
    score(folder, "long", images, sizes, *watch)
    (folder / "left.json").write_text(json.dumps({"before": before, "after": left()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
