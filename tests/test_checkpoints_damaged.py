"""Damaged and hostile checkpoints: one line names the file, and nothing is executed."""

import json
import pickle
import shutil
import struct
import zipfile
import zlib
from argparse import Namespace

import numpy as np
import pytest
import torch
import yaml
from fuzzing import EMPTY, PLACES, examples
from hypothesis import given
from hypothesis import strategies as st
from reference import DATA
from stored_models import OFFICIAL, SOME_KEYS, STATE, changed, refused, stored_state

from lightning_expedite import load
from lightning_expedite.errors import CheckpointError, ExpediteError
from lightning_expedite.models import convert_checkpoint

pytestmark = pytest.mark.promise("bad-checkpoints")
few_examples = examples(25)


@pytest.fixture
def stored(model_folder):
    """A function that stores another state in the folder's checkpoint and returns its path."""

    def store(state, **options):
        torch.save({"model": state}, model_folder / "checkpoint.pth", **options)
        return model_folder / "checkpoint.pth"

    return store


# --- Paths and files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "no\nsuch",
        "no\0such",
        "a" * 5000,
        "../../nowhere",
        "hf://",
        "hf://a",
        "hf://a/b/c/d",
        "\udcff",
        "~no/x",
    ],
)
def test_a_name_that_is_nothing(refuses_weights, name):
    refuses_weights(name, "error: ")


def test_nothing_at_that_path(tmp_path):
    refused(tmp_path / "nowhere.pth", "neither a path nor a known name; known names are demo, ade20k")
    refused(tmp_path, "is a folder without model.safetensors or checkpoint.pth")
    (tmp_path / "model.safetensors.index.json").touch()
    refused(tmp_path, "sharded")


def test_the_undamaged_checkpoint_is_converted(run, tmp_path, model_folder):
    """The other tests would pass as well if nothing could be converted."""
    status, _, err = run("convert", "--checkpoint", model_folder, "--output", tmp_path / "out")
    assert (status, err) == (0, "")
    assert load(tmp_path / "out").num_classes == 5


@pytest.mark.parametrize("place", PLACES | EMPTY)
@pytest.mark.parametrize("name", ["checkpoint.pth", "model.safetensors", "variant.yml"])
def test_something_else_in_the_place_of_a_file(model_folder, refuses_weights, name, place):
    path = model_folder / name
    path.unlink(missing_ok=True)
    (PLACES | EMPTY)[place](path)
    refuses_weights(model_folder, path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.9999])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_truncated_file(stored, tmp_path, share, kind):
    if kind == "safetensors":
        path = convert_checkpoint(OFFICIAL, tmp_path / "converted")
    else:
        path = stored(stored_state(), _use_new_zipfile_serialization=kind == "zip")
    assert load(path).num_classes == 5
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "damaged")


@pytest.mark.parametrize("content", [b"<html>404 not found</html>\n", b"plain text\n" * 50, b"\0" * 64])
@pytest.mark.parametrize("name", ["checkpoint.pth", "model.safetensors"])
def test_a_file_of_another_kind(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, "damaged")


