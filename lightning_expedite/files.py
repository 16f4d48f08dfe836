"""Files that are either whole or not there, and the folders they go to."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import OutputError


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write that appears, whole, only when the block ends without an error."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)  # mkstemp's own mode would hide the file from a group
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part.

    Raises:
        OutputError: The folder cannot be written to, or the disk is full.
    """
    try:
        with whole_file(path) as stream:
            stream.write(content)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def claim_output(output: Path, result: Path, overwrite: bool) -> None:
    """Make the output folder, or refuse, before any work, one that holds a result already.

    Args:
        output: Folder that the run writes to.
        result: File or folder in it whose presence tells of an earlier run.
        overwrite: Whether an earlier result may be replaced.

    Raises:
        OutputError: There is a result and ``overwrite`` is not set, or the folder cannot be made.
    """
    # Names with a dot are those of files that were being written when a run was killed.
    files = (path for path in result.iterdir() if not path.name.startswith(".")) if result.is_dir() else ()
    taken = any(files) if result.is_dir() else result.exists()
    if taken and not overwrite:
        raise OutputError(f"{result} exists already; give --overwrite or another --output")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--output {output} cannot be made a folder: {error.strerror}") from error


def sha256_of(path: Path) -> str:
    """Give the SHA-256 of a file's content.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
