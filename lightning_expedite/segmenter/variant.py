"""`variant.yml`: the sizes and evaluation settings that stand beside a checkpoint."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from ..errors import CheckpointError
from ..protocol import Protocol
from .architecture import Architecture

Variant = dict[str, Any]


def read_variant(path: Path) -> Variant:
    """Read a `variant.yml`; a missing file is an empty one.

    Raises:
        CheckpointError: The file is no YAML mapping.
    """
    if not path.is_file():
        return {}
    try:
        variant = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is no readable YAML ({error}); restore it from where it came") from error
    if not isinstance(variant, dict):
        raise CheckpointError(f"{path} must be a mapping with net_kwargs; it holds {type(variant).__name__}")
    return variant


def protocol_of(variant: Mapping[str, Any]) -> Protocol:
    """Give the evaluation settings of a variant; official ones without a stride use window - 32."""
    inference = variant.get("inference_kwargs") or {}
    window = inference.get("window_size")
    stride = inference.get("window_stride") or (window - 32 if window else None)
    settings = variant.get("dataset_kwargs") or variant.get("net_kwargs") or {}
    normalization = settings.get("normalization", "vit")
    if normalization not in ("vit", "deit"):
        raise CheckpointError(f"variant.yml: normalization {normalization!r} is unknown; it must be vit or deit")
    return Protocol(short_side=inference.get("im_size"), window=window, stride=stride, normalization=normalization)


def variant_of(architecture: Architecture, protocol: Protocol) -> Variant:
    """Describe a model in the terms of the official `variant.yml`."""
    decoder: Variant = {"name": architecture.decoder}
    if architecture.decoder == "mask_transformer":
        decoder |= {"n_heads": architecture.decoder_heads, "n_layers": architecture.decoder_depth}
    return {
        "net_kwargs": {
            "d_model": architecture.width,
            "decoder": decoder,
            "distilled": architecture.distilled,
            "image_size": list(architecture.image_size),
            "n_cls": architecture.num_classes,
            "n_heads": architecture.heads,
            "n_layers": architecture.depth,
            "normalization": protocol.normalization,
            "patch_size": architecture.patch_size,
        },
        "inference_kwargs": {
            "im_size": protocol.short_side,
            "window_size": protocol.window,
            "window_stride": protocol.stride,
        },
    }


def architecture_of(state: Mapping[str, Tensor], variant: Mapping[str, Any], source: str) -> Architecture:
    """Read the sizes off the tensors, and off the variant what tensors do not tell (heads, image size).

    Raises:
        CheckpointError: Tensors are missing, or the variant contradicts them.
    """
    try:
        architecture = _architecture_of_tensors(state)
    except (KeyError, StopIteration) as error:
        raise CheckpointError(f"{source}: tensor {error} is missing; the file is incomplete") from error
    network = variant.get("net_kwargs")
    return _apply_network(architecture, network, source) if network else architecture


def _architecture_of_tensors(state: Mapping[str, Tensor]) -> Architecture:
    patch_weight = state["encoder.patch_embed.proj.weight"]
    width, patch_size = patch_weight.shape[0], patch_weight.shape[-1]
    class_token, distilled = "encoder.cls_token" in state, "encoder.reg_token" in state
    patches = state["encoder.pos_embed"].shape[1] - class_token - distilled
    side = round(patches**0.5) * patch_size
    encoder = Architecture(
        image_size=(side, side),
        patch_size=patch_size,
        width=width,
        depth=_count_blocks(state, "encoder"),
        heads=max(width // 64, 1),
        num_classes=0,
        mlp_ratio=state["encoder.blocks.0.mlp.fc1.weight"].shape[0] / width,
        class_token=class_token,
        distilled=distilled,
    )
    if "decoder.head.weight" in state:
        return replace(encoder, decoder="linear", num_classes=state["decoder.head.weight"].shape[0])
    decoder_width = state["decoder.proj_dec.weight"].shape[0]
    return replace(
        encoder,
        num_classes=state["decoder.cls_emb"].shape[1],
        decoder_width=decoder_width,
        decoder_depth=_count_blocks(state, "decoder"),
        decoder_heads=max(decoder_width // 64, 1),
        decoder_mlp_ratio=state["decoder.blocks.0.mlp.fc1.weight"].shape[0] / decoder_width,
    )


def _count_blocks(state: Mapping[str, Tensor], part: str) -> int:
    prefix = f"{part}.blocks."
    return 1 + max((int(key[len(prefix) :].split(".")[0]) for key in state if key.startswith(prefix)), default=-1)


def _apply_network(architecture: Architecture, network: Mapping[str, Any], source: str) -> Architecture:
    said = {
        "d_model": architecture.width,
        "n_layers": architecture.depth,
        "n_cls": architecture.num_classes,
        "patch_size": architecture.patch_size,
    }
    for key, held in said.items():
        if network.get(key, held) != held:
            raise CheckpointError(
                f"{source}: variant.yml says {key} {network[key]}, the tensors say {held}; it belongs to another file"
            )
    decoder = network.get("decoder") or {}
    size = network.get("image_size", architecture.image_size)
    size = (size, size) if isinstance(size, int) else tuple(size)
    applied = replace(
        architecture,
        image_size=size,
        heads=network.get("n_heads", architecture.heads),
        decoder_heads=decoder.get("n_heads", architecture.decoder_heads),
    )
    if applied.grid[0] * applied.grid[1] != architecture.grid[0] * architecture.grid[1]:
        raise CheckpointError(
            f"{source}: variant.yml says image_size {size}, that is {applied.grid} patches; "
            f"the position embeddings are for {architecture.grid[0] * architecture.grid[1]} patches"
        )
    return applied
