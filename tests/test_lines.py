"""Connected processes notice the end of one of them at once, and nothing else."""

import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from lightning_expedite.evaluation import lines
from lightning_expedite.evaluation.lines import Line, Process, Switchboard, Wire

pytestmark = [
    pytest.mark.promise("lost-process"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks"),
]
NUMBER = 3


class Forked:
    """Processes that are connected over TCP as those of a run are; each does ``work(rank, line)``."""

    def __init__(self, folder, work):
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as door:
            ends = []
            for _ in range(NUMBER):
                near = socket.create_connection(door.getsockname())
                ends.append((near, door.accept()[0]))
        self.pids = [self._fork(rank, ends, work) for rank in range(NUMBER)]
        for end in (end for pair in ends for end in pair):
            end.close()
        self.statuses = {}
        self.times = {}

    def _fork(self, rank, ends, work):
        pid = os.fork()
        if pid:
            return pid
        status = 99
        try:
            os.dup2(os.open(self.folder / f"printed.{rank}", os.O_WRONLY | os.O_CREAT), 2)
            for other, pair in enumerate(ends):
                for end in [*(pair[:1] if other != rank else ()), *(pair[1:] if rank else ())]:
                    end.close()
            if rank == 0:
                Switchboard({other: Wire(pair[1]) for other, pair in enumerate(ends)}).start()
            processes = [Process(other, f"host{other}", 1000 + other) for other in range(NUMBER)]
            line = Line(rank, processes, Wire(ends[rank][0]))
            line.start()
            (self.folder / f"at_work.{rank}").touch()
            status = work(rank, line) or 0
        finally:
            os._exit(status)

    def wait_until_at_work(self):
        while len(list(self.folder.glob("at_work.*"))) < NUMBER:
            time.sleep(0.005)

    def wait(self, seconds, *ranks):
        """Wait for processes; give their statuses, ``None`` of one that still runs."""
        end = time.monotonic() + seconds
        for rank in ranks or range(NUMBER):
            while rank not in self.statuses and time.monotonic() < end:
                pid, status = os.waitpid(self.pids[rank], os.WNOHANG)
                if pid:
                    self.statuses[rank] = os.waitstatus_to_exitcode(status)
                    self.times[rank] = time.monotonic()
                else:
                    time.sleep(0.005)
        return [self.statuses.get(rank) for rank in ranks or range(NUMBER)]

    def printed(self, rank):
        return (self.folder / f"printed.{rank}").read_text()

    def end(self):
        for rank, pid in enumerate(self.pids):
            if rank not in self.statuses:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


@pytest.fixture
def fork(tmp_path):
    started = []

    def make(work):
        started.append(Forked(tmp_path, work))
        started[-1].wait_until_at_work()
        return started[-1]

    yield make
    for processes in started:
        processes.end()


def sleep(rank, line):
    time.sleep(60)


def others_of(rank):
    return [other for other in range(NUMBER) if other != rank]


@pytest.mark.parametrize("lost", range(NUMBER))
def test_a_killed_process_ends_the_others_with_its_name(fork, lost):
    processes = fork(sleep)
    os.kill(processes.pids[lost], signal.SIGKILL)
    assert processes.wait(5, *others_of(lost)) == [lines.STATUS_LOST] * (NUMBER - 1)
    for other in others_of(lost):
        printed = processes.printed(other).strip()
        assert printed.startswith(f"error: process {lost} of 3 (pid {1000 + lost} on host{lost}) was lost")
        assert "--resume true" in printed
        assert "\n" not in printed


@pytest.mark.parametrize("failing", range(NUMBER))
def test_an_error_ends_the_others_after_its_own_process(fork, failing):
    def work(rank, line):
        if rank != failing:
            time.sleep(60)
        line.fail("an image is damaged")
        time.sleep(0.5)  # it tidies up and prints what happened
        return 2

    processes = fork(work)
    processes.wait(5, failing)
    assert processes.wait(5) == [lines.STATUS_FAILED] * NUMBER
    assert processes.printed(failing) == ""
    for other in others_of(failing):
        assert processes.times[other] > processes.times[failing]
        assert (
            f"error: process {failing} of 3 (pid {1000 + failing} on host{failing}) stopped with an error: "
            "an image is damaged;" in processes.printed(other)
        )


def test_a_process_that_failed_but_does_not_end_is_not_waited_for_for_long(fork, monkeypatch):
    monkeypatch.setattr(lines, "GRACE", 0.3)

    def work(rank, line):
        if rank == 1:
            line.fail("it hangs from here on")
        time.sleep(60)

    processes = fork(work)
    assert processes.wait(5, 0, 2) == [lines.STATUS_FAILED] * 2
    assert "it hangs from here on" in processes.printed(2)


def test_processes_wait_for_the_last_one_and_then_go_their_ways(fork, tmp_path):
    def work(rank, line):
        for meeting in range(3):
            if rank == meeting:
                time.sleep(0.3)
                (tmp_path / f"late.{meeting}").touch()
            line.meet(last=meeting == 2)
            if not (tmp_path / f"late.{meeting}").exists():
                return 1
        time.sleep(0.3 * rank)  # nobody is missed any more
        return 0

    processes = fork(work)
    assert processes.wait(10) == [0] * NUMBER
    assert [processes.printed(rank) for rank in range(NUMBER)] == [""] * NUMBER


@pytest.mark.parametrize("waiting", [0, 1])
def test_a_process_that_waits_for_the_others_notices_too(fork, waiting):
    def work(rank, line):
        if rank == waiting:
            line.meet()
        time.sleep(60)

    processes = fork(work)
    os.kill(processes.pids[2], signal.SIGKILL)
    assert processes.wait(5, 0, 1) == [lines.STATUS_LOST] * 2


@pytest.mark.parametrize("stopped", [(0,), (1,), (0, 1, 2)], ids=["first", "second", "all"])
def test_processes_that_are_stopped_for_longer_than_hosts_may_be_silent_are_not_lost(fork, monkeypatch, stopped):
    monkeypatch.setattr(lines, "PROBE_AFTER", 1)
    monkeypatch.setattr(lines, "PROBE_EVERY", 1)
    monkeypatch.setattr(lines, "PROBES", 1)

    def work(rank, line):
        line.meet()
        time.sleep(0.5)
        line.meet(last=True)

    processes = fork(work)
    for rank in stopped:
        os.kill(processes.pids[rank], signal.SIGSTOP)
    time.sleep(4)
    for rank in stopped:
        os.kill(processes.pids[rank], signal.SIGCONT)
    assert processes.wait(10) == [0] * NUMBER
    assert processes.printed(0) == processes.printed(2) == ""


def test_what_a_killed_process_forked_does_not_hide_its_end(fork, tmp_path):
    def work(rank, line):
        if rank == 1 and os.fork() == 0:
            (tmp_path / "child").write_text(str(os.getpid()))
            time.sleep(20)
            os._exit(0)
        time.sleep(60)

    processes = fork(work)
    while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
        time.sleep(0.01)
    os.kill(processes.pids[1], signal.SIGKILL)
    assert processes.wait(5, 0, 2) == [lines.STATUS_LOST] * 2
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)  # it was alive all the time


def test_readers_of_images_end_with_their_process(fork, tmp_path):
    def work(rank, line):
        if rank == 0:
            reader = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
            reader.start()
            (tmp_path / "reader").write_text(str(reader.pid))
        time.sleep(60)

    processes = fork(work)
    while not (tmp_path / "reader").exists() or not (tmp_path / "reader").read_text():
        time.sleep(0.01)
    os.kill(processes.pids[2], signal.SIGKILL)
    assert processes.wait(5, 0, 1) == [lines.STATUS_LOST] * 2
    reader = int((tmp_path / "reader").read_text())
    end = time.monotonic() + 5
    while is_alive(reader):
        assert time.monotonic() < end
        time.sleep(0.01)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_messages_in_pieces_and_several_at_once():
    near, far = socket.socketpair()
    wire = Wire(far)
    near.sendall(b'{"a": 1}\n{"b"')
    assert wire.receive() == [{"a": 1}]
    near.sendall(b": 2}\n")
    assert wire.receive() == [{"b": 2}]
    near.close()
    assert wire.receive() is None
    wire.send({})  # is no error
    wire.close()
