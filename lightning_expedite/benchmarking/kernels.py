"""The properties of a device and of PyTorch's build that decide about kernels."""

from typing import Any

import torch
from torch.utils.collect_env import get_nvidia_driver_version, run


def describe_kernels(device: torch.device) -> dict[str, Any]:
    """Return the properties that decide which kernels compute, and how precisely, in JSON's types."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    if device.type != "cuda":
        return {
            "deterministic": deterministic,
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "onednn": torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled,
            "float32_matmul": torch.backends.mkldnn.matmul.fp32_precision,  # type: ignore[attr-defined]
            "mkl": torch.backends.mkl.is_available(),
        }
    backends = torch.backends.cuda
    properties = torch.cuda.get_device_properties(device)
    return {
        "deterministic": deterministic,
        "driver": get_nvidia_driver_version(run),
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
