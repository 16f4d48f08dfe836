"""Multiply-adds of one forward pass, in the convention of the published tables (Liang et al. 2022).

Counted are convolutions (with bias) and linear layers (without), 2 per element of a LayerNorm or GELU, the encoder's
attention with 2 per attention weight, and the clustering and reconstruction of tokens. The convention leaves out
the decoder's attention products, its class projections and masks, upsampling, and ToMe's matching and copying: it is no
full count of operations.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..models.segmenter.model import Segmenter


def count_multiply_adds(model: Segmenter, images: Tensor) -> int:
    """Count the multiply-adds of a batch.

    Args:
        model: The model with its reducer. On the ``meta`` device nothing is computed; a reducer whose shapes depend
            on content (ACT) needs a real device and real images.
        images: ``(B, 3, H, W)`` on the model's device.

    Returns:
        Multiply-adds of the whole batch; of ACT with the most groups of any image and head in each layer.
    """
    counts: list[int] = []  # of each module's call
    lengths: list[int] = []  # tokens that enter each layer's attention
    with ExitStack() as hooks, torch.inference_mode():
        for module in model.modules():
            for kind, count in _COUNTS:
                if isinstance(module, kind):
                    hooks.enter_context(_hook(module, _append(counts, count)))
        for block in model.encoder.blocks:
            hooks.enter_context(_hook(block.attn.qkv, _append(lengths, lambda module, out: out.shape[1])))
        reduction = model.segment_patches(images).reduction
    width, heads = model.architecture.width, model.architecture.heads
    attention = sum(
        _attention(reduction.queries(layer, tokens), tokens, width, heads)
        for layer, tokens in enumerate(lengths, start=1)
    )
    return sum(counts) + len(images) * (attention + reduction.multiply_adds(width))


def _attention(queries: int, tokens: int, width: int, heads: int) -> int:
    scaling, products, weights = tokens * width, 2 * queries * tokens * width, 2 * heads * queries * tokens
    return scaling + products + weights


Count = Callable[[Any, Tensor], int]  # of a module and its output

_COUNTS: tuple[tuple[type[nn.Module], Count], ...] = (
    (nn.Linear, lambda module, out: out.numel() * module.in_features),
    (nn.Conv2d, lambda module, out: out.numel() * (module.weight[0].numel() + 1)),
    (nn.LayerNorm, lambda module, out: 2 * out.numel()),
    (nn.GELU, lambda module, out: 2 * out.numel()),
)


def _append(numbers: list[int], count: Count) -> Callable[[Any, Tensor], None]:
    return lambda module, out: numbers.append(count(module, out))


@contextmanager
def _hook(module: nn.Module, after: Callable[[Any, Tensor], None]) -> Iterator[None]:
    handle = module.register_forward_hook(lambda m, _, out: after(m, out))
    try:
        yield
    finally:
        handle.remove()
