"""Workers that share points: claims, killed workers, and processes of steps."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_expedite.errors import OutputError
from lightning_expedite.search.points import Failure, Point
from lightning_expedite.search.processes import run_in_process
from lightning_expedite.search.workers import MAX_ATTEMPTS, Queue, machine, open_study

ROOT = Path(__file__).parents[1]
FORK = multiprocessing.get_context("fork")


def make_points(folder, count=6, **model):
    settings = {"test": {"model": model}}
    return [Point(folder, f"p{number}", {"class_path": "A", "init_args": {}}, settings) for number in range(count)]


def finish(point):
    """Write the result that `test` would."""
    path = point.result("test")
    path.parent.mkdir(exist_ok=True)
    config = {"model": {**point.settings["test"]["model"], "reducer": point.reducer}}
    path.write_text(json.dumps({"config": config, "scores": {"mIoU": 50.0}}))


def work(folder, run):
    queue = Queue(folder, make_points(folder), ["test"])
    queue.enter(overwrite=False)
    while queue.run_next(run) or queue.others_running():
        time.sleep(0.01)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def trials(folder):
    found = open_study(folder, "test", ["maximize"])[0].trials
    return [(trial.user_attrs["point"], trial.user_attrs["attempt"], trial.state.name) for trial in found]


def test_three_workers_share_the_points_and_run_those_of_a_killed_one_again(tmp_path):
    def stay(point):
        (tmp_path / "stays").write_text(point.name)
        time.sleep(600)

    def run(point):
        with (tmp_path / "runs").open("a") as stream:
            stream.write(f"{point.name} {os.getpid()}\n")
        time.sleep(0.1)
        finish(point)

    killed, *others = (FORK.Process(target=work, args=(tmp_path, each)) for each in (stay, run, run))
    killed.start()
    wait_for((tmp_path / "stays").exists)
    for other in others:
        other.start()
    wait_for(lambda: (tmp_path / "runs").exists() and len((tmp_path / "runs").read_text().splitlines()) == 5)
    os.kill(killed.pid, signal.SIGKILL)
    for process in (killed, *others):
        process.join(60)
    assert [process.exitcode for process in (killed, *others)] == [-signal.SIGKILL, 0, 0]
    ran = [line.split() for line in (tmp_path / "runs").read_text().splitlines()]
    assert sorted(name for name, _ in ran) == [f"p{number}" for number in range(6)]
    assert {int(pid) for _, pid in ran} == {other.pid for other in others}
    lost = (tmp_path / "stays").read_text()
    assert sorted(trials(tmp_path)) == sorted(
        [(lost, 1, "FAIL"), (lost, 2, "COMPLETE")]
        + [(f"p{number}", 1, "COMPLETE") for number in range(6) if f"p{number}" != lost]
    )


def test_a_point_whose_workers_are_killed_again_and_again_fails(tmp_path):
    points = make_points(tmp_path, 2)

    def run(point):
        if point.name == "p0":
            os.kill(os.getpid(), signal.SIGKILL)
        finish(point)

    def try_points():
        queue = Queue(tmp_path, points, ["test"])
        while queue.run_next(run):
            pass

    Queue(tmp_path, points, ["test"]).enter(overwrite=False)
    for _ in range(MAX_ATTEMPTS + 1):
        process = FORK.Process(target=try_points)
        process.start()
        process.join(60)
    assert process.exitcode == 0
    assert points[0].failure == Failure("test", f"{MAX_ATTEMPTS} workers were killed while they ran it")
    assert points[1].missing(["test"]) == []
    assert [state for name, _, state in trials(tmp_path) if name == "p0"] == ["FAIL"] * MAX_ATTEMPTS
    queue = Queue(tmp_path, points, ["test"])
    queue.enter(overwrite=False)  # a new start tries it again
    assert queue.run_next(finish)
    assert (points[0].missing(["test"]), points[0].failure) == ([], None)


def test_other_settings_are_refused_while_workers_are_at_work(tmp_path):
    queue = Queue(tmp_path, make_points(tmp_path, stride=48), ["test"])
    queue.enter(overwrite=False)
    other = Queue(tmp_path, make_points(tmp_path, stride=64), ["test"])

    def run(point):
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=r"in use by workers with other settings \(test.model.stride 48 inst"):
                other.enter(overwrite)

    assert queue.run_next(run)
    other.enter(overwrite=False)  # nothing was finished with the former settings


def test_a_damaged_study_is_named(tmp_path):
    (tmp_path / "study.log").write_text("no journal\n")
    with pytest.raises(OutputError, match=r"study\.log is damaged"):
        open_study(tmp_path, "test", ["maximize"])


def test_a_benchmark_has_the_machine_for_itself(tmp_path):
    def hold(alone, name):
        with machine(tmp_path, alone, lambda: (tmp_path / f"{name} waits").touch()):
            (tmp_path / name).touch()
            wait_for((tmp_path / f"end {name}").exists)

    (tmp_path / ".locks").mkdir()
    tests = [FORK.Process(target=hold, args=(False, name)) for name in ("one", "two")]
    benchmark = FORK.Process(target=hold, args=(True, "benchmark"))
    for process in tests:
        process.start()
    wait_for(lambda: (tmp_path / "one").exists() and (tmp_path / "two").exists())
    benchmark.start()
    wait_for((tmp_path / "benchmark waits").exists)
    assert not (tmp_path / "benchmark").exists()
    for name in ("one", "two"):
        (tmp_path / f"end {name}").touch()
    wait_for((tmp_path / "benchmark").exists)
    (tmp_path / "end benchmark").touch()
    for process in (*tests, benchmark):
        process.join(60)
        assert process.exitcode == 0


@pytest.mark.parametrize(("script", "status"), [("echo said; exit 3", 3), ("echo said; kill -9 $PPID; sleep 60", -9)])
def test_a_step_prints_to_its_log_and_is_killed_alone(tmp_path, script, status):
    log = tmp_path / "log.txt"
    start = time.monotonic()
    assert run_in_process(subprocess.call, ["sh", "-c", script], log) == status
    assert log.read_text() == "said\n"
    assert time.monotonic() - start < 50  # the shell was killed too


def test_a_step_ends_with_its_worker(tmp_path):
    program = (
        "import subprocess, pathlib; from lightning_expedite.search.processes import run_in_process;"
        "run_in_process(subprocess.call, ['sh', '-c', 'echo $$; sleep 600'], pathlib.Path('log.txt'))"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    log = tmp_path / "log.txt"
    wait_for(lambda: log.exists() and log.read_text().strip())
    shell = int(log.read_text())
    os.kill(shell, 0)  # it is there
    worker.kill()
    worker.wait()

    def gone():
        status = Path(f"/proc/{shell}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] in "ZX"

    wait_for(gone, seconds=4)
