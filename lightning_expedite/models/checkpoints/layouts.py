"""Key maps: the checkpoint layouts of Segmenter, recognised by their keys and renamed to one.

Every layout is renamed to the official names, ``encoder.*`` and ``decoder.*``, which `Segmenter` uses too.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import CheckpointError
from ..segmenter.architecture import Architecture, ConventionName
from .files import as_float32
from .settings import VARIANT_FILE, VARIANT_HINT, VARIANT_KEYS

State = dict[str, Tensor]
PUBLISHED_WIDTHS = (192, 384, 768, 1024)
"""Widths of ViT-Ti, S, B and L, all of whose published Segmenters have heads of 64 channels."""


@dataclass(frozen=True)
class Layout:
    """One way to store a Segmenter."""

    name: str
    convention: ConventionName
    matches: Callable[[Mapping[str, Tensor]], bool]
    renames: tuple[tuple[str, str], ...]  # regular expressions and replacements, in order
    unused: str  # regular expression of keys that no evaluation needs
    transposed: tuple[str, ...] = ()  # keys, after renaming, of matrices that are stored transposed
    flattened: tuple[str, ...] = ()  # keys, after renaming, of 1 x 1 convolutions
    from_zoo: bool = False  # mmsegmentation's own files: heads of 64 channels, normalisation ``vit``, no variant.yml


_MMSEG_BACKBONE = (
    (r"^backbone\.ln1\.", "encoder.norm."),
    (r"^backbone\.patch_embed\.projection\.", "encoder.patch_embed.proj."),
    (r"^backbone\.layers\.", "encoder.blocks."),
    (r"^backbone\.", "encoder."),
    (r"\.ln1\.", ".norm1."),
    (r"\.ln2\.", ".norm2."),
    (r"\.attn\.attn\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
    (r"\.attn\.attn\.out_proj\.", ".attn.proj."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
)
_DIST_TOKEN = ((r"^encoder\.dist_token$", "encoder.reg_token"),)  # timm's name for a second learned token

LAYOUTS = (
    Layout(
        name="mmsegmentation zoo, mask head",
        convention="mmseg",
        matches=lambda state: "decode_head.dec_proj.weight" in state,
        renames=(
            *_MMSEG_BACKBONE,
            (r"^decode_head\.dec_proj\.", "decoder.proj_dec."),
            (r"^decode_head\.patch_proj\.weight$", "decoder.proj_patch"),
            (r"^decode_head\.classes_proj\.weight$", "decoder.proj_classes"),
            (r"^decode_head\.layers\.", "decoder.blocks."),
            (r"^decode_head\.", "decoder."),
        ),
        unused=r"^(decode_head\.conv_seg\.|auxiliary_head\.)",
        transposed=("decoder.proj_patch", "decoder.proj_classes"),
        from_zoo=True,
    ),
    Layout(
        name="preprocessed for the reference implementation",
        convention="mmseg",
        matches=lambda state: (
            "backbone.cls_token" in state
            and any(key in state for key in ("decode_head.proj_dec.weight", "decode_head.head.weight"))
        ),
        renames=((r"^decode_head\.", "decoder."), *_MMSEG_BACKBONE, *_DIST_TOKEN),
        unused=r"^(encoder\.head|backbone\.head|decode_head\.conv_seg\.|auxiliary_head\.)",
    ),
    Layout(
        name="mmsegmentation zoo, linear head",
        convention="mmseg",
        matches=lambda state: "backbone.cls_token" in state and "decode_head.conv_seg.weight" in state,
        renames=(*_MMSEG_BACKBONE, (r"^decode_head\.conv_seg\.", "decoder.head.")),
        unused=r"^auxiliary_head\.",
        flattened=("decoder.head.weight",),
        from_zoo=True,
    ),
    Layout(
        name="official",
        convention="official",
        matches=lambda state: "encoder.patch_embed.proj.weight" in state,
        renames=_DIST_TOKEN,
        unused=r"^encoder\.(head|pre_logits)",
    ),
)


def find_layout(state: Mapping[str, Tensor], path: Path) -> Layout:
    """Return the layout of a state dict."""
    for layout in LAYOUTS:
        if layout.matches(state):
            return layout
    known = ", ".join(layout.name for layout in LAYOUTS)
    raise CheckpointError(
        f"{path}: the keys ({', '.join(list(state)[:3])}, ...) match no known Segmenter layout; known are: {known}"
    )


def unify(stored: Mapping[str, Tensor], layout: Layout, path: Path) -> State:
    """Return a state dict under `Segmenter`'s names, in its shapes and in float32, without what no evaluation needs."""
    state: State = {}
    for key, value in stored.items():
        if re.match(layout.unused, key):
            continue
        name = key
        for pattern, replacement in layout.renames:
            name = re.sub(pattern, replacement, name)
        if name in state:
            raise CheckpointError(f"{path}: {key} and another key both map to {name}; remove one of them")
        state[name] = value
    state = as_float32(state, path)
    for key in layout.transposed + layout.flattened:
        shape = tuple(state[key].shape) if key in state else None
        if shape is None or len(shape) < 2 or math.prod(shape[2:]) != 1:
            raise CheckpointError(f"{path}: tensor {key} must be a matrix or a 1 x 1 convolution; its shape is {shape}")
        matrix = state[key].flatten(1)
        state[key] = matrix.T.contiguous() if key in layout.transposed else matrix
    return state


