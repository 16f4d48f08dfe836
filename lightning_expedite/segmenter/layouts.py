"""The checkpoint layouts of Segmenter, told apart by their keys and renamed to one.

Every layout becomes the official one's names, which are also this project's: ``encoder.*`` and ``decoder.*``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..errors import CheckpointError
from .architecture import ConventionName

State = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """One way to store a Segmenter."""

    name: str
    convention: ConventionName
    recognise: Callable[[Mapping[str, Tensor]], bool]
    rename: tuple[tuple[str, str], ...]  # regular expressions and what replaces them, in this order
    unused: str  # regular expression of keys that no evaluation needs
    transposed: tuple[str, ...] = ()  # keys, after renaming, of matrices stored transposed
    flattened: tuple[str, ...] = ()  # keys, after renaming, of 1 x 1 convolutions


_MMSEG_LAYER = (
    (r"\.ln1\.", ".norm1."),
    (r"\.ln2\.", ".norm2."),
    (r"\.attn\.attn\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
    (r"\.attn\.attn\.out_proj\.", ".attn.proj."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
)
_MMSEG_BACKBONE = (
    (r"^backbone\.ln1\.", "encoder.norm."),
    (r"^backbone\.patch_embed\.projection\.", "encoder.patch_embed.proj."),
    (r"^backbone\.layers\.", "encoder.blocks."),
    (r"^backbone\.", "encoder."),
    *_MMSEG_LAYER,
)
_DIST_TOKEN = ((r"^encoder\.dist_token$", "encoder.reg_token"),)  # timm's name for a second learnt token

LAYOUTS = (
    Layout(
        name="mmsegmentation zoo, mask head",
        convention="mmseg",
        recognise=lambda state: "decode_head.dec_proj.weight" in state,
        rename=(
            *_MMSEG_BACKBONE,
            (r"^decode_head\.dec_proj\.", "decoder.proj_dec."),
            (r"^decode_head\.patch_proj\.weight$", "decoder.proj_patch"),
            (r"^decode_head\.classes_proj\.weight$", "decoder.proj_classes"),
            (r"^decode_head\.layers\.", "decoder.blocks."),
            (r"^decode_head\.", "decoder."),
        ),
        unused=r"^(decode_head\.conv_seg\.|auxiliary_head\.)",
        transposed=("decoder.proj_patch", "decoder.proj_classes"),
    ),
    Layout(
        name="preprocessed for the reference implementation",
        convention="mmseg",
        recognise=lambda state: (
            "backbone.cls_token" in state
            and any(key in state for key in ("decode_head.proj_dec.weight", "decode_head.head.weight"))
        ),
        rename=((r"^decode_head\.", "decoder."), *_MMSEG_BACKBONE, *_DIST_TOKEN),
        unused=r"^(encoder\.head|backbone\.head|decode_head\.conv_seg\.|auxiliary_head\.)",
    ),
    Layout(
        name="mmsegmentation zoo, linear head",
        convention="mmseg",
        recognise=lambda state: "backbone.cls_token" in state and "decode_head.conv_seg.weight" in state,
        rename=(*_MMSEG_BACKBONE, (r"^decode_head\.conv_seg\.", "decoder.head.")),
        unused=r"^auxiliary_head\.",
        flattened=("decoder.head.weight",),
    ),
    Layout(
        name="official",
        convention="official",
        recognise=lambda state: "encoder.patch_embed.proj.weight" in state,
        rename=_DIST_TOKEN,
        unused=r"^encoder\.(head|pre_logits)",
    ),
)


def recognise(state: Mapping[str, Tensor], source: str) -> Layout:
    """Find the layout of a state dict, or raise `CheckpointError`."""
    for layout in LAYOUTS:
        if layout.recognise(state):
            return layout
    known = ", ".join(layout.name for layout in LAYOUTS)
    raise CheckpointError(
        f"{source}: the keys ({', '.join(list(state)[:3])}, ...) are of no known Segmenter layout; known are: {known}"
    )


def rename(state: Mapping[str, Tensor], layout: Layout) -> State:
    """Give the state under this project's names, without the keys that no evaluation needs."""
    renamed = {
        _rename_key(key, layout.rename): value for key, value in state.items() if not re.match(layout.unused, key)
    }
    for key in layout.transposed:
        renamed[key] = renamed[key].T.contiguous()
    for key in layout.flattened:
        renamed[key] = renamed[key].flatten(1)
    return renamed


def _rename_key(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key