@pytest.mark.parametrize("name", ["checkpoint.pth", "model.safetensors"])
def test_a_git_lfs_pointer(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 5787132\n")
    refused(tmp_path / name, "Git LFS pointer", "git lfs pull")


def test_safetensors_under_the_name_of_a_pickle_are_read(tmp_path, model_folder):
    shutil.move(convert_checkpoint(OFFICIAL, tmp_path / "converted"), model_folder / "checkpoint.pth")
    assert load(model_folder).num_classes == 5


# --- Pickles -----------------------------------------------------------------------------------------

# What a pickle may call, as the classic attacks do; each would leave the file "executed".
CALLS = {
    "os.system": ("posix", "system", lambda trace: (f"touch {trace}",)),
    "eval": ("builtins", "eval", lambda trace: (f"open({trace!r}, 'w')",)),
    "exec": ("builtins", "exec", lambda trace: (f"open({trace!r}, 'w')",)),
    "open": ("io", "open", lambda trace: (trace, "w")),
    "subprocess": ("subprocess", "call", lambda trace: (["touch", trace],)),
    "mkdir": ("os", "mkdir", lambda trace: (trace,)),
    "runpy": ("runpy", "_run_code", lambda trace: (f"open({trace!r}, 'w')", {})),
    "torch.load": ("torch.serialization", "load", lambda trace: (trace,)),
    "torch.hub": ("torch.hub", "load", lambda trace: (trace, "model")),
    "import": ("builtins", "__import__", lambda trace: ("antigravity",)),
    "getattr": ("builtins", "getattr", lambda trace: (trace, "upper")),
    "own class": ("lightning_expedite.models.segmenter.model", "Segmenter", lambda trace: ()),
}


class Calls:
    """Something whose pickle calls a function."""

    def __init__(self, module, name, arguments):
        self.made = getattr(__import__(module, fromlist=[name]), name), arguments

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("call", CALLS)
def test_code_is_never_executed(stored, tmp_path, refuses_weights, call, new_format):
    module, name, arguments = CALLS[call]
    trace = tmp_path / "executed"
    trap = Calls(module, name, arguments(str(trace)))
    path = stored(changed("encoder.norm.bias", trap), _use_new_zipfile_serialization=new_format)
    refuses_weights(path, None, "holds objects other than tensors, which are never executed")
    assert not trace.exists()


def test_the_traps_would_work(tmp_path):
    trap = Calls("io", "open", (str(tmp_path / "executed"), "w"))
    pickle.loads(pickle.dumps(trap)).close()
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (Namespace(lr=0.1), "argparse.Namespace"),
        (np.float64(0.5), "numpy"),
        (OFFICIAL, "pathlib.PosixPath"),
        (stored_state, "stored_models.stored_state"),
    ],
)
def test_objects_of_training_scripts_are_named_with_what_to_do(model_folder, extra, named):
    """Case 24, without torch's advice to load them all the same."""
    torch.save({"model": stored_state(), "extra": extra}, model_folder / "checkpoint.pth")
    message = refused(model_folder / "checkpoint.pth", named, "torch.save({'state_dict': model.state_dict()}")
    assert "weights_only" not in message
    assert "\x1b" not in message


def raw_archive(path, pickled):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b".",
        b"garbage",
        b"N.",
        b"]" * 50_000 + b"a" * 49_999 + b".",
        b"(" * 100_000,
        b"\x80\x05.",
        b"\x80\xff}.",
        b"cposix\nsystem\n(S'true'\ntR.",
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x02X\xff\xff\xff\x7f",
        b"\x80\x02r\xff\xff\xff\x7f.",
        b"\x80\x02h\x00.",
        pickle.dumps({"model": "a" * 1000}),
        pickle.dumps({"model": {"encoder.norm.weight": b"bytes"}}, protocol=2),
        pickle.dumps({"model": {1: 2}}, protocol=2),
    ],
    ids=lambda content: f"{zlib.crc32(content):08x}",
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_that_makes_no_sense(model_folder, refuses_weights, pickled):
    raw_archive(model_folder / "checkpoint.pth", pickled)
    refuses_weights(model_folder / "checkpoint.pth")


@pytest.mark.parametrize("content", [{}, {"model": {}}, [1, 2], {"model": {"a": 1}}, 3])
def test_a_pytorch_file_without_tensors(tmp_path, content):
    torch.save(content, tmp_path / "checkpoint.pth")
    refused(tmp_path / "checkpoint.pth", "holds no tensors")


@pytest.mark.parametrize("member", ["archive/data.pkl", "archive/data/0"])
def test_an_archive_that_would_flood_the_memory(model_folder, refuses_weights, member):
    path = model_folder / "checkpoint.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(member, "w") as stream:
        for _ in range(64):
            stream.write(bytes(1 << 20))
    refuses_weights(path, None, f"claim to hold {64 << 20:,}")


