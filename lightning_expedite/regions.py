"""Named regions of a forward pass, as profilers show them."""

from contextlib import AbstractContextManager, nullcontext

import torch


def region(name: str) -> AbstractContextManager[object]:
    """Return a context that labels its content in a PyTorch profile, and costs next to nothing without a profiler.

    Args:
        name: Such as ``embed``, ``block 3``, ``cluster: assign`` or ``decoder``.
    """
    if torch.compiler.is_compiling() or not torch.autograd._profiler_enabled():  # type: ignore[attr-defined]
        return nullcontext()
    return torch.profiler.record_function(f"expedite: {name}")
