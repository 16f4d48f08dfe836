"""Weights files: read as tensors alone, checked for damage, and written as safetensors."""

import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ...errors import CheckpointError, OutputError
from ...files import require_regular, write_atomically
from ...text import plain
from .settings import CHECKPOINT_FILE, WEIGHTS_FILE, is_file

CHECKSUM = "crc32"  # key in the metadata of model.safetensors

_MAX_EXPANSION, _SLACK_BYTES = 8, 1 << 20  # weights hardly compress: what claims to expand further is something else
_PICKLED = (b"PK\3\4", b"\x80\2")  # how torch.save's files begin, today's and those before PyTorch 1.6
_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.|model\.)+")  # of DataParallel, torch.compile and Lightning


def find_weights(path: Path) -> Path:
    """Return the weights file that a path names: the file itself, or the one in the folder."""
    if path.name.endswith(".index.json"):
        raise CheckpointError(f"{path} is the index of sharded weights; save them as one {WEIGHTS_FILE}")
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(
            f"{path} is neither a file nor a folder; expected a checkpoint, its folder or a known name"
        )
    for name in (WEIGHTS_FILE, CHECKPOINT_FILE):
        if is_file(path / name):
            return path / name
    if (path / f"{WEIGHTS_FILE}.index.json").exists():
        raise CheckpointError(f"{path} holds sharded weights; save them as one {WEIGHTS_FILE}")
    raise CheckpointError(f"{path} is a folder without {WEIGHTS_FILE} or {CHECKPOINT_FILE}")


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a weights file of PyTorch or safetensors, whatever its name, without running code from it.

    Returns:
        Tensors by key, without the prefixes of wrappers (``module.``, ``_orig_mod.``, ``model.``).

    Raises:
        CheckpointError: The file is damaged or of another kind, holds objects other than tensors, or no tensors.
    """
    try:
        require_regular(path)
        with path.open("rb") as stream:
            head = stream.read(32)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); expected a checkpoint file") from error
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a Git LFS pointer, not the weights; fetch them with `git lfs pull`")
    is_safetensors = head[8:9] == b"{" or (path.suffix == ".safetensors" and not head.startswith(_PICKLED))
    content: Any = _read_safetensors(path) if is_safetensors else _read_pickle(path)
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            if "model_ema" in content:
                warnings.warn(f"{path} holds model_ema beside {key}: {key} is loaded", stacklevel=2)
            content = content[key]
    state: dict[str, Tensor] = {}
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(key, str) and isinstance(value, Tensor):
            name = _WRAPPERS.sub("", key)
            if name in state:
                raise CheckpointError(f"{path}: {key} and another key both map to {name}; remove one of them")
            state[name] = value
    if not state:
        raise CheckpointError(f"{path}: holds no tensors under 'model', 'state_dict' or at its top")
    return state


def as_float32(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the weights in float32; refuse what is not a plain tensor of finite floating-point numbers."""
    weights = {}
    for key, value in state.items():
        is_plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_nested
        if not (is_plain and value.is_floating_point()):
            raise CheckpointError(f"{path}: {key} ({value.dtype}, {value.layout}) is not a plain floating-point tensor")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():  # a repeated one may claim any size
            raise CheckpointError(f"{path}: {key} claims the shape {tuple(value.shape)}, but the file holds less data")
        weights[key] = value.float()
    _check_finite(weights, f"{path}: ", "the training failed or the file is damaged: use another checkpoint")
    return weights


def write_weights(state: Mapping[str, Tensor], folder: Path, dtype: torch.dtype | None = None) -> Path:
    """Write ``model.safetensors`` into a folder, which is created where missing, and return its path.

    Raises:
        CheckpointError: A weight is beyond the range of ``dtype``.
        OutputError: The folder cannot be written to.
    """
    state = {key: value.detach().to("cpu", dtype).contiguous() for key, value in state.items()}
    _check_finite(state, f"stored as {dtype}, ", "they are beyond its range: use bfloat16 or float32")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made a folder: {error.strerror}") from error
    write_atomically(folder / WEIGHTS_FILE, safetensors.torch.save(state, {CHECKSUM: _checksum(state)}))
    return folder / WEIGHTS_FILE


def _check_finite(state: Mapping[str, Tensor], place: str, advice: str) -> None:
    for key, value in state.items():
        # A finite sum has finite terms, and is far cheaper than looking at each; it may also overflow without any.
        if not value.sum().isfinite() and not (finite := value.isfinite()).all():
            count = value.numel() - int(finite.sum())
            raise CheckpointError(
                f"{place}{key} has {count:,} of {value.numel():,} weights that are NaN or infinite; {advice}"
            )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safetensors.safe_open(path, "pt") as opened:
            stored = (opened.metadata() or {}).get(CHECKSUM)
            state = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a mapping)
        found = _checksum(state) if stored is not None else None
    except Exception as error:  # safetensors' own errors, and PyTorch's on types it does not know
        raise _damaged(path, plain(error)) from error
    if stored != found:
        raise _damaged(path, f"its checksum is {found}, not {stored} as stored in it")
    return state


def _checksum(state: Mapping[str, Tensor]) -> str:
    """Return the CRC-32 of all tensors' bytes, in the order of their names, as eight hexadecimal digits."""
    total = 0
    for name in sorted(state):
        total = zlib.crc32(state[name].contiguous().flatten().view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


def _read_pickle(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            _check_archive(path)
        with path.open("rb") as stream:  # by its name PyTorch would take it for safetensors
            return torch.load(stream, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # damaged files make zipfile and PyTorch fail in many ways
        # PyTorch's words for a pickle that it refuses advise to load it all the same.
        is_refused = isinstance(error, pickle.UnpicklingError)
        found = re.search(r"GLOBAL ([\w.]+)", str(error)) if is_refused else None
        if found is None:
            raise _damaged(path, "not a PyTorch checkpoint" if is_refused else plain(error)) from error
        raise CheckpointError(
            f"{path} holds objects other than tensors, which are never executed ({found[1]}). Save the tensors alone "
            "where the file comes from: torch.save({'state_dict': model.state_dict()}, 'weights.pth')"
        ) from error


def _check_archive(path: Path) -> None:
    """Check the zip archive that ``torch.save`` writes, whose checksums ``torch.load`` ignores."""
    with zipfile.ZipFile(path) as archive:
        size, content = path.stat().st_size, sum(member.file_size for member in archive.infolist())
        if content > _MAX_EXPANSION * size + _SLACK_BYTES:
            raise _damaged(path, f"its {size:,} bytes claim to hold {content:,}")
        damaged = archive.testzip()
    if damaged is not None:
        raise _damaged(path, f"at {plain(damaged)}")


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged or of another kind ({reason}); fetch it again")
