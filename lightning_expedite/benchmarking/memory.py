"""Peak memory of a forward pass."""

from collections.abc import Callable

import torch
from torch import nn
from torch.distributed._tools.mem_tracker import MemTracker

MEBIBYTE = 1 << 20


def peak_memory_mib(model: nn.Module, call: Callable[[], object], device: torch.device) -> float:
    """Return the peak memory of a call in MiB, weights included; two calls of the same pass agree.

    On CUDA it is the maximum of PyTorch's allocator. A CPU has no such statistics, and resident memory differs between
    calls: there it is the maximum that the weights and the call's live tensors take together, without the workspace
    inside an operator.

    Args:
        model: The model that is called.
        call: The call, not compiled where it runs on a CPU.
        device: Where it computes.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) / MEBIBYTE
    tracker = MemTracker()
    tracker.track_external(model)
    with tracker:
        call()
    return float(tracker.get_tracker_snapshot("peak")[device]["Total"]) / MEBIBYTE
