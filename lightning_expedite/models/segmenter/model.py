"""Segmenter: a timm ViT, a decoder, and an optional token reducer between and around them."""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ...reducers.base import Reducer, Reduction, TokenLayout
from ...reducers.grouping import GroupRecorder
from ...regions import region
from ..base import DenseModel
from .architecture import Architecture, ConventionName
from .decoders import DECODERS


class Segmentation(NamedTuple):
    """Logits of one forward pass at patch resolution, and how the tokens were reduced on the way."""

    logits: Tensor  # (B, K, rows, columns)
    reduction: Reduction


class Segmenter(DenseModel):
    """Segmenter (Strudel et al. 2021): a timm ViT, a decoder, and an optional token reducer.

    Args:
        architecture: Sizes of the model.
        convention: ``"official"`` or ``"mmseg"``; see `Convention`.
        reducer: Token reducer, or ``None`` for the baseline, which runs all tokens through all layers.

    Raises:
        ReducerError: The reducer cannot apply to this architecture.
    """

    def __init__(
        self,
        architecture: Architecture,
        convention: ConventionName = "mmseg",
        reducer: Reducer | None = None,
    ) -> None:
        super().__init__(architecture, convention)
        self.encoder = VisionTransformer(
            img_size=architecture.image_size,
            patch_size=architecture.patch_size,
            num_classes=0,
            global_pool="token" if architecture.class_token else "",
            embed_dim=architecture.width,
            depth=architecture.depth,
            num_heads=architecture.heads,
            mlp_ratio=architecture.mlp_ratio,
            class_token=architecture.class_token,
            reg_tokens=int(architecture.distilled),  # timm has no other name for a second learned token
            dynamic_img_size=True,
            norm_layer=partial(nn.LayerNorm, eps=self.convention.encoder_norm_eps),
            weight_init="skip" if torch.get_default_device().type == "meta" else "",  # half a second for nothing
        )
        self.decoder = DECODERS[architecture.decoder](architecture)
        self.reducer = reducer

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, K, H, W)`` of normalised images ``(B, 3, H, W)`` of any size."""
        height, width = images.shape[-2:]
        logits = F.interpolate(self.segment_patches(images).logits, self.upsampled_size(height, width), mode="bilinear")
        return logits[..., :height, :width]

    def segment_patches(self, images: Tensor, recorder: GroupRecorder | None = None) -> Segmentation:
        """Segment normalised images ``(B, 3, H, W)`` at the resolution of their patches.

        A given ``recorder`` records which patches share a token, where the reducer supports it.
        """
        with region("embed"):
            tokens, grid = self.embed(images)
        layout = TokenLayout(*grid, prefix=self.architecture.prefix)
        reduction = self.reducer.start(layout) if self.reducer is not None else Reduction(layout)
        if recorder is not None:
            reduction.recorder = recorder
        tokens = reduction.prepare_tokens(tokens)
        for layer, block in enumerate(self.encoder.blocks, start=1):
            with region(f"block {layer}"):
                tokens = reduction.layer(layer, block, tokens)
        with region("restore tokens"):
            tokens = reduction.restore_tokens(self.encoder.norm(tokens))
        with region("decoder"):
            logits = self.decoder(tokens[:, layout.prefix :])
        with region("restore logits"):
            logits = reduction.restore_logits(logits)
        return Segmentation(logits.transpose(1, 2).unflatten(2, grid), reduction)

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Embed images ``(B, 3, H, W)``, padded to whole patches, as tokens with their positions.

        Returns:
            Tokens ``(B, prefix + rows * columns, C)``, and ``(rows, columns)``.
        """
        encoder, patch = self.encoder, self.architecture.patch_size
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % patch, 0, -height % patch))
        # Channels last: the convolution then writes tokens, which need no transposition.
        patches = encoder.patch_embed(images.contiguous(memory_format=torch.channels_last))  # (B, rows, columns, C)
        batch, rows, columns, _ = patches.shape
        tokens = patches.flatten(1, 2)
        for prefix in (encoder.reg_token, encoder.cls_token):
            if prefix is not None:
                tokens = torch.cat((prefix.expand(batch, -1, -1), tokens), dim=1)
        positions = resample_abs_pos_embed(
            encoder.pos_embed,
            new_size=[rows, columns],
            old_size=list(self.architecture.grid),
            num_prefix_tokens=self.architecture.prefix,
            interpolation=self.convention.position_interpolation,
            antialias=False,
        )
        return tokens + positions, (rows, columns)

    def upsampled_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size to which logits are interpolated before they are cropped to the image's own size."""
        if not self.convention.upsample_to_padded:
            return height, width
        patch = self.architecture.patch_size
        return -(-height // patch) * patch, -(-width // patch) * patch