@pytest.mark.parametrize("field", [(0, 4), (6, 2), (8, 2), (14, 4), (18, 4), (26, 2), (28, 2)], ids=str)
def test_an_archive_with_a_damaged_header(model_folder, refuses_weights, field):
    path = model_folder / "checkpoint.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/a.txt", "b" * 1000)
    content = bytearray(path.read_bytes())
    start, length = field
    content[start : start + length] = b"\xff" * length
    path.write_bytes(content)
    refuses_weights(path)


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), part=st.sampled_from(["zip", "all", "header"]))
@examples(60)
def test_a_flipped_bit_is_noticed_or_harmless(model_folder, tensors_file, at, bit, part):
    content = bytearray((OFFICIAL / "checkpoint.pth").read_bytes() if part == "zip" else tensors_file)
    place = int(at * (8500 if part == "header" else len(content)))
    content[place] ^= 1 << bit
    path = model_folder / ("checkpoint.pth" if part == "zip" else "model.safetensors")
    path.write_bytes(content)
    try:
        model = load(path)
    except CheckpointError as error:
        message = str(error)
    else:  # a flip between the members of the archive, in a date, or in a name of the header's metadata
        assert part != "all" or place < 8500
        assert all(model.state_dict()[key].equal(value) for key, value in STATE.items())
        message = str(path)
    assert str(path) in message
    path.unlink()


# --- Safetensors -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tensors_file(tmp_path_factory):
    return convert_checkpoint(OFFICIAL, tmp_path_factory.mktemp("tensors")).read_bytes()


@pytest.fixture
def safe(model_folder):
    """A function that writes `model.safetensors` into the model's folder."""

    def write(content):
        (model_folder / "model.safetensors").write_bytes(content)
        return model_folder / "model.safetensors"

    return write


def entry(**changes):
    """A change of one tensor's entry in the header."""
    return lambda header: {**header, "encoder.norm.bias": {**header["encoder.norm.bias"], **changes}}


HEADERS = {
    "another checksum": lambda header: {**header, "__metadata__": {"crc32": "00000000"}},
    "unknown type": entry(dtype="F99"),
    "integers": entry(dtype="I32"),
    "complex": entry(dtype="C64", shape=[32]),
    "type of half the size": entry(dtype="F16"),
    "shape too large": entry(shape=[65]),
    "shape without end": entry(shape=[1 << 62, 1 << 62]),
    "negative shape": entry(shape=[-64]),
    "shape of text": entry(shape=["64"]),
    "no shape": entry(shape=None),
    "offsets beyond the file": entry(data_offsets=[0, 1 << 40]),
    "offsets reversed": entry(data_offsets=[256, 0]),
    "offsets overlapping": entry(data_offsets=[0, 256]),
    "metadata of numbers": lambda header: {**header, "__metadata__": {"a": 1}},
    "a list": lambda header: [1, 2, 3],
    "nothing": lambda header: {},
    "no tensor": lambda header: {"__metadata__": {}},
    "text": lambda header: b"garbage",
    "not UTF-8": lambda header: b'{"\xff": 1}',
    "deep": lambda header: b'{"a":' * 5000,
}


@pytest.mark.parametrize("damage", HEADERS)
def test_a_safetensors_header_that_lies(tensors_file, safe, refuses_weights, damage):
    (length,) = struct.unpack("<Q", tensors_file[:8])
    header = HEADERS[damage](json.loads(tensors_file[8 : 8 + length]))
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    refuses_weights(safe(struct.pack("<Q", len(text)) + text + tensors_file[8 + length :]))


@pytest.mark.parametrize("length", [0, 1, 7, 1 << 31, 1 << 63, (1 << 64) - 1])
def test_a_safetensors_header_of_another_length(tensors_file, safe, refuses_weights, length):
    refuses_weights(safe(struct.pack("<Q", length) + tensors_file[8:]))


@pytest.mark.parametrize("more", [b"\0", b"\0" * 1000])
def test_bytes_after_the_end_of_safetensors(tensors_file, safe, refuses_weights, more):
    refuses_weights(safe(tensors_file + more))


