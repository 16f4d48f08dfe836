"""Checkpoints: every kind of damage."""

import io
import pickle

import pytest
import torch
from stored_models import OFFICIAL, refused, stored_state

from lightning_expedite import load_segmenter
from lightning_expedite.errors import CheckpointError, ExpediteError
from lightning_expedite.models.segmenter import (
    convert_checkpoint,
)

pytestmark = pytest.mark.promise("bad-checkpoints")


def test_nothing_at_that_path(tmp_path):
    with pytest.raises(CheckpointError, match="neither a path nor a known name; known names are demo, ade20k"):
        load_segmenter(tmp_path / "nowhere.pth")
    with pytest.raises(CheckpointError, match=r"nowhere\.pth"):
        load_segmenter(tmp_path / "nowhere.pth")


def test_folder_without_weights(tmp_path):
    refused(tmp_path, "is a folder without model.safetensors or checkpoint.pth")


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.9999])
def test_truncated_pytorch_file(model_folder, share):
    path = model_folder / "checkpoint.pth"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "damaged")


@pytest.mark.parametrize("size", [0, 10, 100, 1000, 100_000])
def test_truncated_pytorch_file_of_the_old_format(model_folder, size):
    stream = io.BytesIO()
    torch.save({"model": stored_state()}, stream, _use_new_zipfile_serialization=False)
    path = model_folder / "checkpoint.pth"
    path.write_bytes(stream.getvalue())
    assert load_segmenter(path).num_classes == 5
    path.write_bytes(stream.getvalue()[:size])
    refused(path, "damaged")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.9999])
def test_truncated_safetensors_file(tmp_path, share):
    path = convert_checkpoint(OFFICIAL, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "damaged")


@pytest.mark.parametrize("content", [b"", b"<html>404 not found</html>\n", b"plain text\n" * 50, b"\0" * 64])
@pytest.mark.parametrize("name", ["checkpoint.pth", "model.safetensors"])
def test_a_file_of_another_kind(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    refused(path, "damaged")


class WritesAFile:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_pickle_is_never_executed(tmp_path, new_format):
    trace = tmp_path / "executed"
    path = tmp_path / "checkpoint.pth"
    content = {"model": stored_state(), "extra": WritesAFile(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    refused(path, "holds objects other than tensors, which are never executed")
    assert not trace.exists()
    pickle.loads(pickle.dumps(WritesAFile(trace))).close()
    assert trace.exists()  # the trap would have worked


@pytest.mark.parametrize("content", [{}, {"model": {}}, [1, 2], {"model": {"a": 1}}, 3])
def test_a_pytorch_file_without_tensors(tmp_path, content):
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path)
    refused(path, "holds no tensors")


def test_a_model_of_another_kind(tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": {"backbone.conv1.weight": torch.zeros(2), "fc.weight": torch.zeros(3)}}, path)
    refused(path, "backbone.conv1.weight", "of no known Segmenter layout", "mmsegmentation zoo, mask head")


@pytest.mark.parametrize(
    "key",
    [
        "encoder.blocks.2.attn.qkv.weight",
        "encoder.pos_embed",
        "encoder.norm.bias",
        "encoder.blocks.0.mlp.fc1.weight",
        "decoder.cls_emb",
        "decoder.proj_dec.weight",
        "decoder.proj_patch",
        "decoder.mask_norm.weight",
        "decoder.blocks.0.mlp.fc1.weight",
    ],
)
def test_a_missing_tensor(model_folder, key):
    state = stored_state()
    del state[key]
    path = model_folder / "checkpoint.pth"
    torch.save({"model": state}, path)
    refused(path, key, "missing")


def test_all_blocks_missing(model_folder):
    path = model_folder / "checkpoint.pth"
    torch.save({"model": {key: value for key, value in stored_state().items() if ".blocks." not in key}}, path)
    refused(path, "encoder.blocks.0", "missing")


@pytest.mark.parametrize("key", ["encoder.more", "decoder.cls_emb_2", "head.weight", "encoder.blocks.x.y"])
def test_a_tensor_too_many(model_folder, key):
    path = model_folder / "checkpoint.pth"
    torch.save({"model": {**stored_state(), key: torch.zeros(1)}}, path)
    refused(path, key)


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("encoder.blocks.1.attn.qkv.weight", (192, 63)),
        ("encoder.norm.weight", (65,)),
        ("decoder.proj_patch", (64, 32)),
        ("decoder.mask_norm.weight", (4,)),
        ("encoder.pos_embed", (65 * 64,)),
        ("encoder.pos_embed", (1, 60, 64)),
        ("decoder.cls_emb", (320,)),
        ("decoder.proj_dec.weight", ()),
        ("decoder.proj_dec.weight", (0, 64)),
        ("encoder.patch_embed.proj.weight", (0, 3, 16, 16)),
        ("encoder.blocks.0.mlp.fc1.weight", ()),
    ],
)
def test_a_tensor_of_the_wrong_shape(model_folder, key, shape):
    path = model_folder / "checkpoint.pth"
    torch.save({"model": {**stored_state(), key: torch.zeros(shape)}}, path)
    refused(path)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("net_kwargs", "d_model", 128),
        ("net_kwargs", "n_layers", 12),
        ("net_kwargs", "n_cls", 150),
        ("net_kwargs", "patch_size", 8),
        ("net_kwargs", "image_size", [256, 256]),
        ("net_kwargs", "image_size", "large"),
        ("net_kwargs", "n_heads", 3),
        ("net_kwargs", "n_heads", 0),
        ("net_kwargs", "n_heads", "one"),
        ("net_kwargs", "distilled", True),
        ("decoder", "n_heads", 3),
        ("decoder", "n_layers", 3),
        ("decoder", "name", "linear"),
        ("dataset_kwargs", "normalization", "imagenet"),
        ("inference_kwargs", "window_size", "large"),
        ("inference_kwargs", "window_stride", -4),
        (None, "net_kwargs", ["vit"]),
        (None, "inference_kwargs", 640),
        (None, "convention", "detectron"),
        (None, "convention", ["mmseg"]),
    ],
)
def test_a_variant_that_contradicts_the_tensors_or_itself(variant, model_folder, section, key, value):
    def change(content):
        if section == "decoder":
            content["net_kwargs"]["decoder"][key] = value
        else:
            (content if section is None else content[section])[key] = value

    variant(change)
    with pytest.raises(CheckpointError) as raised:
        load_segmenter(model_folder)
    assert str(model_folder) in str(raised.value)
    assert "variant.yml" in str(raised.value)


@pytest.mark.parametrize("content", ["net_kwargs: [1", "just words", "- a list", "a: b: c", "\x00"])
def test_a_variant_that_is_no_yaml_mapping(model_folder, content):
    path = model_folder / "variant.yml"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=r"variant\.yml") as raised:
        load_segmenter(model_folder)
    assert str(path) in str(raised.value)


def test_a_variant_with_code_is_never_executed(model_folder, tmp_path):
    trace = tmp_path / "executed"
    (model_folder / "variant.yml").write_text(f"a: !!python/object/apply:os.mkdir ['{trace}']")
    with pytest.raises(CheckpointError, match="no readable YAML"):
        load_segmenter(model_folder)
    assert not trace.exists()


def test_an_unknown_convention():
    with pytest.raises(ExpediteError, match="convention 'seed' is unknown; it must be one of official, mmseg"):
        load_segmenter(OFFICIAL, convention="seed")
