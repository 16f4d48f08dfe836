"""The environment that a result was computed in."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from ..version import __version__

_PACKAGES = (
    "torch",
    "pytorch-lightning",
    "timm",
    "torchmetrics",
    "segmentation-models-pytorch",
    "albumentations",
)


def describe_environment(device: torch.device, precision: str, processes: int = 1) -> dict[str, Any]:
    """Return versions, device, precision, processes, threads and the commit of a source checkout.

    Args:
        device: Where the model runs.
        precision: As Lightning names it, such as ``32-true``.
        processes: Number of processes of the run.
    """
    return {
        "lightning_expedite": __version__,
        "commit": source_commit(),
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "device_type": device.type,
        "precision": precision,
        "processes": processes,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }


def source_commit() -> str | None:
    """Return the commit of the source checkout this package runs from; ``None`` where it is installed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("-dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """Return the name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
