"""The sweep's side of its worker process: starts it, asks it, and starts another one when it dies."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import IO, Any

_POLL_S = 0.2


@dataclass(frozen=True)
class Answer:
    """What came of a job: an exit status, 0 where it was done, else the error; and a value where it has one."""

    status: int
    error: str = ""
    value: Any = None


class Worker:
    """A process that imports torch once and does one job after another (`worker.main`).

    It leads a process group of its own, with the loaders and ranks that its jobs start. The group ends with it, and it
    ends with this process: its standard input, held open here, is then at its end.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._unread = b""

    def start(self) -> None:
        """Start the process, so that it imports while this one does other things."""
        if self._process is not None:
            return
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._unread = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lightning_expedite.search.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            start_new_session=True,
        )

    def ask(self, job: dict[str, Any]) -> Answer:
        """Have a job done; where the process dies of it, tell so, and the next job gets another one."""
        if self._process is not None and self._process.poll() is not None:
            self.close()  # it died while it had nothing to do
        self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        line: bytes | None = None
        try:
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            line = self._read_line(self._process)
        except BrokenPipeError:
            pass  # it has died just now
        if line is None:
            return Answer(-1, self._bury(self._process))
        content = json.loads(line)
        if not content.pop("usable"):
            self.close()
        return Answer(**content)

    def close(self) -> None:
        """End the process and all that it started."""
        if self._process is None:
            return
        kill_group(self._process.pid)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()
        self._process = self._errors = None

    def _read_line(self, process: subprocess.Popen[bytes]) -> bytes | None:
        """Wait for an answer; ``None`` where the process ends without one.

        The end of the pipe alone would not tell: a loader's process may hold it open for longer.
        """
        assert process.stdout is not None
        while b"\n" not in self._unread:
            ended = process.poll() is not None  # before the look at the pipe: what it wrote last is not missed
            if select.select([process.stdout], [], [], 0 if ended else _POLL_S)[0]:
                block = os.read(process.stdout.fileno(), 1 << 16)
                self._unread += block
                if block:
                    continue
                process.wait()
                ended = True
            if ended:
                return None
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _bury(self, process: subprocess.Popen[bytes]) -> str:
        """Give the last words of a process that died, and forget it."""
        status = process.wait()
        assert self._errors is not None
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip().splitlines()
        self.close()
        return f"{how_it_ended(status)}{f': {words[-1]}' if words else ''}"


def how_it_ended(status: int) -> str:
    """Say how a process ended that gave no error of its own."""
    if status >= 0:
        return f"its process ended with status {status}"
    name = signal.Signals(-status).name
    reason = ", as the kernel does where memory runs out" if -status == signal.SIGKILL else ""
    return f"its process was killed by {name}{reason}"


def kill_group(leader: int) -> None:
    """Kill a process group, if there is anything left of it."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
