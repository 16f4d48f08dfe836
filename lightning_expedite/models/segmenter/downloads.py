"""Files from the network: over HTTPS alone, whole or not at all, and with their checksums beside them."""

import fcntl
import hashlib
import http.client
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...errors import CheckpointError
from ...files import whole_file

CHECKSUM_SUFFIX = ".sha256"
_TIMEOUT_S = 20.0
_BLOCK_BYTES = 1 << 20


class NoAnswerError(Exception):
    """The host does not answer, breaks off, or sends the program to an address that is not HTTPS."""


def download(url: str, target: Path, sha256: str | None = None) -> None:
    """Download a file with a progress bar; it appears whole or not at all.

    Its SHA-256 is written beside it, to ``NAME.sha256``, as ``sha256sum --check`` reads it. Where that file is there
    already, from an earlier download, the new content has to agree with it. Of several processes that ask for one
    file, one downloads it, and the others wait.

    Args:
        url: An HTTPS address.
        target: Where the file is to stand; its folder is made where missing.
        sha256: The checksum or the start of it, where it is known.

    Raises:
        NoAnswerError: The host does not answer, breaks off, or redirects to an address that is not HTTPS.
        CheckpointError: The content has another checksum; nothing is kept then.
        OSError: The folder cannot be written to, or the disk is full; nothing is kept then either.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(target.parent):
        if target.is_file():  # another process was faster
            return
        found = hashlib.sha256()
        with whole_file(target) as stream:
            for block in _blocks(url, f"{target.parent.name}/{target.name}"):
                found.update(block)
                stream.write(block)
            _require_checksum(url, found.hexdigest(), sha256, checksum_file(target))
        with whole_file(checksum_file(target)) as stream:
            stream.write(f"{found.hexdigest()}  {target.name}\n".encode())


def checksum_file(target: Path) -> Path:
    """Give the file that holds the checksum of a downloaded file."""
    return target.with_name(f"{target.name}{CHECKSUM_SUFFIX}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes that download to a folder waiting."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems lock no folders: then each process downloads for itself
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _require_checksum(url: str, found: str, expected: str | None, record: Path) -> None:
    if expected is not None and not found.startswith(expected):
        raise CheckpointError(f"{url}: the checksum differs from {expected}...; nothing was kept, try again")
    recorded = record.read_text(encoding="utf-8", errors="replace").split() if record.is_file() else []
    if recorded and recorded[0] != found:
        raise CheckpointError(
            f"{url}: the checksum, {found}, differs from that of an earlier download, which {record} holds; nothing "
            "was kept. If the file was replaced by who published it, remove the record and try again"
        )


def _blocks(url: str, title: str) -> Iterator[bytes]:
    """Give the content of an address, block by block, and show how far it is."""
    from rich.markup import escape
    from rich.progress import wrap_file

    _require_https(url)
    opener = urllib.request.build_opener(_SecureRedirects)
    try:
        with opener.open(url, timeout=_TIMEOUT_S) as answer:
            length, done = answer.length, 0
            with wrap_file(answer, total=length or 0, description=escape(title)) as body:
                while block := body.read(_BLOCK_BYTES):
                    done += len(block)
                    yield block
            if length is not None and done != length:
                raise NoAnswerError(f"{url} broke off after {done} of {length} bytes")
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswerError(f"{url} does not answer ({getattr(error, 'reason', error)})") from error


def _require_https(url: str) -> None:
    if urlsplit(url).scheme != "https":
        raise NoAnswerError(f"{url} is no HTTPS address")


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request: Any, stream: Any, code: int, message: str, headers: Any, address: str) -> Any:
        if urlsplit(address).scheme != "https":
            raise NoAnswerError(f"{request.full_url} redirects to {address!r}, which is no HTTPS address")
        return super().redirect_request(request, stream, code, message, headers, address)
