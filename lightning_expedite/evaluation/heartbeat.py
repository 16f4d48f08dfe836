"""The callback that lets a run of several processes end when one of them is lost."""

import os
import secrets
import socket
import time
from dataclasses import dataclass
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from torch import distributed

from ..errors import message_for
from .lines import Line, Process, Switchboard, Wire

CONNECT_SECONDS = 30.0
"""How long processes try to reach the first one."""


class Heartbeat(Callback):
    """Ends all processes, with a message, within seconds after one of them was lost or stopped with an error.

    Without it the others notice nothing before they next exchange something, which may be hours later. It also makes
    processes that finish early wait for the others for as long as it takes, before the exchanges of the process group,
    whose patience is limited, and at the end. With one process it does nothing.

    A process that is killed is noticed at once, a host that is lost after 30 s; see `lines`.
    """

    def __init__(self) -> None:
        self._line: Line | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Connect the processes."""
        if trainer.world_size > 1 and distributed.is_available() and distributed.is_initialized():
            self._line = connect(trainer.global_rank)
        if self._line is not None:
            dismiss_observer(trainer)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for all processes before their counts are summed."""
        self._meet()

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for all processes before any of them calls the run finished."""
        self._meet()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wait until all processes have finished; from here on none is missed."""
        self._meet(last=True)
        self._line = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Tell the others why this process is about to end."""
        if self._line is not None:
            self._line.fail(reason_of(exception))
            self._line = None

    def _meet(self, last: bool = False) -> None:
        if self._line is not None:
            self._line.meet(last)


def reason_of(exception: BaseException) -> str:
    """Give one line about an error: its message where that tells the user what to mend, else its kind too."""
    if isinstance(exception, (KeyboardInterrupt, SystemExit)):
        return "it was interrupted"
    message = message_for(exception) or f"{type(exception).__name__}: {exception}"
    return next(iter(message.splitlines()), "")


def dismiss_observer(trainer: Trainer) -> None:
    """Leave nothing to do for Lightning's own observer, which kills everything, itself first, without a word.

    It runs in the process that started the others, and watches a list of them until that is empty.
    """
    launcher = trainer.strategy.launcher
    watched = getattr(launcher, "procs", None)
    if isinstance(watched, list):
        launcher.procs = [*watched]  # type: ignore[union-attr]  # still needed to end them on Ctrl+C
        watched.clear()


@dataclass(frozen=True)
class Introduction:
    """What each process says of itself, the first one with where it can be reached."""

    process: Process
    addresses: tuple[str, ...] = ()
    port: int = 0
    token: str = ""


def connect(rank: int) -> Line | None:
    """Connect every process with the first one; all of them have to call this.

    Returns:
        This process's line, or ``None``, after a warning, where some process could not reach the first one.
    """
    door = open_door() if rank == 0 else None
    introductions = introduce(rank, door)
    first = introductions[0]
    wires: dict[int, Wire] = {}
    wire: Wire | None
    if door is None:
        wire = ring(first, rank)
    else:
        with door:
            wires = welcome(door, first.token, len(introductions) - 1)
        own, wire = map(Wire, socket.socketpair())
        wires[0] = own
    reached = everyone(wire is not None and (rank > 0 or len(wires) == len(introductions)))
    processes = [introduction.process for introduction in introductions]
    if not all(reached):
        for opened in (*wires.values(), *([wire] if wire else [])):
            opened.close()
        places = sorted({process.host for process, ok in zip(processes, reached, strict=True) if not ok})
        rank_zero_warn(
            f"processes on {', '.join(places)} found no connection to process 0 at port {first.port} of "
            f"{' or '.join(first.addresses)}: should a process be lost, the others will notice late"
        )
        return None
    assert wire is not None
    if rank == 0:
        Switchboard(wires).start()
    line = Line(rank, processes, wire)
    line.start()
    return line


def introduce(rank: int, door: socket.socket | None) -> list[Introduction]:
    """Let every process know all, and where the first one can be reached."""
    own = Introduction(Process.this(rank))
    if door is not None:
        own = Introduction(own.process, own_addresses(), door.getsockname()[1], secrets.token_hex(16))
    return everyone(own)


def everyone(own: Any) -> list[Any]:
    """Give what every process says, by rank."""
    said: list[Any] = [own] * distributed.get_world_size()
    distributed.all_gather_object(said, own)
    return said


def open_door() -> socket.socket:
    """Listen on a free port of all the host's addresses."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def own_addresses() -> tuple[str, ...]:
    """Give names of this host: the process group's, and the address that leads to it, where they are two."""
    group = os.environ.get("MASTER_ADDR", "127.0.0.1")
    addresses = [group]
    try:
        family, kind, _, _, address = socket.getaddrinfo(group, 1, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # sends nothing
            addresses.append(probe.getsockname()[0])
    except OSError:
        pass  # the group's name alone then
    return tuple(dict.fromkeys(addresses))


def ring(first: Introduction, rank: int) -> Wire | None:
    """Connect to the first process; ``None`` where it cannot be reached."""
    for address in first.addresses:
        try:
            connected = socket.create_connection((address, first.port), timeout=CONNECT_SECONDS / len(first.addresses))
        except OSError:
            continue
        wire = Wire(connected)
        wire.send({"rank": rank, "token": first.token})
        if first_message(wire) == {"welcome": True}:
            connected.settimeout(None)
            return wire
        wire.close()
    return None


def welcome(door: socket.socket, token: str, number: int) -> dict[int, Wire]:
    """Wait for the other processes and give their connections by rank; strangers are turned away."""
    wires: dict[int, Wire] = {}
    end = time.monotonic() + CONNECT_SECONDS
    while len(wires) < number and (left := end - time.monotonic()) > 0:
        door.settimeout(left)
        try:
            connected, _ = door.accept()
        except TimeoutError:
            break
        connected.settimeout(min(left, 5.0))
        wire = Wire(connected)
        message = first_message(wire)
        if not secrets.compare_digest(str(message.get("token")), token):
            wire.close()
            continue
        wire.send({"welcome": True})
        connected.settimeout(None)
        wires[message["rank"]] = wire
    return wires


def first_message(wire: Wire) -> dict[str, Any]:
    """Wait for a connection's first message; empty where it is none of this project's."""
    messages: list[Any] | None = []
    while messages == []:
        try:
            messages = wire.receive()
        except ValueError:
            return {}
    return messages[0] if messages and isinstance(messages[0], dict) else {}
