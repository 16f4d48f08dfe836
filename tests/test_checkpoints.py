"""Checkpoints: every layout, and writing them again."""

import shutil

import pytest
import torch
import yaml
from conftest import SHARED, needs_shared
from reference import DATA, folder_with_weights
from safetensors.torch import load_file, save_file
from stored_models import OFFICIAL, stored_state
from tiny import noise, tiny_model

from lightning_expedite import Segmenter, load, with_reducer
from lightning_expedite.errors import CheckpointError, ReducerError
from lightning_expedite.evaluation.module import SegmenterModule
from lightning_expedite.models import convert_checkpoint, open_checkpoint, read_protocol, save_segmenter
from lightning_expedite.protocol import Protocol
from lightning_expedite.reducers import ToMe

# --- Layouts -----------------------------------------------------------------------------------------


LAYOUTS = (
    ("official_mask", "official", "mask_transformer", 5, (128, 128), (1, 1)),
    ("official_linear", "official", "linear", 5, (128, 128), (1, 1)),
    ("official_distilled", "official", "mask_transformer", 5, (128, 128), (1, 1)),
    ("mmseg_linear", "mmsegmentation zoo, linear head", "linear", 6, (128, 128), (1, 1)),
    ("mmseg_mask", "mmsegmentation zoo, mask head", "mask_transformer", 6, (128, 128), (2, 2)),
    ("seed_mask", "preprocessed for the reference implementation", "mask_transformer", 7, (160, 160), (3, 3)),
)


@pytest.mark.parametrize(
    ("name", "layout", "decoder", "classes", "image_size", "heads"),
    [*LAYOUTS[:4], *(pytest.param(*row, marks=needs_shared) for row in LAYOUTS[4:])],
)
def test_layouts_are_told_apart_by_their_keys(name, layout, decoder, classes, image_size, heads):
    convention = "official" if layout == "official" else "mmseg"
    checkpoint = open_checkpoint(folder_with_weights(name))
    assert checkpoint.layout == layout
    assert checkpoint.convention == convention
    architecture = checkpoint.architecture
    assert architecture.decoder == decoder
    assert architecture.num_classes == classes
    assert architecture.image_size == image_size
    assert (architecture.heads, architecture.decoder_heads) == heads
    assert architecture.distilled is (name == "official_distilled")
    assert load(folder_with_weights(name)).convention.name == convention
    other = "official" if convention == "mmseg" else "mmseg"
    assert load(folder_with_weights(name), convention=other).convention.name == other


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
    assert open_checkpoint(tmp_path).layout == "preprocessed for the reference implementation"
    images = noise(1, 3, 96, 128)
    expected = load(source, convention="mmseg")(images)
    assert torch.equal(load(tmp_path)(images), expected)


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
    assert open_checkpoint(tmp_path / "zoo.pth").layout == "mmsegmentation zoo, mask head"
    images = noise(1, 3, 96, 128)
    expected = load(OFFICIAL, convention="mmseg")(images)
    assert torch.equal(load(tmp_path / "zoo.pth")(images), expected)


def test_a_file_its_folder_and_a_bare_state_dict_are_all_read(tmp_path, model_folder):
    state = load(model_folder).state_dict()
    torch.save(stored_state(), model_folder / "bare.pth")
    save_file(stored_state(), model_folder / "bare.safetensors")
    shutil.copy(model_folder / "bare.safetensors", model_folder / "named.pth")
    shutil.copy(model_folder / "bare.pth", model_folder / "named.safetensors")
    torch.save(stored_state(), model_folder / "old.safetensors", _use_new_zipfile_serialization=False)
    names = ("bare.pth", "bare.safetensors", "named.pth", "named.safetensors", "old.safetensors")
    for name in ("", "checkpoint.pth", *names):
        loaded = load(str(model_folder / name))
        assert not loaded.training
        for key, value in loaded.state_dict().items():
            assert torch.equal(value, state[key])


def test_evaluation_settings_come_from_the_variant(variant, model_folder):
    assert read_protocol(model_folder, convention="mmseg") == Protocol(short_side=128, window=128, stride=128)
    variant(lambda content: content["inference_kwargs"].pop("window_stride"))
    assert read_protocol(model_folder, convention="mmseg").stride == 128 - 32
    variant(lambda content: content["dataset_kwargs"].update(normalization="deit"))
    assert read_protocol(model_folder).normalization == "deit"


