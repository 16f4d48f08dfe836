"""Killing or failing one process of a run ends the others soon, with a message, and leaves nothing behind."""

import socket
import time

import pytest
from lost_process import damage, slow_words, start, wait_for

from lightning_expedite.evaluation.lines import STATUS_FAILED, STATUS_LOST

pytestmark = pytest.mark.promise("lost-process")
TWO = ("--trainer.devices", 2, "--trainer.strategy", "ddp", "--output", "out")
SECONDS = 60


@pytest.fixture
def running(tmp_path):
    """Starts a run of two processes on slow images, and kills what is left of it."""
    started = []

    def make(*words, **model):
        started.append(start(tmp_path, [*slow_words(tmp_path, **model), *TWO, *words]))
        return started[-1]

    yield make
    for run in started:
        run.end()


def ended(run):
    """Wait until nothing of a run is alive."""
    return wait_for(lambda: not run.alive(), SECONDS)


def test_a_killed_process_ends_the_one_that_started_it(running, figure):
    run = running("--data.num_workers", 1)  # its reader of images is another process
    first = run.process_of(0)
    killed = run.kill(1)
    start = time.monotonic()
    assert run.process.wait(SECONDS) == STATUS_LOST
    assert ended(run)
    assert first == run.process.pid
    assert f"error: process 1 of 2 (pid {killed} on {socket.gethostname()}) was lost" in run.text
    assert "--resume true" in run.text
    assert not (run.folder / "out/results.json").exists()
    figure("seconds until all had ended", round(time.monotonic() - start, 1))


def test_the_first_process_is_missed_too(running):
    run = running("--data.num_workers", 1)
    run.process_of(1)
    killed = run.kill(0)
    run.process.wait(SECONDS)
    assert ended(run)
    assert f"error: process 0 of 2 (pid {killed} on {socket.gethostname()}) was lost" in run.text


def test_an_error_of_one_process_ends_the_other_with_its_reason(running, tmp_path):
    damage(tmp_path, 1)  # the second process's first image; the first one sleeps at its own
    run = running()
    assert run.process.wait(SECONDS) == STATUS_FAILED
    assert ended(run)
    text = run.text
    assert "error: image 1 is damaged on purpose\n" in text
    assert f"on {socket.gethostname()}) stopped with an error: image 1 is damaged on purpose; when that is" in text
    assert "Traceback" not in text
