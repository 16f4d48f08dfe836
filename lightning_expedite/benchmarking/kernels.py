"""Which kernels compute: what the device offers, and what attention really ran on."""

import subprocess
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .operations import operator_name


class AttentionRecorder(TorchDispatchMode):
    """Notes, in inference mode, which operators compute attention."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator; one that chooses among implementations is taken apart to see which it chooses."""
        named = kwargs or {}
        name = operator_name(func)
        if name.startswith("_scaled_dot_product"):
            self.names.add(name)
        with self:
            result = func.decompose(*args, **named)
        return func(*args, **named) if result is NotImplemented else result


def attention_kernels(call: Callable[[], object]) -> list[str]:
    """Name the implementations of scaled dot-product attention that an uncompiled call uses.

    Returns:
        Operators' names as PyTorch dispatches them, such as ``_scaled_dot_product_flash_attention``.
    """
    with AttentionRecorder() as record:
        call()
    return sorted(record.names)


def describe_kernels(device: torch.device) -> dict[str, Any]:
    """Give what of the device and of PyTorch's build decides about kernels."""
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        **(_describe_cuda(device) if device.type == "cuda" else _describe_cpu()),
    }


def _describe_cpu() -> dict[str, Any]:
    features = {name: getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile")}
    return {
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "onednn": torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled,
        "float32_matmul": torch.backends.mkldnn.matmul.fp32_precision,  # type: ignore[attr-defined]
        "mkl": torch.backends.mkl.is_available(),
        **{name: None if supported is None else bool(supported()) for name, supported in features.items()},
    }


def _describe_cuda(device: torch.device) -> dict[str, Any]:
    backends = torch.backends.cuda
    properties = torch.cuda.get_device_properties(device)
    return {
        "driver": nvidia_driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "compute_capability": f"{properties.major}.{properties.minor}",
        "memory_mib": properties.total_memory / (1 << 20),
        # By their newer names: the older ones raise an error where somebody has set the newer.
        "float32_matmul": backends.matmul.fp32_precision,
        "float32_convolution": torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
        "attention_enabled": {
            "flash": backends.flash_sdp_enabled(),
            "efficient": backends.mem_efficient_sdp_enabled(),
            "cudnn": backends.cudnn_sdp_enabled(),
            "math": backends.math_sdp_enabled(),
        },
    }


def nvidia_driver() -> str | None:
    """Give the version of NVIDIA's driver, or ``None`` where its tool does not answer."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(answer.split()), None)
