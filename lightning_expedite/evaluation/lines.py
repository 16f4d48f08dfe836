"""Connections between the processes of a run: over them each learns at once that another has ended.

Every process holds one connection, a `Line`, to a `Switchboard` in the first process, which has one to itself too. What
is watched is the connection, not a clock. When a process ends, however it ends, its operating system closes its
connections. When a host is lost, the probes that TCP's keep-alive sends stay without an answer. It is the operating
system that answers them: a process that is stopped, swapped out or busy in a library is not taken for a lost one.
"""

import json
import multiprocessing
import os
import selectors
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

PROBE_AFTER = 10
"""Seconds without a word after which the operating system asks whether the other host is still there."""
PROBE_EVERY = 5
"""Seconds between such questions."""
PROBES = 4
"""Questions without an answer after which the other host is lost: 30 s in all."""
GRACE = 10.0
"""Seconds that a process that failed has to write its own message before the others end."""
STATUS_LOST = 75
"""Exit status of a process that ends because another was lost (``EX_TEMPFAIL``: it is worth trying again)."""
STATUS_FAILED = 2
"""Exit status of a process that ends because another stopped with an error, as after any error."""

_open: set["Wire"] = set()


@dataclass(frozen=True)
class Process:
    """One process of a run."""

    rank: int
    host: str
    pid: int

    @classmethod
    def this(cls, rank: int) -> "Process":
        """Describe this process."""
        return cls(rank, socket.gethostname(), os.getpid())


class Wire:
    """One end of a connection that carries short messages, each a line of JSON.

    Args:
        connected: The socket.
    """

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._rest = b""
        if connected.family in (socket.AF_INET, socket.AF_INET6):
            keep_alive(connected)
        _open.add(self)

    def fileno(self) -> int:
        """Give the file descriptor, for `selectors`."""
        return self.socket.fileno()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; that the other end is gone is for `receive` to tell."""
        with suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """Wait for messages; ``None`` when there will be no more, as the other end is gone."""
        try:
            data = self.socket.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Close this end."""
        _open.discard(self)
        self.socket.close()


def keep_alive(connected: socket.socket) -> None:
    """Let the operating system notice that the other host is lost, as fast as it can be told to."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        "TCP_KEEPIDLE": PROBE_AFTER,
        "TCP_KEEPALIVE": PROBE_AFTER,  # the same on macOS
        "TCP_KEEPINTVL": PROBE_EVERY,
        "TCP_KEEPCNT": PROBES,
        "TCP_USER_TIMEOUT": 1000 * (PROBE_AFTER + PROBES * PROBE_EVERY),  # for what was sent and not acknowledged
        "TCP_NODELAY": 1,
    }
    for name, value in options.items():
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _close_copies() -> None:
    """Close what a forked process inherited: its copies would keep the connections of a killed parent open."""
    for wire in _open:
        wire.socket.close()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_copies)


@dataclass
class Switchboard:
    """The first process's side: brings processes together, and tells all of them when one has ended.

    Args:
        wires: A connection to each process, by rank, the first one itself included.
    """

    wires: dict[int, Wire]
    _arrived: set[int] = field(default_factory=set)
    _over: bool = False

    def start(self) -> None:
        """Watch from a thread of its own."""
        threading.Thread(target=self._watch, name="switchboard", daemon=True).start()

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for rank, wire in self.wires.items():
                selector.register(wire, selectors.EVENT_READ, rank)
            while not self._over:
                for key, _ in selector.select():
                    messages = self.wires[key.data].receive()
                    if messages is None:
                        selector.unregister(key.fileobj)
                        self._tell({"ended": key.data})
                    for message in messages or ():
                        self._handle(key.data, message)
        for wire in self.wires.values():
            wire.close()

    def _handle(self, rank: int, message: Mapping[str, Any]) -> None:
        if "failed" in message:
            self._tell({**message, "rank": rank})
            return
        self._arrived.add(rank)
        if len(self._arrived) == len(self.wires):
            self._arrived.clear()
            self._over = message["last"]
            self._tell({"go": True})

    def _tell(self, message: Mapping[str, Any]) -> None:
        for rank in sorted(self.wires, reverse=True):  # this process, which may end by it, at last
            self.wires[rank].send(message)


class Line:
    """A process's side: waits for the others where all have to meet, and ends this process when another has ended.

    Args:
        rank: This process.
        processes: All processes, by rank.
        wire: The connection to the switchboard.
    """

    def __init__(self, rank: int, processes: Sequence[Process], wire: Wire) -> None:
        self.rank = rank
        self.processes = processes
        self._wire = wire
        self._go = threading.Event()
        self._last = False
        self._leaving = False
        self._failure: tuple[int, str] | None = None

    def start(self) -> None:
        """Watch from a thread of its own."""
        threading.Thread(target=self._watch, name="line", daemon=True).start()

    def meet(self, last: bool = False) -> None:
        """Wait, for as long as it takes, until every process has called this.

        Args:
            last: Whether this is the end: no process is missed from here on.
        """
        self._go.clear()
        self._last = last  # after that: the thread that watches stops where both are set
        self._wire.send({"here": True, "last": last})
        self._go.wait()

    def fail(self, reason: str) -> None:
        """Tell the others why this process is about to end, and watch them no longer."""
        self._leaving = True
        self._wire.send({"failed": reason})

    def _watch(self) -> None:
        while not (self._leaving or (self._last and self._go.is_set())):
            for message in self._messages():
                self._handle(message)
        if not self._leaving:  # else the connection ends with the process, which is what the others wait for
            self._wire.close()

    def _messages(self) -> Iterator[dict[str, Any]]:
        """Give what comes next; the loss of the switchboard, and of patience, are messages too."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._wire, selectors.EVENT_READ)
            ready = selector.select(None if self._failure is None else GRACE)
        messages = self._wire.receive() if ready else None
        yield from [{"ended": 0 if self._failure is None else self._failure[0]}] if messages is None else messages

    def _handle(self, message: Mapping[str, Any]) -> None:
        if self._leaving:
            return
        if "failed" in message:
            self._failure = self._failure or (message["rank"], message["failed"])
        elif "ended" in message:
            self._end(message["ended"])
        else:
            self._go.set()

    def _end(self, rank: int) -> None:
        reason = None
        if self._failure is not None:
            rank, reason = self._failure
        end_hard(farewell(self.processes[rank], len(self.processes), reason), reason is None)


def farewell(process: Process, number: int, reason: str | None) -> str:
    """Say which process ended and what to do; ``reason`` is what it said itself, if anything."""
    who = f"process {process.rank} of {number} (pid {process.pid} on {process.host})"
    again = "the same command with --resume true goes on from the images that are done"
    if reason is None:
        return f"{who} was lost: it was killed, for lack of memory perhaps, or its host is gone; {again}"
    return f"{who} stopped with an error: {reason}; when that is mended, {again}"


def end_hard(message: str, lost: bool) -> None:
    """Write an error and end this process and its readers of images at once, whatever its main thread waits for."""
    cursor = "\x1b[?25h" if sys.stderr is not None and sys.stderr.isatty() else ""  # a progress bar hides it
    os.write(2, f"{cursor}\nerror: {message}\n".encode())
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(STATUS_LOST if lost else STATUS_FAILED)
