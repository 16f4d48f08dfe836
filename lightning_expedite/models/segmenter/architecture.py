"""The sizes that make up a Segmenter, and the two conventions of evaluating one."""

from dataclasses import dataclass
from typing import Literal

ConventionName = Literal["official", "mmseg"]
DecoderName = Literal["mask_transformer", "linear"]


@dataclass(frozen=True)
class Convention:
    """What Segmenter's two code bases do differently with the same weights.

    ``official`` is rstrudel/segmenter; ``mmseg`` is mmsegmentation, on which the reference implementation
    of the published tables stands. Windows follow the same name (`lightning_expedite.evaluation.windows`).
    """

    name: ConventionName
    encoder_norm_eps: float
    position_interpolation: Literal["bilinear", "bicubic"]
    upsample_to_padded: bool  # to the padded size, then cut; otherwise straight to the unpadded size


CONVENTIONS: dict[str, Convention] = {
    "official": Convention("official", 1e-5, "bilinear", upsample_to_padded=True),
    "mmseg": Convention("mmseg", 1e-6, "bicubic", upsample_to_padded=False),
}


@dataclass(frozen=True)
class Architecture:
    """Sizes of a Segmenter (Strudel et al. 2021): a ViT encoder and a mask-transformer or linear decoder.

    Args:
        image_size: Height and width in pixels that the position embeddings were trained for.
        patch_size: Side of a patch in pixels.
        width: Channels of the encoder's tokens.
        depth: Number of encoder layers.
        heads: Attention heads of the encoder.
        num_classes: Number of classes.
        decoder: Kind of decoder.
        decoder_width: Channels of the mask transformer; the encoder's width by default.
        decoder_depth: Layers of the mask transformer.
        decoder_heads: Attention heads of the mask transformer; ``decoder_width // 64`` by default.
        mlp_ratio: Hidden over outer width of the encoder's MLPs.
        decoder_mlp_ratio: The same of the decoder's.
        class_token: Whether the encoder has a class token.
        distilled: Whether it has a distillation token (DeiT) after the class token.
    """

    image_size: tuple[int, int]
    patch_size: int
    width: int
    depth: int
    heads: int
    num_classes: int
    decoder: DecoderName = "mask_transformer"
    decoder_width: int = 0
    decoder_depth: int = 2
    decoder_heads: int = 0
    mlp_ratio: float = 4.0
    decoder_mlp_ratio: float = 4.0
    class_token: bool = True
    distilled: bool = False

    def __post_init__(self) -> None:
        """Fill in the sizes that follow from others."""
        width = self.decoder_width or self.width
        object.__setattr__(self, "decoder_width", width)
        object.__setattr__(self, "decoder_heads", self.decoder_heads or max(width // 64, 1))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches at the trained image size."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def prefix(self) -> int:
        """Number of class and distillation tokens before the patch tokens."""
        return int(self.class_token) + int(self.distilled)
