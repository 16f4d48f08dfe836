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
from .settings import VARIANT_FILE, VARIANT_HINT, Network

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
    """Return the layout of a state dict.

    Raises:
        CheckpointError: The keys match no layout.
    """
    for layout in LAYOUTS:
        if layout.matches(state):
            return layout
    known = ", ".join(layout.name for layout in LAYOUTS)
    raise CheckpointError(
        f"{path}: the keys ({', '.join(list(state)[:3])}, ...) match no known Segmenter layout; known are: {known}"
    )


def rename_keys(state: Mapping[str, Tensor], layout: Layout, path: Path) -> State:
    """Return the state dict under this project's names, without the keys that no evaluation needs.

    Raises:
        CheckpointError: Two keys have the same meaning.
    """
    renamed: State = {}
    for key, value in state.items():
        if re.match(layout.unused, key):
            continue
        name = key
        for pattern, replacement in layout.renames:
            name = re.sub(pattern, replacement, name)
        if name in renamed:
            raise CheckpointError(f"{path}: {key} and another key both map to {name}; remove one of them")
        renamed[name] = value
    return renamed


def reshape_matrices(state: State, layout: Layout, path: Path) -> None:
    """Bring matrices that a layout stores transposed or as 1 x 1 convolutions into their usual shape, in place.

    Raises:
        CheckpointError: One is missing or has another shape.
    """
    for key in (*layout.transposed, *layout.flattened):
        shape = tuple(state[key].shape) if key in state else ()
        if len(shape) < 2 or any(side != 1 for side in shape[2:]):
            found = f"has shape {shape}" if key in state else "is missing"
            raise CheckpointError(f"{path}: tensor {key} {found}; it must be a matrix or a 1 x 1 convolution")
        matrix = state[key].flatten(1)
        state[key] = matrix.T.contiguous() if key in layout.transposed else matrix


def read_architecture(state: State, layout: Layout, network: Network, path: Path, settings: Path) -> Architecture:
    """Return the sizes of a model from its tensors and, for heads and image size, from its settings.

    Args:
        state: Renamed state dict.
        layout: Its layout.
        network: What the file beside it says about them.
        path: Path of the weights, for messages.
        settings: Path of the file beside it, for messages.

    Raises:
        CheckpointError: Tensors are missing, have impossible shapes or contradict the settings, or the number of heads
            is not known.
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
    class_token, distilled = "encoder.cls_token" in state, "encoder.reg_token" in state
    patches = shape("encoder.pos_embed", 3)[1] - class_token - distilled
    depth, hidden = count_blocks("encoder"), shape("encoder.blocks.0.mlp.fc1.weight", 2)[0]
    sizes: dict[str, Any]
    if "decoder.head.weight" in state:
        sizes = {"decoder": "linear", "num_classes": shape("decoder.head.weight", 2)[0]}
    else:
        inner = shape("decoder.proj_dec.weight", 2)[0]
        sizes = {
            "decoder": "mask_transformer",
            "num_classes": shape("decoder.cls_emb", 3)[1],
            "decoder_width": inner,
            "decoder_depth": count_blocks("decoder"),
            "decoder_mlp_ratio": shape("decoder.blocks.0.mlp.fc1.weight", 2)[0] / inner,
        }
    for key, stated, found in (
        ("d_model", network.d_model, width),
        ("n_layers", network.n_layers, depth),
        ("patch_size", network.patch_size, patch_size),
        ("n_cls", network.n_cls, sizes["num_classes"]),
        ("distilled", network.distilled, distilled),
        ("decoder.name", network.decoder.name, sizes["decoder"]),
        ("decoder.n_layers", network.decoder.n_layers, sizes.get("decoder_depth")),
    ):
        if None not in (stated, found) and stated != found:
            raise CheckpointError(
                f"{settings}: {key} is {stated!r}, but the tensors say {found!r}: it belongs to another file"
            )
    if "decoder_width" in sizes:
        certain = layout.from_zoo or network.n_heads is not None
        sizes["decoder_heads"] = _heads(network.decoder.n_heads, inner, certain, "decoder", path)
    try:
        return Architecture(
            image_size=_trained_size(network.image_size, patches, patch_size, path, settings),
            patch_size=patch_size,
            width=width,
            depth=depth,
            heads=_heads(network.n_heads, width, layout.from_zoo, "encoder", path),
            mlp_ratio=hidden / width,
            class_token=class_token,
            distilled=distilled,
            **sizes,
        )
    except ValueError as error:
        raise CheckpointError(f"{settings}: {error}") from error


def _heads(stated: int | None, width: int, certain: bool, part: str, path: Path) -> int:
    """Return the number of heads: the stated one, or one per 64 channels where that is certain."""
    if stated is not None:
        return stated
    if width % 64 == 0 and (certain or width in PUBLISHED_WIDTHS):
        return width // 64
    raise CheckpointError(
        f"{path}: the number of attention heads of the {part} (width {width}) is not stored in the tensors. "
        f"{VARIANT_HINT.format(path.with_name(VARIANT_FILE))}"
    )


def _trained_size(
    stated: tuple[int, int] | None, patches: int, patch_size: int, path: Path, settings: Path
) -> tuple[int, int]:
    side = math.isqrt(max(patches, 0)) * patch_size
    height, width = stated or (side, side)
    if height // patch_size * (width // patch_size) != patches or not patches:
        raise CheckpointError(
            f"{settings}: image_size is {list(stated) if stated else 'not given'}, but the "
            f"position embeddings in {path} are for {patches} patches of {patch_size} pixels"
        )
    return height, width
