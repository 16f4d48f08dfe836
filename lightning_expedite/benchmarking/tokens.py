"""How many tokens each part of the model gets."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..models.segmenter.model import Segmenter


@dataclass(frozen=True)
class TokenCounts:
    """Tokens per encoder layer (class tokens included) and those that enter the decoder (patches or clusters)."""

    attention: list[int]  # queries, where a reducer gives several tokens one of them
    mlp: list[int]
    decoder: int


def count_tokens(model: Segmenter, images: Tensor) -> TokenCounts:
    """Count the tokens of a forward pass.

    Args:
        model: The model with its reducer; see `count_operations` for its device.
        images: ``(B, 3, H, W)`` on the model's device.
    """
    attention: list[int] = []
    mlp: list[int] = []
    decoder: list[int] = []
    with ExitStack() as hooks, torch.inference_mode():
        for block in model.encoder.blocks:
            hooks.callback(block.attn.qkv.register_forward_pre_hook(_length_into(attention)).remove)
            hooks.callback(block.mlp.register_forward_pre_hook(_length_into(mlp)).remove)
        hooks.callback(model.decoder.register_forward_pre_hook(_length_into(decoder)).remove)
        reduction = model.segment_patches(images).reduction
    queries = [reduction.queries(layer, tokens) for layer, tokens in enumerate(attention, start=1)]
    return TokenCounts(queries, mlp, decoder[0])


def _length_into(lengths: list[int]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    return lambda module, inputs: lengths.append(inputs[0].shape[1])