def test_the_official_evaluation_ignores_the_stored_window_and_stride(variant, model_folder, tmp_path):
    """Case 1: as segm/eval/miou.py, whose window is the crop size and whose stride is 32 pixels less."""
    variant(lambda content: content["inference_kwargs"].update(window_size=96, window_stride=64))
    variant(lambda content: content["dataset_kwargs"].update(crop_size=112, image_size=120))
    official, mmseg = Protocol(120, None, 112, 80), Protocol(128, None, 96, 64)
    convert_checkpoint(model_folder, tmp_path / "converted")
    for folder in (model_folder, tmp_path / "converted"):
        assert read_protocol(folder) == load(folder).protocol == official
        assert load(folder, convention="mmseg").protocol == mmseg
        assert read_protocol(folder, convention="mmseg") == mmseg
    assert SegmenterModule(str(model_folder)).protocol == mmseg
    assert SegmenterModule(str(model_folder), convention="official").protocol == official
    assert read_protocol("cityscapes/seg_large_mask", convention="official").stride == 768 - 32
    assert read_protocol("cityscapes/seg_large_mask", convention="mmseg").stride == 512


def test_tuples_of_the_official_training_script_are_read_without_executing_anything(variant, model_folder):
    """Case 10."""
    path = variant(lambda content: None)
    content = yaml.safe_load(path.read_text())
    for section in ("net_kwargs", "dataset_kwargs"):
        content[section]["image_size"] = (128, 128)
    path.write_text(yaml.dump(content))
    assert "!!python/tuple" in path.read_text()
    assert load(model_folder).architecture.image_size == (128, 128)
    assert load(model_folder).protocol.short_side == 128


def test_decoder_heads_are_those_of_the_variant_else_one_per_64_channels(variant, model_folder):
    assert load(model_folder).architecture.decoder_heads == 1
    variant(lambda content: content["net_kwargs"]["decoder"].update(n_heads=4))
    assert load(model_folder).decoder.blocks[0].attn.num_heads == 4


@needs_shared
def test_heads_and_normalisation_are_not_guessed_without_a_variant(tmp_path):
    """Case 2: `mask_tiny` has three heads of 32 channels, which its tensors do not say."""
    source = SHARED / "parity" / "mask_tiny"
    path = shutil.copyfile(source / "checkpoint.pth", tmp_path / "checkpoint.pth")
    hint = r"variant\.yml, for example: net_kwargs: {n_heads: 3, normalization: vit, decoder: {n_heads: 3}}"
    with pytest.raises(CheckpointError, match=rf"attention heads of the decoder \(width 96\).*{hint}"):
        load(path)
    (tmp_path / "variant.yml").write_text("net_kwargs: {n_heads: 3, normalization: vit}")
    with pytest.raises(CheckpointError, match=rf"attention heads of the decoder \(width 96\).*{hint}"):
        load(path)
    (tmp_path / "variant.yml").write_text("net_kwargs: {n_heads: 3, decoder: {n_heads: 3}}")
    for read in (load, read_protocol):
        with pytest.raises(CheckpointError, match=f"the normalisation of its images is not known.*{hint}"):
            read(path)
    (tmp_path / "variant.yml").write_text("net_kwargs: {n_heads: 3, normalization: vit, decoder: {n_heads: 3}}")
    images = noise(1, 3, 160, 160)
    with torch.inference_mode():
        assert torch.equal(load(path)(images), load(source)(images))


def test_published_widths_have_heads_of_64_channels(tmp_path):
    for width, heads in ((192, 3), (384, 6)):
        model = tiny_model(width=width, depth=1, heads=heads, decoder_depth=1, decoder_heads=heads)
        save_file(model.state_dict(), tmp_path / "weights.safetensors")
        (tmp_path / "variant.yml").write_text("net_kwargs: {normalization: deit}")
        loaded = load(tmp_path / "weights.safetensors")
        assert (loaded.architecture.heads, loaded.architecture.decoder_heads) == (heads, heads)
        assert loaded.protocol.normalization == "deit"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "model._orig_mod.module."])
def test_prefixes_of_wrappers_are_stripped(model_folder, prefix):
    """Case 24."""
    expected = load(model_folder).state_dict()
    torch.save({"model": {prefix + key: value for key, value in stored_state().items()}}, model_folder / "wrapped.pth")
    for key, value in load(model_folder / "wrapped.pth").state_dict().items():
        assert torch.equal(value, expected[key])


def test_averaged_weights_beside_the_model_are_named(model_folder):
    """Case 24."""
    averaged = {key: torch.zeros_like(value) for key, value in stored_state().items()}
    torch.save({"model_ema": averaged, "model": stored_state()}, model_folder / "checkpoint.pth")
    with pytest.warns(UserWarning, match="holds model_ema beside model: model is loaded"):
        assert load(model_folder).encoder.norm.weight.any()


