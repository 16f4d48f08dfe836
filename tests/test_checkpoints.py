"""Checkpoints: every layout, writing them again, every kind of damage, and fetching known weights."""

import functools
import hashlib
import http.server
import io
import pickle
import shutil
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
import yaml
from conftest import needs_shared
from reference import DATA, folder_with_weights
from safetensors.torch import load_file, save_file
from tiny import noise, tiny_model

from lightning_expedite import load_segmenter
from lightning_expedite.errors import CheckpointError, ExpediteError
from lightning_expedite.protocol import Protocol
from lightning_expedite.segmenter import (
    convert_checkpoint,
    read_checkpoint,
    read_protocol,
    save_segmenter,
    weights,
)
from lightning_expedite.segmenter.weights import KNOWN_WEIGHTS, KnownWeights, resolve_checkpoint

OFFICIAL = DATA / "parity" / "official_mask"


def stored_state(folder=OFFICIAL):
    return torch.load(folder / "checkpoint.pth", weights_only=True)["model"]


@pytest.fixture
def model_folder(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    for file in ("checkpoint.pth", "variant.yml"):
        shutil.copyfile(OFFICIAL / file, folder / file)
    return folder


@pytest.fixture
def variant(model_folder):
    """A function that edits the folder's variant.yml."""

    def edit(change):
        path = model_folder / "variant.yml"
        content = yaml.safe_load(path.read_text())
        change(content)
        path.write_text(yaml.safe_dump(content))
        return path

    return edit


def refused(path, *words):
    """Load what must be refused, with one line that names the file and holds these words."""
    with pytest.raises(CheckpointError) as raised:
        load_segmenter(path)
    message = str(raised.value)
    for word in (str(path), *words):
        assert word in message
    return message


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


def to_seed_layout(state):
    """Official names to those that the reference implementation's preprocessing leaves."""
    pairs = (
        ("encoder.norm.", "backbone.ln1."),
        (".norm1.", ".ln1."),
        (".norm2.", ".ln2."),
        (".attn.qkv.", ".attn.attn.in_proj_"),
        (".attn.proj.", ".attn.attn.out_proj."),
        (".mlp.fc1.", ".ffn.layers.0.0."),
        (".mlp.fc2.", ".ffn.layers.1."),
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
        (".norm1.", ".ln1."),
        (".norm2.", ".ln2."),
        (".attn.qkv.", ".attn.attn.in_proj_"),
        (".attn.proj.", ".attn.attn.out_proj."),
        (".mlp.fc1.", ".ffn.layers.0.0."),
        (".mlp.fc2.", ".ffn.layers.1."),
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


# --- Damage ------------------------------------------------------------------------------------------


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


# --- Known weights -----------------------------------------------------------------------------------

NAME = "ade20k/seg_tiny_mask"
CHECKED = "ade20k/segmenter_vit-t_mask_8x1_512x512_160k_ade20k"


@pytest.fixture
def no_network(monkeypatch):
    asked = []

    def unreachable(url, *_, **__):
        asked.append(url)
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    return asked


def test_known_weights_lie_in_the_folder_of_the_environment_variable_or_the_argument(tmp_path, monkeypatch, no_network):
    monkeypatch.chdir(tmp_path)
    for folder in ("by_variable", "by_argument"):
        shutil.copytree(OFFICIAL, tmp_path / folder / NAME)
    monkeypatch.setenv("LIGHTNING_EXPEDITE_WEIGHTS", str(tmp_path / "by_variable"))
    assert resolve_checkpoint(NAME) == tmp_path / "by_variable" / NAME
    assert load_segmenter(NAME).num_classes == 5
    assert resolve_checkpoint(NAME, tmp_path / "by_argument") == tmp_path / "by_argument" / NAME
    assert load_segmenter(NAME, weights_folder=tmp_path / "by_argument").num_classes == 5
    assert no_network == []


def test_an_existing_path_comes_before_a_known_name(tmp_path, monkeypatch, no_network):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(OFFICIAL, tmp_path / NAME)
    assert resolve_checkpoint(NAME) == Path(NAME)
    assert read_protocol(NAME).window == 128


def test_weights_that_cannot_be_fetched_say_where_to_put_which_file_and_what_else_there_is(tmp_path, no_network):
    with pytest.raises(CheckpointError) as raised:
        load_segmenter("ade20k/seg_large_mask_640", weights_folder=tmp_path)
    message = str(raised.value)
    place = tmp_path / "ade20k/seg_large_mask_640"
    for part in (
        "weights ade20k/seg_large_mask_640 are not on this machine",
        "https://www.rocq.inria.fr/cluster-willow/rstrudel/segmenter/checkpoints/ade20k/seg_large_mask_640/",
        "Name or service not known",
        f"Put variant.yml and checkpoint.pth into {place}",
        "LIGHTNING_EXPEDITE_WEIGHTS",
        "--model.checkpoint ade20k/segmenter_vit-l_mask_8x1_512x512_160k_ade20k",
    ):
        assert part in message
    assert list(place.iterdir()) == []


def test_every_name_of_the_tables_has_its_addresses_and_every_alternative_is_known():
    host = "https://www.rocq.inria.fr/cluster-willow/rstrudel/segmenter/checkpoints"
    for name in ("ade20k/seg_large_mask_640", "cityscapes/seg_large_mask", "pascal_context/seg_large_mask"):
        assert dict(KNOWN_WEIGHTS[name].files) == {
            file: f"{host}/{name}/{file}" for file in ("checkpoint.pth", "variant.yml")
        }
    for known in KNOWN_WEIGHTS.values():
        assert known.alternative is None or known.alternative in KNOWN_WEIGHTS
    assert KNOWN_WEIGHTS[CHECKED].files[0][1].endswith("ade20k_20220105_151706-ffcf7509.pth")
    assert KNOWN_WEIGHTS[CHECKED].protocol == Protocol(512, 2048, 512, 480)


class Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, content, *arguments, **options):
        self.content = content
        super().__init__(*arguments, **options)

    def do_GET(self):
        kind = self.path.split("/")[1]
        if kind == "missing":
            self.send_error(404)
            return
        if kind == "garbled":
            self.wfile.write(b"not http at all\r\n\r\n")
            return
        self.protocol_version = "HTTP/1.1"
        self.send_response(200)
        if kind == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"FFFF\r\n" + self.content[:1000])
        else:
            self.send_header("Content-Length", str(len(self.content)))
            self.end_headers()
            self.wfile.write(self.content if kind == "whole" else self.content[:1000])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Gives a function that serves the official model's file in some way; returns where it is to lie."""
    content = (OFFICIAL / "checkpoint.pth").read_bytes()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, content))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("LIGHTNING_EXPEDITE_WEIGHTS", str(tmp_path / "weights"))

    def serve(kind, checksum=None):
        url = f"http://127.0.0.1:{server.server_port}/{kind}/checkpoint.pth"
        entry = KnownWeights("some/weights", "ade20k", (("checkpoint.pth", url),), None, Protocol(), checksum)
        monkeypatch.setitem(weights.KNOWN_WEIGHTS, "some/weights", entry)
        return tmp_path / "weights" / "some" / "weights"

    yield serve
    server.shutdown()
    server.server_close()
    thread.join()


