"""ToMe (Bolya et al. 2022, "Token Merging: Your ViT But Faster"), as adapted to dense prediction."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..errors import ReducerError
from ..regions import region
from .base import EncoderShape, Reducer, Reduction, TokenLayout, attend, attention_residual, mlp_residual
from .distances import matmul_fp32, squared_norms, to_matmul_dtype
from .picking import across_images, count_members, group_means, scatter_means, take
from .spaces import FloatRange, SearchRange


class ToMe(Reducer):
    """Merge similar tokens before, and copy them back after, every attention and every MLP.

    Tokens are matched on the normalised tokens themselves, without proportional attention
    (Liang et al. 2022, the comparison of section 4; matching: ToMe, section 3).

    Args:
        ratio: Share of all tokens that merge each time, from 0 to 1; at most half of the patches do.

    Raises:
        ReducerError: ``ratio`` is out of its range.
    """

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

        def on_merged(module: Any, part: str, tokens: Tensor) -> Tensor:
            with region("tome: match"):
                matching = match(tokens, self.merged, self.layout)
            if self.recorder is not None:
                group = matching.group[:, self.layout.prefix :]
                self.recorder.add(self.layout, layer, group, matching.size, part=part)
            with region("tome: merge"):
                merged = matching.merge(tokens)
            merged = module(merged)
            with region("tome: restore"):
                return matching.restore(merged)

        tokens = attention_residual(block, tokens, lambda x: on_merged(partial(attend, block.attn), "attention", x))
        return mlp_residual(block, tokens, lambda x: on_merged(block.mlp, "MLP", x))

    def is_identity(self) -> bool:
        """Tell whether there are too few tokens for one to merge."""
        return self.merged == 0


@dataclass(frozen=True)
class Matching:
    """Which tokens merge: ``group[b, i]`` is the place of token ``i`` among the ``size`` merged tokens."""

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
    """Bipartite soft matching (ToMe, section 3): even tokens are sources, odd ones destinations.

    Args:
        tokens: ``(B, N, C)``.
        merged: Number r of sources that join the destination they are most similar to.
        layout: Tells which tokens are class and distillation tokens; those never merge.

    Returns:
        Groups in the order: sources that stay alone by index, then destinations.
    """
    best, destination = best_matches(tokens, layout.prefix)
    special = -(-layout.prefix // 2)  # sources that are no patches
    destinations = tokens.shape[1] // 2
    stay = special + best.shape[1] - merged
    alone = torch.ones_like(best, dtype=torch.bool).scatter_(1, best.topk(merged, sorted=False).indices, False)
    group = destination.new_empty(tokens.shape[:2])
    group[:, : 2 * special : 2] = torch.arange(special, device=tokens.device)
    group[:, 2 * special :: 2] = torch.where(
        alone, alone.cumsum(1, dtype=torch.long) + (special - 1), stay + destination
    )
    group[:, 1::2] = torch.arange(stay, stay + destinations, device=tokens.device)
    return Matching(group, stay + destinations)


def best_matches(tokens: Tensor, prefix: int) -> tuple[Tensor, Tensor]:
    """Best cosine similarity and destination of each source that is a patch, in the order of the sources.

    Args:
        tokens: ``(B, N, C)``.
        prefix: Number of class and distillation tokens; they are nobody's destination.

    Returns:
        Two tensors ``(B, S)``.
    """
    first = 2 * -(-prefix // 2)  # the first source that is a patch
    stored, tokens = tokens.dtype, to_matmul_dtype(tokens)
    scale = squared_norms(tokens).clamp_min_(1e-24).rsqrt_()
    similarity = matmul_fp32(tokens[:, first::2], tokens[:, 1::2].transpose(1, 2), stored)
    similarity *= scale[:, None, 1::2].contiguous()
    if prefix > 1:  # token 1 is a distillation token
        similarity[:, :, 0] = -torch.inf
    best, destination = similarity.max(dim=-1)
    return best.mul_(scale[:, first::2]), destination  # of a source's own length no destination depends
