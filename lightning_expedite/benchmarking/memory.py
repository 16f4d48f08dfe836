"""Peak memory of a forward pass."""

import weakref
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

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
    if device.type != "cuda":
        with LiveMemory(model) as memory:
            call()
        return memory.peak / MEBIBYTE
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) / MEBIBYTE


class LiveMemory(TorchDispatchMode):
    """Follows, in inference mode, the storages of a model's weights and of all tensors that operators return.

    Attributes:
        live: Bytes of the storages that are alive now.
        peak: Maximum of ``live``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known = WeakIdKeyDictionary()
        for weight in chain(model.parameters(), model.buffers()):
            self._add(weight)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and add the storages that it has allocated."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self._known:  # else a view, or a result in place
            self._known[storage] = True
            weakref.finalize(storage, self._free, storage.nbytes()).atexit = False
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)

    def _free(self, size: int) -> None:
        self.live -= size
