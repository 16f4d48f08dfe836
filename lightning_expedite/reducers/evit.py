"""EViT (Liang et al. 2022, "Not All Patches are What You Need"), with reconstruction for dense prediction."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ReducerError, checks_arguments
from ..regions import region
from .base import EncoderShape, Reducer, Reduction, TokenLayout
from .blocks import attention_residual, join_heads, mlp_residual, split_heads
from .checks import check_location, check_positive, layers_of
from .distances import in_float32
from .grouping import DROPPED
from .picking import take
from .reconstruction import reconstruct, reconstruction_multiply_adds, reconstruction_weights
from .spaces import FloatRange, LayerChoice, SearchRange


class EViT(Reducer):
    """Keep the tokens with the largest attention from the class token; reconstruct the others after the encoder.

    In each of ``locations``, between attention and MLP, ``ceil(keep_rate * patches)`` tokens are kept; the others are
    summed, weighted by the class token's attention, into one extra token (EViT, section 3.2). After the encoder,
    dropped tokens are reconstructed from the most similar kept ones.

    Args:
        locations: Layers (from 1) in which tokens are dropped.
        keep_rate: Fraction of the patch tokens kept each time, above 0 and at most 1.
        fuse_token: Whether the dropped tokens are fused into one extra token.
        neighbours: Kept tokens that contribute to the reconstruction of a dropped one.
        reconstruction_temperature: Factor of the squared distance in the reconstruction's weights.

    Raises:
        ReducerError: A setting is out of its range.
    """

    @checks_arguments
    def __init__(
        self,
        locations: Sequence[int],
        keep_rate: float,
        fuse_token: bool = True,
        neighbours: int = 1,
        reconstruction_temperature: float = 0.005,
    ) -> None:
        self.locations = layers_of("locations", locations)
        if not 0 < keep_rate <= 1:
            raise ReducerError(f"keep_rate={keep_rate} must be above 0 and at most 1")
        self.keep_rate = keep_rate
        self.fuse_token = fuse_token
        self.neighbours = check_positive("neighbours", neighbours)
        self.reconstruction_temperature = check_positive("reconstruction_temperature", reconstruction_temperature)

    @classmethod
    def search_space(cls, encoder: EncoderShape) -> Mapping[str, SearchRange]:
        """Vary the layers, except the last, and the keep rate."""
        return {"locations": LayerChoice(1, max(encoder.depth - 1, 1)), "keep_rate": FloatRange(0.3, 0.95)}

    def check(self, encoder: EncoderShape) -> None:
        """Raise `ReducerError` for a location beyond the depth or an encoder without a class token."""
        for location in self.locations:
            check_location(location, encoder.depth)
        if not encoder.class_token:
            raise ReducerError("EViT ranks tokens by the class token's attention; this model has no class token")

    def start(self, layout: TokenLayout) -> "EViTReduction":
        """Begin one forward pass."""
        return EViTReduction(self, layout)


@dataclass(frozen=True)
class Drop:
    """Patch tokens of one layer that drops some of them, and their indices in descending order of attention."""

    features: Tensor  # (B, n, C)
    kept: Tensor  # (B, k) indices
    dropped: Tensor  # (B, n - k) indices


class EViTReduction(Reduction):
    """One forward pass of `EViT`; keeps what each layer dropped."""

    def __init__(self, settings: EViT, layout: TokenLayout) -> None:
        super().__init__(layout)
        self.settings = settings
        self.drops: list[Drop] = []

    def layer(self, layer: int, block: Any, tokens: Tensor) -> Tensor:
        """Run a block; drop tokens between attention and MLP at the settings' locations."""
        patches = tokens.shape[1] - self.layout.prefix
        keep = math.ceil(self.settings.keep_rate * patches)
        if layer not in self.settings.locations or keep == patches:
            return super().layer(layer, block, tokens)
        query, key, value = split_heads(block.attn, block.norm1(tokens))
        scores = class_attention(query[:, :, 0], key)[:, self.layout.prefix :]
        attended = join_heads(block.attn, F.scaled_dot_product_attention(query, key, value, scale=1.0).transpose(1, 2))
        tokens = attention_residual(block, tokens, lambda _: attended)
        with region("evit: drop"):
            tokens = self._drop(tokens, scores, keep)
        if self.recorder is not None:
            self.recorder.add(self.layout, layer, self._kept_patches(), tokens.shape[1], lasts=True)
        return mlp_residual(block, tokens)

    def _drop(self, tokens: Tensor, scores: Tensor, keep: int) -> Tensor:
        prefix, patches = tokens[:, : self.layout.prefix], tokens[:, self.layout.prefix :]
        order = scores.argsort(dim=1, descending=True)
        drop = Drop(patches, order[:, :keep], order[:, keep:])
        self.drops.append(drop)
        parts = [prefix, take(patches, drop.kept)]
        if self.settings.fuse_token:
            weights = scores.gather(1, drop.dropped)[:, None]
            parts.append(reconstruct(weights, take(patches, drop.dropped)).to(tokens.dtype))
        return torch.cat(parts, dim=1)

    def _kept_patches(self) -> Tensor:
        """Return each patch's own index ``(B, rows * columns)`` if all layers so far kept it, else `DROPPED`."""
        extra = self.layout.patches  # index of every extra token
        first = self.drops[0].kept
        kept = torch.arange(extra, device=first.device).expand(len(first), -1)
        for drop in self.drops:
            kept = F.pad(kept.gather(1, drop.kept), (0, int(self.settings.fuse_token)), value=extra)
        group = torch.full((len(first), extra + 1), DROPPED, device=first.device)
        return group.scatter(1, kept, kept)[:, :extra]

    def restore_tokens(self, tokens: Tensor) -> Tensor:
        """Restore every token to its position, the dropped ones reconstructed from the kept."""
        prefix, patches = tokens[:, : self.layout.prefix], tokens[:, self.layout.prefix :]
        for drop in reversed(self.drops):
            with region("evit: restore"):
                kept = patches[:, : drop.kept.shape[1]]  # without the extra token
                features = take(drop.features, drop.dropped), take(drop.features, drop.kept)
                temperature, neighbours = self.settings.reconstruction_temperature, self.settings.neighbours
                weights = reconstruction_weights(*features, temperature, neighbours)
                ordered = torch.cat((kept, reconstruct(weights, kept).to(kept.dtype)), dim=1)
                patches = take(ordered, torch.cat((drop.kept, drop.dropped), dim=1).argsort(dim=1))
        return torch.cat((prefix, patches), dim=1)

    def multiply_adds(self, width: int) -> int:
        """Count the reconstruction of what each layer dropped."""
        return sum(
            reconstruction_multiply_adds(drop.dropped.shape[1], drop.kept.shape[1], self.settings.neighbours, width)
            for drop in self.drops
        )

    def is_identity(self) -> bool:
        """Return True if every layer kept all tokens."""
        return not self.drops


@in_float32
def class_attention(query: Tensor, key: Tensor) -> Tensor:
    """Return the attention ``(B, N)``, averaged over heads, of a scaled query ``(B, heads, D)`` to all keys.

    Only the class token's row of the attention matrix is computed. Keys are ``(B, heads, N, D)``.
    """
    return (key @ query[..., None]).squeeze(-1).softmax(dim=-1).mean(dim=1)
