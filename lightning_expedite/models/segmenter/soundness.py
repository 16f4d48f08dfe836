"""What stored tensors have to be before a model is made of them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ...errors import CheckpointError


def require_dense(state: Mapping[str, Tensor], source: str) -> None:
    """Check that tensors hold what their shapes and types say.

    Raises:
        CheckpointError: One is no floating-point tensor, is sparse or without data, or repeats the data it has: such a
            tensor of a few bytes may claim any size.
    """
    for key, value in state.items():
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_nested:
            raise CheckpointError(f"{source}: {key} is not stored as a plain tensor with its data; store it as one")
        if not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise CheckpointError(f"{source}: {key} is of type {kind}; weights have to be floating-point numbers")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise CheckpointError(
                f"{source}: {key} claims the shape {tuple(value.shape)}, but the file holds less than that"
            )


def require_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Raise `CheckpointError`, naming the tensor, where a weight is NaN or infinite."""
    for key, value in state.items():
        # A finite sum has finite terms, and costs a fraction of looking at each; a sum may overflow without any.
        if not value.sum().isfinite() and not (finite := value.isfinite()).all():
            wrong = value.numel() - int(finite.sum())
            raise CheckpointError(
                f"{source}: {key} has {wrong:,} of {value.numel():,} weights that are NaN or infinite; the training "
                "failed or the file is damaged: use another checkpoint"
            )
