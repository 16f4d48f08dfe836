"""The journal of finished images, from which an interrupted run goes on.

Every process of a run appends to a file of its own: first what the run is of, twice, since all else depends on it, then
a line for each finished image. A line carries its checksum, so that one that was cut off by the end of the process or
of the disk is told from a whole one. Lines are given to the system at once, which keeps them when the process is
killed, and to the disk every few seconds, which keeps them when the machine stops.
"""

import contextlib
import json
import os
import secrets
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..files import write_atomically

SUFFIX = ".jsonl"
HEADERS = 2
SECONDS_TO_DISK = 2.0  # between writes that wait for the disk: what the end of a machine may cost

Record = dict[str, Any]


class JournalWriter:
    """Appends records to a new file.

    Args:
        folder: Where the files of all processes are; it is made where missing.
        run: What the run is of.

    Raises:
        OutputError: The file cannot be made, or the disk is full.
    """

    def __init__(self, folder: Path, run: Record) -> None:
        self.path = folder / f"{secrets.token_hex(8)}{SUFFIX}"
        self._to_disk = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
            _folder_to_disk(folder)
        except OSError as error:
            raise _not_written(self.path, error) from error
        for _ in range(HEADERS):
            self.add(run)

    def add(self, record: Record) -> None:
        """Append a record.

        Raises:
            OutputError: The disk is full, or the file cannot be reached any more.
        """
        left = _line(record)
        try:
            while left:
                left = left[os.write(self._file, left) :]
            if time.monotonic() - self._to_disk >= SECONDS_TO_DISK:
                os.fsync(self._file)
                self._to_disk = time.monotonic()
        except OSError as error:
            raise _not_written(self.path, error) from error

    def close(self) -> None:
        """Close the file; what was added stays."""
        if self._file >= 0:
            with contextlib.suppress(OSError):  # the run's own error, if there is one, tells more
                os.fsync(self._file)
            os.close(self._file)
            self._file = -1


@dataclass
class Journal:
    """What the files of a folder hold together."""

    folder: Path
    run: Record | None = None
    records: list[Record] = field(default_factory=list)
    damaged: int = 0  # lines that are not what was written, other than a last one cut off

    @property
    def files(self) -> list[Path]:
        """All files of the folder."""
        try:
            return sorted(path for path in self.folder.iterdir() if path.suffix == SUFFIX)
        except (FileNotFoundError, NotADirectoryError):  # a process that ended meanwhile has put it away
            return []

    def merge(self) -> None:
        """Put all records into one file, so that interruptions do not add up.

        Raises:
            OutputError: It cannot be written; the files are then as they were.
        """
        old = self.files
        merged = self.folder / f"{secrets.token_hex(8)}{SUFFIX}"
        write_atomically(merged, b"".join(_line(record) for record in (*[self.run or {}] * HEADERS, *self.records)))
        for path in old:
            path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Take the folder and its files away."""
        for path in self.files:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it is not there, or something else is in it
            self.folder.rmdir()


def read_journal(folder: Path) -> Journal:
    """Read the files of a folder.

    Records of an image that several files hold count once. Lines that are not as they were written are left out: their
    images are computed again.

    Raises:
        OutputError: A file cannot be read, or the files are of different runs.
    """
    journal = Journal(folder)
    known: set[int] = set()
    for path in journal.files:
        lines, damaged = _read_lines(path)
        journal.damaged += damaged
        if not lines:
            continue
        run, records = lines[0], [line for line in lines if _is_image(line)]
        if journal.run is not None and run != journal.run:
            raise OutputError(f"{folder} holds parts of different runs; give --overwrite to begin anew")
        journal.run = run
        for record in records:
            if record["index"] not in known:
                known.add(record["index"])
                journal.records.append(record)
    return journal


def _read_lines(path: Path) -> tuple[list[Record], int]:
    """Give a file's records, what the run is of first, and how many lines are damaged: all where that is.

    What follows the last end of a line is a line that was cut off: the process ended there.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:  # a process that ended meanwhile has put it away
        return [], 0
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror}") from error
    records = [_record(line) for line in lines]
    whole = [record for record in records if record is not None]
    if not whole or _is_image(whole[0]):
        return [], len(records)
    return whole, len(records) - len(whole)


def _is_image(record: Record) -> bool:
    return "index" in record


def _folder_to_disk(folder: Path) -> None:
    """Keep that a new file is in the folder, even if the machine stops."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every file system takes it
            os.fsync(handle)
    finally:
        os.close(handle)


def _line(record: Record) -> bytes:
    text = json.dumps(record, allow_nan=False, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _record(line: bytes) -> Record | None:
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        record: Record = json.loads(text)
    except (ValueError, RecursionError):  # a checksum that somebody else computed
        return None
    return record if isinstance(record, dict) and (not _is_image(record) or _names_image(record)) else None


def _names_image(record: Record) -> bool:
    index, name = record["index"], record.get("name")
    return type(index) is int and index >= 0 and isinstance(name, str)


def _not_written(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path} cannot be written: {error.strerror or error}; finished images are kept: mend that, then go on with "
        "--resume true"
    )
