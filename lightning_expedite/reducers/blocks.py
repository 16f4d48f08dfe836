"""The halves of a timm ``Block`` and its attention, with the same rounding for baseline and reduced models."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

Tokens = Callable[[Tensor], Tensor]


def run_block(block: Any, tokens: Tensor) -> Tensor:
    """Run a timm ``Block`` on tokens ``(B, N, C)``."""
    return mlp_residual(block, attention_residual(block, tokens, lambda x: attend(block.attn, x)))


def attention_residual(block: Any, tokens: Tensor, attend: Tokens) -> Tensor:
    """Run the first half of a timm ``Block`` with ``attend`` in place of its attention."""
    return tokens + block.drop_path1(block.ls1(attend(block.norm1(tokens))))


def mlp_residual(block: Any, tokens: Tensor, mlp: Tokens | None = None) -> Tensor:
    """Run the second half of a timm ``Block``, by default with its own MLP."""
    return tokens + block.drop_path2(block.ls2((mlp or block.mlp)(block.norm2(tokens))))


def attend(attention: Any, tokens: Tensor) -> Tensor:
    """Attend as a timm ``Attention`` does: ``(B, N, C)`` to ``(B, N, C)``."""
    query, key, value = split_heads(attention, tokens)
    return join_heads(attention, F.scaled_dot_product_attention(query, key, value, scale=1.0).transpose(1, 2))


def split_heads(attention: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Project tokens ``(B, N, C)`` to queries, keys and values ``(B, heads, N, C / heads)``.

    Queries are scaled before the product, as in the reference implementation, and so round as there.
    """
    qkv = attention.qkv(tokens).unflatten(-1, (3, attention.num_heads, attention.head_dim))
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return attention.q_norm(query) * attention.scale, attention.k_norm(key), value


def join_heads(attention: Any, tokens: Tensor) -> Tensor:
    """Project the heads' results ``(B, N, heads, C / heads)`` to tokens ``(B, N, C)``."""
    return attention.proj_drop(attention.proj(attention.norm(tokens.flatten(2))))
