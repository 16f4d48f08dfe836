"""Shards: the parts of a sweep that several machines work on, and the lock that keeps two from the same one."""

import fcntl
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from ..errors import ConfigError, OutputError

Item = TypeVar("Item")
_LOCK_NAME = re.compile(r"\.shard_(\d+)_of_(\d+)\.lock")


@dataclass(frozen=True)
class Shard:
    """Part ``number`` (from 1) of ``count``."""

    number: int = 1
    count: int = 1

    def take(self, items: Sequence[Item]) -> list[Item]:
        """Give this part of the items: every ``count``-th, as neighbours in a grid cost about the same."""
        return list(items[self.number - 1 :: self.count])

    @property
    def lock_name(self) -> str:
        """Name of the lock's file in the sweep's folder."""
        return f".shard_{self.number}_of_{self.count}.lock"


def read_shard(text: str) -> Shard:
    """Read ``I/N``.

    Raises:
        ConfigError: It is not of that form, or I is not between 1 and N.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    shard = Shard(int(match[1]), int(match[2])) if match else None
    if shard is None or not 1 <= shard.number <= shard.count:
        raise ConfigError(f"--shard is {text!r}: it must be I/N, such as 2/4, with I from 1 to N")
    return shard


@contextmanager
def locked(output: Path, shard: Shard) -> Iterator[None]:
    """Hold a shard of a folder; the system lets go of it when the process ends, however it ends.

    Raises:
        OutputError: Another process holds this shard, or one of another division, or the folder cannot be written to.
    """
    path = output / shard.lock_name
    try:
        output.mkdir(parents=True, exist_ok=True)
        stream = path.open("ab")
    except OSError as error:
        raise OutputError(f"--output {output} cannot be written to: {error.strerror}") from error
    with stream:
        if not _acquire(stream):
            raise OutputError(f"another process works on shard {shard.number}/{shard.count} of {output}")
        for other in _other_divisions(output, shard):
            with other.open("ab") as held:
                if not _acquire(held):
                    raise OutputError(
                        f"another process works on {output} in another division, {other.name}: "
                        "all processes of a sweep must be given the same number of shards"
                    )
        yield


def _other_divisions(output: Path, shard: Shard) -> list[Path]:
    locks = ((path, _LOCK_NAME.fullmatch(path.name)) for path in output.glob(".shard_*.lock"))
    return [path for path, match in locks if match and int(match[2]) != shard.count]


def _acquire(stream: IO[bytes]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks; files appear whole in any case
    return True
