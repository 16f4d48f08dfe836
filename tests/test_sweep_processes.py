"""The worker process of a sweep: killed, orphaned, and not needed for help and errors."""

import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sweep_run import TOME, WorkerHere, command, failure_of, prepare, steps_asked, trouble

from lightning_expedite.search import running

ROOT = Path(__file__).parents[1]
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them")


def wait_for(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def members(group):
    """Processes of a group that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue  # it has ended meanwhile
        if int(number) == group and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def test_a_worker_that_is_killed_costs_its_point_alone(tmp_path):
    words, environment = command([*prepare(tmp_path, trouble("kill"), TOME), "--steps", "test"])
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=180)
    assert done.returncode == 2, done.stdout + done.stderr
    points = tmp_path / "out/points"
    assert sorted(path.parents[1].name for path in points.rglob("results.json")) == [
        "none",
        "tome_ratio0.2",
        "tome_ratio0.4",
    ]
    failure = failure_of(points / "trouble_kindkill")
    assert failure["step"] == "test"
    assert "killed by SIGKILL" in failure["error"]
    assert failure["error"] in done.stdout


@needs_proc
def test_a_sweep_that_is_killed_leaves_no_process_and_goes_on(tmp_path, run, monkeypatch):
    given = [*prepare(tmp_path, trouble("wait"), TOME), "--steps", "test", "--data.num_workers", "1"]
    words, environment = command(given)
    started = tmp_path / "trouble"
    with (tmp_path / "printed").open("w") as printed:
        sweep = subprocess.Popen(words, stdout=printed, stderr=printed, env=environment, cwd=tmp_path)
        try:
            wait_for(lambda: started.exists() and started.read_text())
            worker = int(started.read_text())
            group_number = os.getpgid(worker)
            group = members(group_number)
            assert worker in group
            assert len(group) > 1  # the loader's process
            assert sweep.pid not in group
        finally:
            sweep.send_signal(signal.SIGKILL)
            sweep.wait()
    wait_for(lambda: not members(group_number), seconds=4)  # before a loader would find out by itself
    points = tmp_path / "out/points"
    assert [path.parents[1].name for path in points.rglob("results.json")] == ["none"]
    monkeypatch.setattr(running, "Worker", WorkerHere)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mended").touch()
    steps_asked()
    assert run(*given)[0] == 0
    assert steps_asked() == [("trouble_kindwait", "test"), ("tome_ratio0.2", "test"), ("tome_ratio0.4", "test")]


def test_help_and_mistakes_are_there_at_once(tmp_path):
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        words, environment = command(["sweep", "--help"])
        answer = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
        seconds.append(time.perf_counter() - start)
    assert "--shard I/N" in answer.stdout
    assert statistics.median(seconds) < 1.5
    program = (
        "import sys; from lightning_expedite.cli import main;"
        "status = main(['sweep', '--config', 'a.yaml', '--grid', 'no.yaml', '--datas', '3']);"
        "print(status, sorted({'torch', 'pytorch_lightning', 'numpy', 'jsonargparse', 'cv2'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout == "2 []\n"
    assert answer.stderr.startswith("error: --datas is no option of sweep")
    assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", [(), ("--config", "a.yaml"), ("--grid", "g.yaml"), ("--config", "a", "--grid")])
def test_options_that_are_missing_show_the_usage(fails, words):
    assert "arguments are required" in (message := fails("sweep", *words, usage=True)) or "expected one" in message
