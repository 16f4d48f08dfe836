"""A device that runs out of memory: how to tell, and how to make room for another attempt."""

import gc

import torch

_SIGNS = (
    "can't allocate memory",  # the CPU's allocator, which has no class of its own for it
    "CUDA out of memory",  # where a compiler repeats the words of another error
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
)


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out: CUDA has a class for it, all others only words."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
    )


def free_cached_memory() -> None:
    """Hand freed GPU memory back, so that a smaller batch finds room."""
    gc.collect()  # what refers to itself is not freed yet
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
