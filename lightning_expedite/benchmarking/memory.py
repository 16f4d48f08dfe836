"""Peak memory of a call."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # what the kernel takes as: set the peak of resident memory to its present value
MEBIBYTE = 1 << 20


def peak_memory_mib(call: Callable[[], object], device: torch.device) -> float | None:
    """Give the peak memory of a call in MiB.

    On CUDA it is what PyTorch has allocated at most, weights and input included. On the CPU (Linux) it is by how much
    the process's resident memory rose above what it was before, so without weights and input.

    Returns:
        MiB, or ``None`` where the system does not tell.
    """
    return _cuda_peak(call, device) if device.type == "cuda" else _resident_rise(call)


def _cuda_peak(call: Callable[[], object], device: torch.device) -> float:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) / MEBIBYTE


def _resident_rise(call: Callable[[], object]) -> float | None:
    give_back_free_memory()
    before = resident_mib("VmRSS") if reset_resident_peak() else None
    if before is None:
        return None
    call()
    peak = resident_mib("VmHWM")
    return None if peak is None else max(peak - before, 0.0)


def reset_resident_peak() -> bool:
    """Set the peak of this process's resident memory to what it is now, and tell whether the system did."""
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return True


def resident_mib(name: Literal["VmRSS", "VmHWM"]) -> float | None:
    """Read this process's resident memory, or its peak, in MiB; ``None`` where the system does not tell."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()  # the process's name may be any
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), None)


def give_back_free_memory() -> None:
    """Let the C library return freed memory: a call that used it again would show no rise."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return  # another C library, or another system
