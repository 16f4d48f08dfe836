"""ToMe (Bolya et al. 2022, "Token Merging: Your ViT But Faster"), as adapted to dense prediction."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..errors import ReducerError, checks_arguments
from ..regions import region
from .base import EncoderShape, Reducer, Reduction, TokenLayout
from .blocks import Tokens, attend, attention_residual, mlp_residual
from .distances import matmul_fp32, squared_norms, to_matmul_dtype
from .picking import across_images, count_members, group_means, scatter_means, take
from .spaces import FloatRange, SearchRange


class ToMe(Reducer):
    """Merge similar tokens before each attention and each MLP, and copy the result to all members afterwards.

    Tokens are matched by the normalised tokens themselves, without proportional attention
    (Liang et al. 2022, the comparison of section 4; matching: ToMe, section 3). Prefix tokens never merge.

    Args:
        ratio: Fraction of all tokens merged each time, from 0 to 1; at most half of the patches merge.

    Raises:
        ReducerError: ``ratio`` is out of its range.
    """

    @checks_arguments
    def __init__(self, ratio: float) -> None:
        if not 0 <= ratio <= 1:
            raise ReducerError(f"ratio={ratio} must lie between 0 and 1")
        self.ratio = ratio

    @classmethod
    def search_space(cls, encoder: EncoderShape) -> Mapping[str, SearchRange]:
        """Vary the ratio."""
        return {"ratio": FloatRange(0.05, 0.5)}

    def start(self, layout: TokenLayout) -> "ToMeReduction":
        """Begin one forward pass."""
        return ToMeReduction(self, layout)


class ToMeReduction(Reduction):
    """One forward pass of `ToMe`."""

    def __init__(self, settings: ToMe, layout: TokenLayout) -> None:
        super().__init__(layout)
        tokens = layout.prefix + layout.patches
        self.merged = min(int(settings.ratio * tokens), layout.patches // 2)

    def layer(self, layer: int, block: Any, tokens: Tensor) -> Tensor:
        """Run a block with its attention and its MLP on merged tokens."""
        if self.is_identity():
            return super().layer(layer, block, tokens)
        attention = partial(self._on_merged, layer, "attention", partial(attend, block.attn))
        tokens = attention_residual(block, tokens, attention)
        return mlp_residual(block, tokens, partial(self._on_merged, layer, "MLP", block.mlp))

    def _on_merged(self, layer: int, part: str, module: Tokens, tokens: Tensor) -> Tensor:
        with region("tome: match"):
            matching = match(tokens, self.merged, self.layout)
        if self.recorder is not None:
            self.recorder.add(self.layout, layer, matching.group[:, self.layout.prefix :], matching.size, part=part)
        with region("tome: merge"):
            merged = matching.merge(tokens)
        merged = module(merged)
        with region("tome: restore"):
            return matching.restore(merged)

    def is_identity(self) -> bool:
        """Return True if there are too few tokens for one to merge."""
        return self.merged == 0


@dataclass(frozen=True)
class Matching:
    """Which tokens merge: ``group[b, i]`` is the index of token ``i`` among the ``size`` merged tokens."""

    group: Tensor  # (B, N)
    size: int

    def merge(self, tokens: Tensor) -> Tensor:
        """Average the members of each group: ``(B, N, C)`` to ``(B, size, C)``."""
        if torch.compiler.is_exporting():
            return scatter_means(tokens, self.group, self.size)
        rows = across_images(self.group.argsort(dim=1), tokens.shape[1])
        return group_means(tokens.flatten(0, 1), rows, count_members(self.group, self.size))

    def restore(self, merged: Tensor) -> Tensor:
        """Copy each group's token to all its members: ``(B, size, C)`` to ``(B, N, C)``."""
        return take(merged, self.group)


@torch.no_grad()  # no gradient goes through an order
def match(tokens: Tensor, merged: int, layout: TokenLayout) -> Matching:
    """Match tokens ``(B, N, C)`` bipartitely (ToMe, section 3): even tokens are sources, odd ones destinations.

    The ``merged`` sources (r) with the largest similarity join their best destination; prefix tokens never merge.
    Groups are numbered: unmerged sources by index, then destinations.
    """
    scores, destination = best_matches(tokens, layout.prefix)
    prefix_sources = -(-layout.prefix // 2)
    destinations = tokens.shape[1] // 2
    unmerged = prefix_sources + scores.shape[1] - merged
    stays = torch.ones_like(scores, dtype=torch.bool).scatter_(1, scores.topk(merged, sorted=False).indices, False)
    source_group = torch.where(stays, stays.cumsum(1, dtype=torch.long) + (prefix_sources - 1), unmerged + destination)
    group = destination.new_empty(tokens.shape[:2])
    group[:, : 2 * prefix_sources : 2] = torch.arange(prefix_sources, device=tokens.device)
    group[:, 2 * prefix_sources :: 2] = source_group
    group[:, 1::2] = torch.arange(unmerged, unmerged + destinations, device=tokens.device)
    return Matching(group, unmerged + destinations)


def best_matches(tokens: Tensor, prefix: int) -> tuple[Tensor, Tensor]:
    """Return the best cosine similarity and destination ``(B, S)`` of each source that is a patch, of ``(B, N, C)``."""
    first = 2 * -(-prefix // 2)  # the first source that is a patch
    dtype, tokens = tokens.dtype, to_matmul_dtype(tokens)
    scale = squared_norms(tokens).clamp_min_(1e-24).rsqrt_()
    similarity = matmul_fp32(tokens[:, first::2], tokens[:, 1::2].transpose(1, 2), dtype)
    similarity *= scale[:, None, 1::2].contiguous()
    if prefix > 1:
        similarity[:, :, : prefix // 2] = -torch.inf
    scores, destination = similarity.max(dim=-1)
    # Scaling by the source norm does not change its argmax, so it is applied to the maximum only.
    return scores.mul_(scale[:, first::2]), destination
