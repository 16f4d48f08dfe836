"""Segmenter's two decoders: patch tokens in, one logit per patch and class out."""

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from .architecture import Architecture


class MaskTransformer(nn.Module):
    """Mask transformer (Strudel et al. 2021, section 3.2): class embeddings attend with the patches.

    The logit of a patch for a class is the cosine similarity of their two embeddings, layer-normalised
    over the classes.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        width, classes = architecture.decoder_width, architecture.num_classes
        self.num_classes = classes
        self.proj_dec = nn.Linear(architecture.width, width)
        self.cls_emb = nn.Parameter(torch.empty(1, classes, width))
        self.blocks = nn.ModuleList(
            Block(  # torch's LayerNorm: timm's own has another eps
                width,
                architecture.decoder_heads,
                architecture.decoder_mlp_ratio,
                qkv_bias=True,
                norm_layer=nn.LayerNorm,
            )
            for _ in range(architecture.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(width)
        self.proj_patch = nn.Parameter(torch.empty(width, width))
        self.proj_classes = nn.Parameter(torch.empty(width, width))
        self.mask_norm = nn.LayerNorm(classes)
        if not self.cls_emb.is_meta:
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as the official code does."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.cls_emb, std=0.02)
        for projection in (self.proj_patch, self.proj_classes):
            nn.init.normal_(projection, std=projection.shape[0] ** -0.5)

    def forward(self, patches: Tensor) -> Tensor:
        """Return the mask logits ``(B, N, K)`` of patch tokens ``(B, N, C)``."""
        patches = self.proj_dec(patches)
        # Sizes are taken from shapes here and in reducers: len() would fix the number of images in an exported graph.
        tokens = torch.cat((patches, self.cls_emb.expand(patches.shape[0], -1, -1)), dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.decoder_norm(tokens)
        patches = tokens[:, : -self.num_classes] @ self.proj_patch
        classes = tokens[:, -self.num_classes :] @ self.proj_classes
        patches = patches / patches.norm(dim=-1, keepdim=True)
        classes = classes / classes.norm(dim=-1, keepdim=True)
        return self.mask_norm(patches @ classes.transpose(1, 2))


class LinearDecoder(nn.Module):
    """One linear layer per patch (Strudel et al. 2021, section 3.2)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.head = nn.Linear(architecture.width, architecture.num_classes)

    def forward(self, patches: Tensor) -> Tensor:
        """Return the logits ``(B, N, K)`` of patch tokens ``(B, N, C)``."""
        return self.head(patches)


DECODERS: dict[str, type[nn.Module]] = {"mask_transformer": MaskTransformer, "linear": LinearDecoder}