def test_weights_are_downloaded_checked_and_not_fetched_again(served):
    content = (OFFICIAL / "checkpoint.pth").read_bytes()
    place = served("whole", hashlib.sha256(content).hexdigest()[:8])
    assert resolve_checkpoint("some/weights") == place
    assert [file.name for file in place.iterdir()] == ["checkpoint.pth"]
    assert (place / "checkpoint.pth").read_bytes() == content
    changed = place.joinpath("checkpoint.pth").stat().st_mtime_ns
    assert load_segmenter("some/weights").num_classes == 5
    assert (place / "checkpoint.pth").stat().st_mtime_ns == changed


def test_weights_with_another_checksum_leave_nothing_behind(served):
    place = served("whole", "0123abcd")
    with pytest.raises(CheckpointError, match=r"whole/checkpoint.pth: the checksum differs from 0123abcd"):
        load_segmenter("some/weights")
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("kind", ["short", "chunked", "missing", "garbled"])
def test_a_download_that_fails_leaves_nothing_behind_and_says_where_to_put_the_file(served, kind):
    place = served(kind)
    with pytest.raises(CheckpointError) as raised:
        load_segmenter("some/weights")
    assert f"Put checkpoint.pth into {place}" in str(raised.value)
    assert list(place.iterdir()) == []


def test_a_weights_folder_that_cannot_be_made(tmp_path, no_network):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"Put variant\.yml and checkpoint\.pth into"):
        load_segmenter(NAME, weights_folder=tmp_path / "file")
