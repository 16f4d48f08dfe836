"""Files of weights before they are read: nothing that stalls, floods the memory or was changed on its way."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...errors import CheckpointError
from ...files import require_regular

CHECKSUM = "crc32"
"""Key of the checksum in the metadata of ``model.safetensors``."""

_ZIP_START = b"PK\x03\x04"
_MOST_EXPANSION = 8  # weights hardly shrink: an archive that claims to grow more than this holds something else
_SLACK_BYTES = 1 << 20
_BLOCK = 1 << 20


def require_openable(path: Path) -> None:
    """Raise `CheckpointError` for what is no regular file: opening a pipe would wait without end."""
    try:
        require_regular(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); give a checkpoint file") from error


def check_archive(path: Path) -> None:
    """Check the zip archive that ``torch.save`` writes, whose checksums ``torch.load`` does not look at.

    Files of other kinds, such as those of PyTorch before 1.6, are left to ``torch.load``: they hold no checksum.

    Raises:
        CheckpointError: The archive is damaged, or its content would be many times its size.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(len(_ZIP_START)) != _ZIP_START:
                return
        with zipfile.ZipFile(path) as archive:
            size, content = path.stat().st_size, sum(member.file_size for member in archive.infolist())
            if content > _MOST_EXPANSION * size + _SLACK_BYTES:
                raise CheckpointError(
                    f"{path} is damaged or no checkpoint: its {size:,} bytes claim to hold {content:,}; fetch it again"
                )
            for member in archive.infolist():
                _read_through(archive, member)
    except CheckpointError:
        raise
    except Exception as error:  # damaged archives make zipfile fail in many ways
        raise CheckpointError(f"{path} is damaged ({error}); fetch it again") from error


def checksum(state: Mapping[str, Tensor]) -> str:
    """Give the CRC-32 of all tensors' bytes, in the order of their names, as eight hexadecimal digits."""
    total = 0
    for name in sorted(state):
        total = zlib.crc32(state[name].contiguous().flatten().view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


def check_sum(state: Mapping[str, Tensor], metadata: Mapping[str, str] | None, path: Path) -> None:
    """Raise `CheckpointError` where a safetensors file names a checksum that its tensors do not have."""
    said = (metadata or {}).get(CHECKSUM)
    if said is not None and said != (found := checksum(state)):
        raise CheckpointError(f"{path} is damaged: its checksum is {found}, not {said} as it says; fetch it again")


def _read_through(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    with archive.open(member) as stream:
        while stream.read(_BLOCK):
            pass
