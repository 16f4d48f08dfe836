"""The sizes of a stored Segmenter, read off its tensors and its `variant.yml`."""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...errors import CheckpointError
from .architecture import Architecture
from .variant import Section


def architecture_of(state: Mapping[str, Tensor], variant: Section, source: str) -> Architecture:
    """Read the sizes off the tensors, and off the variant what tensors do not tell (heads, image size).

    Raises:
        CheckpointError: Tensors are missing or misshapen, or the variant contradicts them.
    """
    tensors = _Shapes(state, source)
    width, _, patch_size, _ = tensors.shape("encoder.patch_embed.proj.weight", 4)
    class_token, distilled = "encoder.cls_token" in state, "encoder.reg_token" in state
    patches = tensors.shape("encoder.pos_embed", 3)[1] - class_token - distilled
    depth, hidden = tensors.count_blocks("encoder"), tensors.shape("encoder.blocks.0.mlp.fc1.weight", 2)[0]
    decoder = _decoder_sizes(tensors)

    network = variant.section("net_kwargs")
    said = network.section("decoder")
    _require_agreement(network, {"d_model": width, "n_layers": depth, "patch_size": patch_size})
    _require_agreement(network, {"n_cls": decoder["num_classes"], "distilled": distilled})
    _require_agreement(said, {"name": decoder["decoder"], "n_layers": decoder.get("decoder_depth")})
    image_size = network.size("image_size") or _square(patches, patch_size, source)
    rows, columns = image_size[0] // patch_size, image_size[1] // patch_size
    if rows * columns != patches:
        raise CheckpointError(
            f"{network.place}: image_size {list(image_size)} is {rows} x {columns} patches, but the position "
            f"embeddings in {source} are for {patches}"
        )
    if "decoder_width" in decoder:
        decoder["decoder_heads"] = _heads(said, decoder["decoder_width"])
    return Architecture(
        image_size=image_size,
        patch_size=patch_size,
        width=width,
        depth=depth,
        heads=_heads(network, width),
        mlp_ratio=hidden / width,
        class_token=class_token,
        distilled=distilled,
        **decoder,
    )


class _Shapes:
    """Shapes of tensors that have to be there."""

    def __init__(self, state: Mapping[str, Tensor], source: str) -> None:
        self.state = state
        self.source = source

    def shape(self, key: str, dimensions: int) -> tuple[int, ...]:
        if key not in self.state:
            raise CheckpointError(f"{self.source}: tensor {key} is missing; the file is incomplete")
        shape = tuple(self.state[key].shape)
        if len(shape) != dimensions or 0 in shape:
            raise CheckpointError(
                f"{self.source}: {key} has shape {shape}; it must have {dimensions} dimensions, none 0"
            )
        return shape

    def count_blocks(self, part: str) -> int:
        found = [re.match(rf"{part}\.blocks\.([0-9]+)\.", key) for key in self.state]
        indices = {match[1] for match in found if match}
        missing = next((number for number in range(len(indices)) if str(number) not in indices), None)
        if missing is not None:
            raise CheckpointError(f"{self.source}: tensors of {part}.blocks.{missing} are missing, others go beyond it")
        return len(indices)


def _decoder_sizes(tensors: _Shapes) -> dict[str, Any]:
    if "decoder.head.weight" in tensors.state:
        return {"decoder": "linear", "num_classes": tensors.shape("decoder.head.weight", 2)[0]}
    width = tensors.shape("decoder.proj_dec.weight", 2)[0]
    return {
        "decoder": "mask_transformer",
        "num_classes": tensors.shape("decoder.cls_emb", 3)[1],
        "decoder_width": width,
        "decoder_depth": tensors.count_blocks("decoder"),
        "decoder_mlp_ratio": tensors.shape("decoder.blocks.0.mlp.fc1.weight", 2)[0] / width,
    }


def _heads(section: Section, width: int) -> int:
    heads = section.whole("n_heads") or max(width // 64, 1)
    if width % heads:
        raise section.error("n_heads", f"a divisor of the width {width}")
    return heads


def _square(patches: int, patch_size: int, source: str) -> tuple[int, int]:
    side = math.isqrt(max(patches, 0))
    if side * side != patches or not side:
        raise CheckpointError(
            f"{source}: position embeddings for {patches} patches are no square grid; "
            "a variant.yml beside it must say image_size"
        )
    return side * patch_size, side * patch_size


def _require_agreement(section: Section, held: Mapping[str, Any]) -> None:
    for key, value in held.items():
        if value is not None and section.values.get(key, value) != value:
            raise section.error(key, f"{value!r}, as the tensors are; this variant.yml belongs to another file")
