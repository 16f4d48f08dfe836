"""Checkpoints: every layout, and writing them again."""

import shutil

import pytest
import torch
from conftest import needs_shared
from reference import DATA, folder_with_weights
from safetensors.torch import load_file, save_file
from stored_models import OFFICIAL, stored_state
from tiny import noise, tiny_model

from lightning_expedite import load_segmenter
from lightning_expedite.models.segmenter import (
    convert_checkpoint,
    read_checkpoint,
    read_protocol,
    save_segmenter,
)
from lightning_expedite.protocol import Protocol

# --- Layouts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layout", "convention", "decoder", "classes", "image_size", "heads"),
    [
        ("official_mask", "official", "official", "mask_transformer", 5, (128, 128), (1, 1)),
        ("official_linear", "official", "official", "linear", 5, (128, 128), (1, 1)),
        ("official_distilled", "official", "official", "mask_transformer", 5, (128, 128), (1, 1)),
        ("mmseg_linear", "mmsegmentation zoo, linear head", "mmseg", "linear", 6, (128, 128), (1, 1)),
        pytest.param(
            "mmseg_mask",
            "mmsegmentation zoo, mask head",
            "mmseg",
            "mask_transformer",
            6,
            (128, 128),
            (2, 2),
            marks=needs_shared,
        ),
        pytest.param(
            "seed_mask",
            "preprocessed for the reference implementation",
            "mmseg",
            "mask_transformer",
            7,
            (160, 160),
            (3, 3),
            marks=needs_shared,
        ),
    ],
)
def test_layouts_are_told_apart_by_their_keys(name, layout, convention, decoder, classes, image_size, heads):
    checkpoint = read_checkpoint(folder_with_weights(name))
    assert checkpoint.layout == layout
    assert checkpoint.convention == convention
    architecture = checkpoint.architecture
    assert architecture.decoder == decoder
    assert architecture.num_classes == classes
    assert architecture.image_size == image_size
    assert (architecture.heads, architecture.decoder_heads) == heads
    assert architecture.distilled is (name == "official_distilled")
    assert load_segmenter(folder_with_weights(name)).convention.name == convention
    other = "official" if convention == "mmseg" else "mmseg"
    assert load_segmenter(folder_with_weights(name), convention=other).convention.name == other


BLOCK_NAMES = (  # of a block's parts: official, and mmsegmentation's
    (".norm1.", ".ln1."),
    (".norm2.", ".ln2."),
    (".attn.qkv.", ".attn.attn.in_proj_"),
    (".attn.proj.", ".attn.attn.out_proj."),
    (".mlp.fc1.", ".ffn.layers.0.0."),
    (".mlp.fc2.", ".ffn.layers.1."),
)


def to_seed_layout(state):
    """Official names to those that the reference implementation's preprocessing leaves."""
    pairs = (
        ("encoder.norm.", "backbone.ln1."),
        *BLOCK_NAMES,
        ("encoder.blocks.", "backbone.layers."),
        ("encoder.patch_embed.proj.", "backbone.patch_embed.projection."),
        ("encoder.cls_token", "backbone.cls_token"),
        ("encoder.pos_embed", "backbone.pos_embed"),
    )
    renamed = {}
    for key, value in state.items():
        if key.startswith("decoder."):
            key = key.replace("decoder.", "decode_head.", 1)
        else:
            for official, seed in pairs:
                key = key.replace(official, seed)
        renamed[key] = value
    return renamed


@pytest.mark.parametrize("name", ["official_mask", "official_distilled", "official_linear"])
@torch.inference_mode()
def test_preprocessed_layout_gives_the_same_model_leftovers_and_distillation_token_included(tmp_path, name):
    source = DATA / "parity" / name
    state = to_seed_layout(stored_state(source))
    assert any(key.startswith("encoder.head") for key in state)
    assert ("encoder.dist_token" in state) is (name == "official_distilled")
    torch.save({"state_dict": state, "meta": {}}, tmp_path / "checkpoint.pth")
    shutil.copyfile(source / "variant.yml", tmp_path / "variant.yml")
    assert read_checkpoint(tmp_path).layout == "preprocessed for the reference implementation"
    images = noise(1, 3, 96, 128)
    expected = load_segmenter(source, convention="mmseg")(images)
    assert torch.equal(load_segmenter(tmp_path)(images), expected)