def read_architecture(
    state: State, layout: Layout, stated: Mapping[str, Any], path: Path, settings: Path
) -> Architecture:
    """Return the sizes of a model from its tensors and, for heads and image size, from its settings.

    ``stated`` is what the file ``settings`` holds, by `Architecture`'s names; tensors that contradict it are refused.
    """

    def shape(key: str, dimensions: int) -> tuple[int, ...]:
        if key not in state:
            raise CheckpointError(f"{path}: tensor {key} is missing; the file is incomplete")
        found = tuple(state[key].shape)
        if len(found) != dimensions or 0 in found:
            raise CheckpointError(f"{path}: {key} has shape {found}; it must have {dimensions} dimensions, none 0")
        return found

    def count_blocks(part: str) -> int:
        numbers = {match[1] for key in state if (match := re.match(rf"{part}\.blocks\.([0-9]+)\.", key))}
        for number in range(len(numbers)):
            if str(number) not in numbers:
                raise CheckpointError(
                    f"{path}: tensors of {part}.blocks.{number} are missing, but later blocks are present"
                )
        return len(numbers)

    width, _, patch_size, _ = shape("encoder.patch_embed.proj.weight", 4)
    sizes: dict[str, Any] = {
        "width": width,
        "patch_size": patch_size,
        "class_token": "encoder.cls_token" in state,
        "distilled": "encoder.reg_token" in state,
    }
    patches = shape("encoder.pos_embed", 3)[1] - sizes["class_token"] - sizes["distilled"]
    sizes["depth"], hidden = count_blocks("encoder"), shape("encoder.blocks.0.mlp.fc1.weight", 2)[0]
    if "decoder.head.weight" in state:
        sizes |= {"decoder": "linear", "num_classes": shape("decoder.head.weight", 2)[0]}
    else:
        inner = shape("decoder.proj_dec.weight", 2)[0]
        sizes |= {
            "decoder": "mask_transformer",
            "num_classes": shape("decoder.cls_emb", 3)[1],
            "decoder_width": inner,
            "decoder_depth": count_blocks("decoder"),
        }
        decoder_hidden = shape("decoder.blocks.0.mlp.fc1.weight", 2)[0]
    for name, found in sizes.items():
        if stated.get(name) not in (None, found):
            key = VARIANT_KEYS[name] if settings.name == VARIANT_FILE else ("architecture", name)
            raise CheckpointError(
                f"{settings}: {': '.join(key)} is {stated[name]!r}, but the tensors in {path.name} say {found!r}: it "
                "belongs to another file"
            )

    def heads(part: str, key: str, width: int, certain: bool) -> int:
        if stated.get(key):
            return stated[key]
        if width % 64 or not (certain or width in PUBLISHED_WIDTHS):
            raise CheckpointError(
                f"{path}: the number of attention heads of the {part} (width {width}) is not stored in the tensors. "
                f"{VARIANT_HINT.format(path.with_name(VARIANT_FILE))}"
            )
        return width // 64

    if "decoder_width" in sizes:
        certain = layout.from_zoo or stated.get("heads") is not None
        sizes["decoder_heads"] = heads("decoder", "decoder_heads", inner, certain)
        sizes["decoder_mlp_ratio"] = decoder_hidden / inner
    sizes["heads"] = heads("encoder", "heads", width, layout.from_zoo)
    image_size = stated.get("image_size")
    height, width_px = image_size or [math.isqrt(max(patches, 0)) * patch_size] * 2
    if patches < 1 or height // patch_size * (width_px // patch_size) != patches:
        raise CheckpointError(
            f"{settings}: image_size is {list(image_size) if image_size else 'not given'}, but the position embeddings "
            f"in {path} are for {patches} patches of {patch_size} pixels"
        )
    try:
        return Architecture(image_size=(height, width_px), mlp_ratio=hidden / width, **sizes)
    except ValueError as error:
        raise CheckpointError(f"{settings}: {error}") from error
