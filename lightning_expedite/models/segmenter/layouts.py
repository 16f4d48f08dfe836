"""The checkpoint layouts of Segmenter, told apart by their keys and renamed to one.

Every layout becomes the official one's names, which are also this project's: ``encoder.*`` and ``decoder.*``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ...errors import CheckpointError
from .architecture import ConventionName
from .soundness import require_dense

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


def rename(state: Mapping[str, Tensor], layout: Layout, source: str) -> State:
    """Give the state under this project's names, without the keys that no evaluation needs.

    Raises:
        CheckpointError: Two keys have the same meaning, a tensor is not dense, or a matrix is missing or none.
    """
    renamed: State = {}
    for key, value in state.items():
        if re.match(layout.unused, key):
            continue
        name = _rename_key(key, layout.rename)
        if name in renamed:
            raise CheckpointError(f"{source}: {key} and another key both stand for {name}; leave one of them out")
        renamed[name] = value
    require_dense(renamed, source)
    for key in layout.transposed:
        renamed[key] = _matrix(renamed, key, source).T.contiguous()
    for key in layout.flattened:
        renamed[key] = _matrix(renamed, key, source)
    return renamed


def _matrix(state: State, key: str, source: str) -> Tensor:
    """Give a matrix, or a 1 x 1 convolution as a matrix."""
    if key not in state:
        raise CheckpointError(f"{source}: tensor {key} is missing; the file is incomplete")
    value, shape = state[key], tuple(state[key].shape)
    if len(shape) < 2 or any(side != 1 for side in shape[2:]):
        raise CheckpointError(f"{source}: {key} has shape {shape}; it must be a matrix or a 1 x 1 convolution")
    return value.flatten(1)


def _rename_key(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key
