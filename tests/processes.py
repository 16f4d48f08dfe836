"""Programs of the tests that run in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent


def process_environment(*folders, **more):
    """Variables of a process that imports this checkout and modules of folders, on one thread and no GPU."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "LOCAL_RANK")}
    paths = os.pathsep.join(map(str, (ROOT, *folders)))
    return {**inherited, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **more}


def run_script(name, *words, folder, timeout, **more):
    """Run a script of this folder in another one; gives what it printed."""
    done = subprocess.run(
        [sys.executable, str(TESTS / name), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=process_environment(TESTS, **more),
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
