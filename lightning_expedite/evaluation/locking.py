"""A lock that keeps two runs from writing to the same folder."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ..errors import OutputError

LOCK_FILE = ".lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder; the system lets go of it when this process ends, however it ends.

    A lock of the process, not of the open file, is taken: processes forked from this one, such as those that read
    images, may outlive it for seconds and must not go on holding it.

    Raises:
        OutputError: Another process holds the folder, or it cannot be written to.
    """
    path = folder / LOCK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = _open_and_lock(path)
    except OSError as error:
        raise OutputError(f"--output {folder} cannot be written to: {error.strerror}") from error
    with stream:
        with suppress(OSError):  # a full disk; it is only for a second run's message
            os.truncate(stream.fileno(), 0)
            os.write(stream.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _open_and_lock(path: Path) -> IO[str]:
    while True:
        stream = path.open("a+", encoding="utf-8")
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            stream.seek(0)
            holder = stream.read().strip() or "another process"
            stream.close()
            raise OutputError(
                f"--output {path.parent} is in use by {holder}: wait until it has ended, or give another folder"
            ) from error
        except OSError:
            return stream  # a file system without locks; files appear whole in any case
        try:
            if os.fstat(stream.fileno()).st_ino == path.stat().st_ino:
                return stream
        except FileNotFoundError:
            pass
        stream.close()  # its last holder has taken it away since