@torch.inference_mode()
def test_zoo_mask_layout_gives_the_same_model_with_transposed_projections(tmp_path):
    state = stored_state()
    zoo = {key: value for key, value in to_seed_layout(state).items() if not key.startswith("encoder.head")}
    for official, mmseg in (("proj_patch", "patch_proj"), ("proj_classes", "classes_proj")):
        zoo[f"decode_head.{mmseg}.weight"] = zoo.pop(f"decode_head.{official}").T.contiguous()
    names = (
        ("decode_head.proj_dec", "decode_head.dec_proj"),
        ("decode_head.blocks.", "decode_head.layers."),
        *BLOCK_NAMES,
    )
    for official, mmseg in names:
        zoo = {
            (key.replace(official, mmseg) if key.startswith("decode_head") else key): value
            for key, value in zoo.items()
        }
    zoo["decode_head.conv_seg.weight"] = torch.zeros(5, 64, 1, 1)
    torch.save({"state_dict": zoo}, tmp_path / "zoo.pth")
    assert read_checkpoint(tmp_path / "zoo.pth").layout == "mmsegmentation zoo, mask head"
    images = noise(1, 3, 96, 128)
    expected = load_segmenter(OFFICIAL, convention="mmseg")(images)
    assert torch.equal(load_segmenter(tmp_path / "zoo.pth")(images), expected)


def test_a_file_its_folder_and_a_bare_state_dict_are_all_read(tmp_path, model_folder):
    state = load_segmenter(model_folder).state_dict()
    torch.save(stored_state(), model_folder / "bare.pth")
    save_file(stored_state(), model_folder / "bare.safetensors")
    for path in (
        str(model_folder),
        model_folder / "checkpoint.pth",
        model_folder / "bare.pth",
        model_folder / "bare.safetensors",
    ):
        loaded = load_segmenter(path)
        assert not loaded.training
        for key, value in loaded.state_dict().items():
            assert torch.equal(value, state[key])


def test_evaluation_settings_come_from_the_variant(variant, model_folder):
    assert read_protocol(model_folder) == Protocol(short_side=128, window=128, stride=128)
    variant(lambda content: content["inference_kwargs"].pop("window_stride"))
    assert read_protocol(model_folder).stride == 128 - 32
    variant(lambda content: content["dataset_kwargs"].update(normalization="deit"))
    assert read_protocol(model_folder).normalization == "deit"
    (model_folder / "variant.yml").unlink()
    assert read_protocol(model_folder) == Protocol()


def test_decoder_heads_are_those_of_the_variant_else_one_per_64_channels(variant, model_folder):
    assert load_segmenter(model_folder).architecture.decoder_heads == 1
    variant(lambda content: content["net_kwargs"]["decoder"].update(n_heads=4))
    assert load_segmenter(model_folder).architecture.decoder_heads == 4
    assert load_segmenter(model_folder).decoder.blocks[0].attn.num_heads == 4


# --- Writing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("convention", ["official", "mmseg"])
@pytest.mark.parametrize("name", ["official_mask", "official_linear", "official_distilled", "mmseg_linear"])
@torch.inference_mode()
def test_a_saved_model_is_the_same_model_convention_included(tmp_path, name, convention):
    model = load_segmenter(DATA / "parity" / name, convention=convention)
    protocol = Protocol(short_side=100, window=96, stride=64, normalization="deit")
    path = save_segmenter(model, tmp_path / "new" / "folder", protocol)
    assert path == tmp_path / "new" / "folder" / "model.safetensors"
    again = load_segmenter(path.parent)
    images = noise(2, 3, 120, 150)
    assert torch.equal(again(images), model(images))
    assert again.convention == model.convention
    assert again.architecture == model.architecture
    assert read_protocol(path.parent) == protocol
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.safetensors", "variant.yml"]


def test_a_grid_that_is_not_square_survives_saving(tmp_path):
    model = tiny_model(image_size=(32, 64))
    save_segmenter(model, tmp_path)
    with torch.inference_mode():
        images = noise(1, 3, 40, 40)
        assert torch.equal(load_segmenter(tmp_path)(images), model(images))


@torch.inference_mode()
def test_a_converted_checkpoint_gives_identical_logits(tmp_path):
    for name in ("official_mask", "mmseg_linear"):
        source = DATA / "parity" / name
        convert_checkpoint(source, tmp_path / name)
        images = noise(1, 3, 120, 150)
        assert torch.equal(load_segmenter(tmp_path / name)(images), load_segmenter(source)(images))
        assert read_protocol(tmp_path / name) == read_protocol(source)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@torch.inference_mode()
def test_half_precision_halves_the_file_and_is_loaded_as_float32(tmp_path, dtype):
    whole = convert_checkpoint(OFFICIAL, tmp_path / "whole")
    half = convert_checkpoint(OFFICIAL, tmp_path / "half", dtype)
    assert half.stat().st_size < 0.55 * whole.stat().st_size
    assert {value.dtype for value in load_file(half).values()} == {getattr(torch, dtype)}
    model, expected = load_segmenter(half), load_segmenter(whole)
    for key, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected.state_dict()[key].to(getattr(torch, dtype)).float())