# --- Tensors -----------------------------------------------------------------------------------------


def test_a_model_of_another_kind(tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": {"backbone.conv1.weight": torch.zeros(2), "fc.weight": torch.zeros(3)}}, path)
    refused(path, "backbone.conv1.weight", "match no known Segmenter layout", "mmsegmentation zoo, mask head")


def test_every_missing_tensor_is_named(stored):
    assert len(STATE) == 87
    for key in STATE:
        # Without a class token there is one patch more; without the embedding the layout is unknown.
        path = stored({other: value for other, value in STATE.items() if other != key})
        assert key in refused(path) or key in ("encoder.cls_token", "encoder.patch_embed.proj.weight")
    refused(
        stored({key: value for key, value in STATE.items() if ".blocks." not in key}), "encoder.blocks.0", "missing"
    )


@pytest.mark.parametrize(
    "key",
    [
        "encoder.more",
        "head.weight",
        "encoder.blocks.x.y",
        "encoder.blocks.4.norm1.weight",
        "encoder.blocks.6.norm1.weight",
        "encoder.blocks.04.norm1.weight",
        "encoder.blocks.-1.norm1.weight",
        "encoder.blocks.99999999999999999999.norm1.weight",
        "encoder.blocks.\u0661.norm1.weight",
        "encoder.Norm.weight",
        "encoder.norm.weight\n",
        "decoder.blocks.2.norm1.weight",
        "decoder.head.weight",
        "module.encoder.norm.weight",
        "backbone.cls_token",
        "encoder.reg_token",
        "",
        "\0",
        "\x1b[31mred",
        "a" * 10_000,
    ],
)
def test_a_key_that_does_not_belong(stored, refuses_weights, key):
    path = stored(changed(key, torch.zeros(64)))
    refuses_weights(path, path.parent)  # a key that changes a size may be named as a contradiction to variant.yml


@pytest.mark.parametrize("key", SOME_KEYS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_one_weight_that_is_not_a_number(stored, refuses_weights, key, dtype, wrong):
    value = STATE[key].to(dtype, copy=True)
    value.view(-1)[-1] = wrong
    count = f"has 1 of {value.numel():,} weights that are NaN or infinite"
    refuses_weights(stored(changed(key, value)), None, key, count)


def test_a_weight_beyond_float32(stored, refuses_weights):
    value = STATE["encoder.norm.bias"].double()
    value[0] = 1e300
    refuses_weights(stored(changed("encoder.norm.bias", value)), None, "encoder.norm.bias", "NaN or infinite")


def test_finite_weights_whose_sum_is_not_are_fine(stored):
    value = torch.full((64,), 3e38)
    assert load(stored(changed("encoder.norm.bias", value))).encoder.norm.bias.equal(value)


UNSOUND = {
    "int64": lambda value: value.long(),
    "int8": lambda value: value.to(torch.int8),
    "bool": lambda value: value > 0,
    "complex": lambda value: value.to(torch.complex64),
    "sparse": lambda value: value.to_sparse(),
    "meta": lambda value: value.to("meta"),
    "repeated": lambda value: value.flatten()[:1].clone().expand(value.numel()).view(value.shape),
    "none": lambda value: None,
    "number": lambda value: 1.0,
    "list": lambda value: value.tolist(),
    "empty": lambda value: value[:0],
    "scalar": lambda value: value.flatten()[0].clone(),
    "one more dimension": lambda value: value[None],
    "one row more": lambda value: torch.cat([value, value[:1]]),
    "one column fewer": lambda value: value[..., :-1].contiguous(),
}


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize("key", SOME_KEYS)
@pytest.mark.parametrize("damage", UNSOUND)
def test_a_value_that_is_no_tensor_of_this_place(stored, refuses_weights, key, damage):
    path = stored(changed(key, UNSOUND[damage](STATE[key])))
    refuses_weights(path, path.parent)


@pytest.mark.parametrize("damage", ["sparse", "scalar", "int8", "none"])
def test_a_damaged_matrix_of_the_zoo_layout(tmp_path, damage):
    state = torch.load(DATA / "parity" / "mmseg_linear" / "checkpoint.pth", weights_only=True)["state_dict"]
    state["decode_head.conv_seg.weight"] = UNSOUND[damage](state["decode_head.conv_seg.weight"])
    torch.save({"state_dict": state}, tmp_path / "zoo.pth")
    refused(tmp_path / "zoo.pth")


@given(data=st.data())
@few_examples
def test_any_other_shape_is_refused(stored, data):
    key = data.draw(st.sampled_from(list(STATE)))
    shape = data.draw(st.lists(st.sampled_from([0, 1, 2, 5, 16, 64, 65, 192]), max_size=4).map(tuple))
    if shape != tuple(STATE[key].shape):
        path = stored(changed(key, torch.zeros(shape)))
        with pytest.raises(CheckpointError) as raised:
            load(path)
        assert str(path.parent) in str(raised.value)


# --- variant.yml -------------------------------------------------------------------------------------

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
)
TEXTS = {
    "aliases without end": BOMB,
    "an alias to itself": "net_kwargs: &a {decoder: *a}",
    "a key twice": "net_kwargs: {n_heads: 1}\nnet_kwargs: {n_heads: 2}",
    "a key twice below": "net_kwargs: {n_heads: 1, n_heads: 2}",
    "an impossible date": "net_kwargs: {n_heads: 2001-99-99}",
    "levels without end": "[" * 5000,
    "balanced levels": "a: " + "[" * 400 + "]" * 400,
    "code": "net_kwargs: !!python/object/apply:os.system ['true']",
    "an unknown tag": "net_kwargs: !unknown {n_heads: 1}",
    "unfinished": "net_kwargs: [1",
    "words": "just words",
    "a list": "- net_kwargs",
    "a number": "3",
    "too long": "# " + "a" * (2 << 20),
    "two documents": "a: 1\n---\nb: 2",
    "tabs": "net_kwargs:\n\tn_heads: 1",
    "unhashable key": "? [a, {b: c}]\n: 1\n? {a: b}\n: 2",
    "bad binary": "net_kwargs: !!binary a",
    "a merge of nothing": "net_kwargs:\n  <<: 3",
    "not UTF-8": b"\xff\xfe",
    "not UTF-8 either": b"\x80abc",
    "a zero byte": b"a: \x00",
    "a terminal's command": b"a: \x1b[31m",
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_variant_that_cannot_be_read(model_folder, refuses_weights, text):
    content = TEXTS[text]
    (model_folder / "variant.yml").write_bytes(content if isinstance(content, bytes) else content.encode())
    refuses_weights(model_folder, model_folder / "variant.yml")


WRONG_SIZES = [0, -1, 1.5, True, "12", [1], {"a": 1}, 10**30, float("nan"), float("inf")]
WRONG = [
    *[("net_kwargs", "n_heads", value) for value in (*WRONG_SIZES, 3)],
    *[("inference_kwargs", key, value) for key in ("window_size", "im_size", "im_size_max") for value in WRONG_SIZES],
    *[("inference_kwargs", "window_stride", value) for value in (*WRONG_SIZES, -4)],
    *[("net_kwargs", "image_size", value) for value in (0, -128, [128], [128] * 3, [128, 0], [128, "a"], [64, 128])],
    *[("net_kwargs", "image_size", value) for value in ("128", 10**9, {}, [256, 256], "large")],
    ("net_kwargs", "d_model", 128),
    ("net_kwargs", "n_layers", 12),
    ("net_kwargs", "n_cls", 150),
    ("net_kwargs", "patch_size", 8),
    ("net_kwargs", "distilled", True),
    ("net_kwargs", "decoder", {"name": "mask_transformer", "n_heads": 3}),
    ("net_kwargs", "decoder", {"name": "mask_transformer", "n_layers": 3}),
    ("net_kwargs", "decoder", {"name": "linear"}),
    ("dataset_kwargs", "normalization", "imagenet"),
    (None, "net_kwargs", ["vit"]),
    (None, "inference_kwargs", 640),
    (None, "convention", "detectron"),
    (None, "convention", ["mmseg"]),
]


@pytest.mark.parametrize(("section", "key", "value"), WRONG, ids=str)
def test_a_variant_that_contradicts_the_tensors_or_itself(variant, model_folder, section, key, value):
    path = variant(lambda content: (content if section is None else content[section]).update({key: value}))
    refused(
        model_folder,
        str(path),
        "heads"
        if "heads" in str((key, value))
        else "name"
        if value == {"name": "linear"}
        else "n_layers"
        if key == "decoder"
        else key,
    )


def test_an_unknown_convention():
    with pytest.raises(ExpediteError, match="convention 'seed' is unknown; it must be one of official, mmseg"):
        load(OFFICIAL, convention="seed")


# --- config.json -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return load(OFFICIAL).save_pretrained(tmp_path_factory.mktemp("pretrained"))


def nested(part, **changes):
    return lambda content: {**content, part: {**content[part], **changes}}


CONFIGS = {
    **{
        f"{name} {value!r}": nested("architecture", **{name: value})
        for name in ("depth", "width", "num_classes", "decoder_depth")
        for value in (0, -4, 7, "4", None, True, 10**12)
    },
    "patch size 8": nested("architecture", patch_size=8),
    "heads that divide nothing": nested("architecture", heads=7),
    "another decoder": nested("architecture", decoder="linear"),
    "an unknown decoder": nested("architecture", decoder="conv"),
    "another image size": nested("architecture", image_size=[64, 64]),
    "no image size": nested("architecture", image_size=None),
    "a ratio below 0": nested("architecture", mlp_ratio=-1),
    "a ratio that is NaN": nested("architecture", mlp_ratio=float("nan")),
    "a ratio of the wrong size": nested("architecture", mlp_ratio=2.0),
    "distilled": nested("architecture", distilled=True),
    "distilled as text": nested("architecture", distilled="no"),
    "an unknown size": nested("architecture", colour="red"),
    "a window of 0": nested("protocol", window=0),
    "a window of text": nested("protocol", window="large"),
    "a stride below 0": nested("protocol", stride=-1),
    "a stride with a fraction": nested("protocol", stride=0.5),
    "unknown statistics": nested("protocol", normalization="imagenet"),
    "no protocol": lambda content: {**content, "protocol": 3},
    "an unknown convention": lambda content: {**content, "convention": "seed"},
    "a newer format": lambda content: {**content, "format": 99},
    "another library": lambda content: {**content, "library_name": "timm"},
    "too few names": lambda content: {**content, "classes": ["a"]},
    "names of numbers": lambda content: {**content, "classes": [1, 2, 3, 4, 5]},
    "names of text": lambda content: {**content, "classes": "abcde"},
    "a reducer of text": lambda content: {**content, "reducer": "ToMe"},
}
BROKEN = ["", "{", "[1]", "null", '{"format": 1, "format": 2}', "[" * 100_000, "\ufeff{}", '{"a": 1' + "0" * 5000 + "}"]


@pytest.mark.parametrize("change", [*CONFIGS, *BROKEN], ids=lambda change: change[:30])
def test_a_config_that_contradicts_the_tensors_or_itself(tmp_path, pretrained, refuses_weights, change):
    folder = shutil.copytree(pretrained, tmp_path / "stored")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(CONFIGS[change](content)) if change in CONFIGS else change)
    refuses_weights(folder, folder / ("model.safetensors" if change == "a ratio of the wrong size" else "config.json"))


def test_the_variants_of_this_list_are_read_where_nothing_is_wrong(variant, model_folder):
    assert yaml.safe_load(variant(lambda content: None).read_text())["net_kwargs"]["n_cls"] == 5
    assert load(model_folder).num_classes == 5