def test_the_bundled_model_comes_before_a_folder_of_its_name(tmp_path, monkeypatch, model_folder):
    """Case 26."""
    monkeypatch.chdir(tmp_path)
    model_folder.rename(tmp_path / "demo")
    assert load("demo").num_classes == 11
    assert (load("./demo").num_classes, load(tmp_path / "demo").num_classes) == (5, 5)


def test_with_reducer_refuses_modules_that_take_none(model_folder):
    """Case 7."""
    model = load(model_folder)
    with pytest.raises(ReducerError, match="with_reducer got a Linear, which takes no reducer"):
        with_reducer(torch.nn.Linear(2, 2), ToMe(0.3))
    assert with_reducer(model, ToMe(0.3)).reducer.ratio == 0.3
    assert model.reducer is None
    assert "convention='official', reducer=ToMe(ratio=0.3)" in repr(with_reducer(model, ToMe(0.3)))


@pytest.mark.parametrize(
    ("reducer", "words"),
    [
        ("tome", r"reducer is 'tome'; pass None or an object .*for example ToMe\(\.\.\.\)"),
        ("clustering", r"for example TokenClustering\(\.\.\.\)"),
        (ToMe, r"reducer is the class ToMe; pass an object with its settings, ToMe\(\.\.\.\)"),
        (0.3, "reducer is 0.3; pass None or an object"),
    ],
)
def test_what_is_no_reducer_is_refused_with_the_nearest_name(model_folder, reducer, words):
    for attempt in (lambda: load(model_folder, reducer=reducer), lambda: with_reducer(load("demo"), reducer)):
        with pytest.raises(ReducerError, match=words):
            attempt()


def test_pack_weights_is_accepted_with_a_warning():
    for read in (load, Segmenter.from_pretrained):
        with pytest.warns(FutureWarning, match="pack_weights is deprecated"):
            read("demo", pack_weights=True)


# --- Writing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("convention", ["official", "mmseg"])
@pytest.mark.parametrize("name", ["official_mask", "official_linear", "official_distilled", "mmseg_linear"])
@torch.inference_mode()
def test_a_saved_model_is_the_same_model_convention_included(tmp_path, name, convention):
    model = load(DATA / "parity" / name, convention=convention)
    protocol = Protocol(short_side=100, window=96, stride=64, normalization="deit")
    path = save_segmenter(model, tmp_path / "new" / "folder", protocol)
    assert path == tmp_path / "new" / "folder" / "model.safetensors"
    again = load(path.parent)
    images = noise(2, 3, 120, 150)
    assert torch.equal(again(images), model(images))
    assert again.convention == model.convention
    assert again.architecture == model.architecture
    assert read_protocol(path.parent) == protocol
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.safetensors", "variant.yml"]


@torch.inference_mode()
def test_a_converted_checkpoint_gives_identical_logits(tmp_path):
    for name in ("official_mask", "mmseg_linear"):
        source = DATA / "parity" / name
        convert_checkpoint(source, tmp_path / name)
        images = noise(1, 3, 120, 150)
        assert torch.equal(load(tmp_path / name)(images), load(source)(images))
        for convention in ("mmseg", "official"):
            assert read_protocol(tmp_path / name, None, convention) == read_protocol(source, None, convention)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@torch.inference_mode()
def test_half_precision_halves_the_file_and_is_loaded_as_float32(tmp_path, dtype):
    whole = convert_checkpoint(OFFICIAL, tmp_path / "whole")
    half = convert_checkpoint(OFFICIAL, tmp_path / "half", dtype)
    assert half.stat().st_size < 0.55 * whole.stat().st_size
    assert {value.dtype for value in load_file(half).values()} == {getattr(torch, dtype)}
    model, expected = load(half), load(whole)
    for key, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected.state_dict()[key].to(getattr(torch, dtype)).float())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_weight_beyond_the_range_of_half_precision_is_named(model_folder, run, tmp_path, dtype):
    """Case 8: float16 ends at 65504."""
    state = stored_state()
    state["encoder.norm.weight"][3] = 70000.0
    torch.save({"model": state}, model_folder / "checkpoint.pth")
    words = ("convert", "--checkpoint", model_folder, "--output", tmp_path / "out", "--dtype", dtype)
    status, _, err = run(*words)
    if dtype == "bfloat16":
        assert (status, load(tmp_path / "out").encoder.norm.weight[3]) == (0, 70144.0)
    else:
        assert status == 2
        assert "torch.float16, encoder.norm.weight has 1 of 64 weights" in err
        assert "use bfloat16 or float32" in err
        assert not (tmp_path / "out").exists()
