"""Sizes of a Segmenter, and the two conventions in which one is evaluated."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from ...protocol import Positive

ConventionName = Literal["official", "mmseg"]
DecoderName = Literal["mask_transformer", "linear"]
Ratio = Annotated[float, Field(gt=0, le=1000)]


@dataclass(frozen=True)
class Convention:
    """What Segmenter's two code bases do differently with the same weights.

    ``official`` is rstrudel/segmenter; ``mmseg`` is mmsegmentation, on which the reference implementation of the
    published tables is built. `lightning_expedite.evaluation.windows` follows the same name.
    """

    name: ConventionName
    encoder_norm_eps: float
    position_interpolation: Literal["bilinear", "bicubic"]
    upsample_to_padded: bool  # to the padded size, then cropped; otherwise straight to the unpadded size


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
        decoder_heads: Attention heads of the mask transformer; ``decoder_width // 64`` by default, as in the official
            code.
        mlp_ratio: Hidden over outer width of the encoder's MLPs.
        decoder_mlp_ratio: The same for the decoder.
        class_token: Whether the encoder has a class token.
        distilled: Whether it has a distillation token (DeiT) after the class token.

    Raises:
        ValueError: A number of heads does not divide its width.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    image_size: tuple[Positive, Positive]
    patch_size: Positive
    width: Positive
    depth: Positive
    heads: Positive
    num_classes: Positive
    decoder: DecoderName = "mask_transformer"
    decoder_width: Positive = 0
    decoder_depth: Positive = 2
    decoder_heads: Positive = 0
    mlp_ratio: Ratio = 4.0
    decoder_mlp_ratio: Ratio = 4.0
    class_token: bool = True
    distilled: bool = False

    def __post_init__(self) -> None:
        """Fill in the sizes that follow from others."""
        width = self.decoder_width or self.width
        object.__setattr__(self, "decoder_width", width)
        object.__setattr__(self, "decoder_heads", self.decoder_heads or max(width // 64, 1))
        for heads, width in (("heads", self.width), ("decoder_heads", self.decoder_width)):
            if width % getattr(self, heads):
                raise ValueError(f"{heads} is {getattr(self, heads)}; it must divide the width, {width}")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches at the trained image size."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def prefix(self) -> int:
        """Number of class and distillation tokens before the patch tokens."""
        return int(self.class_token) + int(self.distilled)
