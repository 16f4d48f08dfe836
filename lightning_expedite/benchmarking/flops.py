"""Multiply-adds of one forward pass, in the convention of the published tables (Liang et al. 2022).

Counted are convolutions (with bias) and linear layers (without), 2 per element of a LayerNorm or GELU, the encoder's
attention with 2 per attention weight, and the clustering and reconstruction of tokens. The convention leaves out
the decoder's attention products, its class projections and masks, upsampling, and ToMe's matching and copying: it is no
full count of operations.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..models.segmenter.model import Segmenter


@dataclass(frozen=True)
class Counts:
    """Counts of one forward pass.

    Attributes:
        multiply_adds: Multiply-adds of the batch in the published convention.
        attention: Tokens per encoder layer that enter the attention, class token included; queries, where a reducer
            lets several tokens share one.
        mlp: Tokens per encoder layer that enter the MLP.
        decoder: Patch tokens (or clusters) that enter the decoder.
    """

    multiply_adds: int
    attention: list[int]
    mlp: list[int]
    decoder: int


def count(model: Segmenter, images: Tensor) -> Counts:
    """Count the multiply-adds and tokens of a batch.

    Args:
        model: The model with its reducer. On the ``meta`` device nothing is computed; a reducer whose shapes depend
            on content (ACT) needs a real device and real images.
        images: ``(B, 3, H, W)`` on the model's device.

    Returns:
        The counts; of ACT with the most groups of any image and head in each layer.
    """
    operations: list[int] = []
    attention: list[int] = []
    mlp: list[int] = []
    decoder: list[int] = []
    with ExitStack() as hooks, torch.inference_mode():
        for module in model.modules():
            for kind, cost in _COSTS:
                if isinstance(module, kind):
                    hooks.enter_context(module.register_forward_hook(_append_cost(operations, cost)))
        for block in model.encoder.blocks:
            hooks.enter_context(block.attn.qkv.register_forward_pre_hook(_append_length(attention)))
            hooks.enter_context(block.mlp.register_forward_pre_hook(_append_length(mlp)))
        hooks.enter_context(model.decoder.register_forward_pre_hook(_append_length(decoder)))
        reduction = model.segment_patches(images).reduction
    width, heads = model.architecture.width, model.architecture.heads
    queries = [reduction.queries(layer, tokens) for layer, tokens in enumerate(attention, start=1)]
    per_image = sum(map(_attention, queries, attention, [width] * len(queries), [heads] * len(queries)))
    per_image += reduction.multiply_adds(width)
    return Counts(sum(operations) + len(images) * per_image, queries, mlp, decoder[0])


def count_multiply_adds(model: Segmenter, images: Tensor) -> int:
    """Count the multiply-adds of a batch in the published convention; see `count`."""
    return count(model, images).multiply_adds


def _attention(queries: int, tokens: int, width: int, heads: int) -> int:
    scaling, products, weights = tokens * width, 2 * queries * tokens * width, 2 * heads * queries * tokens
    return scaling + products + weights


Cost = Callable[[Any, Tensor], int]  # of a module and its output

_COSTS: tuple[tuple[type[nn.Module], Cost], ...] = (
    (nn.Linear, lambda module, out: out.numel() * module.in_features),
    (nn.Conv2d, lambda module, out: out.numel() * (module.weight[0].numel() + 1)),
    (nn.LayerNorm, lambda module, out: 2 * out.numel()),
    (nn.GELU, lambda module, out: 2 * out.numel()),
)


def _append_cost(costs: list[int], cost: Cost) -> Callable[[nn.Module, Any, Tensor], None]:
    return lambda module, inputs, out: costs.append(cost(module, out))


def _append_length(lengths: list[int]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    return lambda module, inputs: lengths.append(inputs[0].shape[1])
