"""Damaged and hostile checkpoints: one line names the file, and nothing is executed."""

import io
import json
import pickle
import shutil
import struct
import zipfile
from argparse import Namespace

import numpy as np
import pytest
import torch
import yaml
from fuzzing import EMPTY, PLACES, UNREADABLE_YAML, examples
from hypothesis import given
from hypothesis import strategies as st
from reference import DATA
from stored_models import OFFICIAL, SOME_KEYS, STATE, changed, refused, stored_state

from lightning_expedite import load
from lightning_expedite.errors import CheckpointError, ExpediteError
from lightning_expedite.models import convert_checkpoint

pytestmark = pytest.mark.promise("bad-checkpoints")


@pytest.fixture
def stored(model_folder):
    """A function that stores another state in the folder's checkpoint and returns its path."""

    def store(state, **options):
        torch.save({"model": state}, model_folder / "checkpoint.pth", **options)
        return model_folder / "checkpoint.pth"

    return store


# --- Paths -------------------------------------------------------------------------------------------


NAMES = ["", " ", "no\nsuch", "no\0such", "a" * 5000, "../../nowhere", "hf://", "hf://a", "hf://a/b/c/d", "\udcff"]


@pytest.mark.parametrize("name", [*NAMES, "~no/x"])
def test_a_name_that_is_nothing(refuses_weights, name):
    refuses_weights(name, "error: ")


def test_nothing_at_that_path(tmp_path):
    refused(tmp_path / "nowhere.pth", "neither a path nor a known name; known names are demo, ade20k")
    refused(tmp_path, "is a folder without model.safetensors or checkpoint.pth")
    (tmp_path / "model.safetensors.index.json").touch()
    for path in (tmp_path, tmp_path / "model.safetensors.index.json"):
        refused(path, "sharded weights; save them as one model.safetensors")
    with pytest.raises(ExpediteError, match="convention 'seed' is unknown; it must be one of official, mmseg"):
        load(OFFICIAL, convention="seed")


@pytest.mark.parametrize("place", PLACES | EMPTY)
@pytest.mark.parametrize("name", ["checkpoint.pth", "model.safetensors", "variant.yml"])
def test_something_else_in_the_place_of_a_file(model_folder, refuses_weights, name, place):
    path = model_folder / name
    path.unlink(missing_ok=True)
    (PLACES | EMPTY)[place](path)
    refuses_weights(model_folder, path)


# --- Bytes of the files ------------------------------------------------------------------------------


def archive(members, compression=zipfile.ZIP_STORED):
    """Return a zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return stream.getvalue()


def pickled(content):
    return archive({"archive/data.pkl": content, "archive/version": "3\n"})


def with_bytes(content, start, length):
    """Overwrite bytes with ones."""
    return content[:start] + b"\xff" * length + content[start + length :]


def with_header(change):
    """Return a function that changes the header of safetensors, to another mapping or to bytes."""

    def edit(content):
        (length,) = struct.unpack("<Q", content[:8])
        header = change(json.loads(content[8 : 8 + length]))
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + length :]

    return edit


def with_entry(**changes):
    """Return a function that changes one tensor's entry in the header."""
    return with_header(lambda header: {**header, "encoder.norm.bias": {**header["encoder.norm.bias"], **changes}})


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 5787132\n"
PICKLES = [
    *(b"", b".", b"garbage", b"N.", b"]" * 50_000 + b"a" * 49_999 + b".", b"(" * 100_000, b"\x80\x05.", b"\x80\xff}."),
    *(b"cposix\nsystem\n(S'true'\ntR.", b"cos\nsystem\n(S'true'\ntR.", b"\x80\x02X\xff\xff\xff\x7f"),
    *(b"\x80\x02r\xff\xff\xff\x7f.", b"\x80\x02h\x00.", pickle.dumps({"model": "a" * 1000})),
    pickle.dumps({"model": {"encoder.norm.weight": b"bytes"}}, protocol=2),
    pickle.dumps({"model": {1: 2}}, protocol=2),
]
FLOOD = "claim to hold 67,108,864"
HEADERS = {
    "another checksum": with_header(lambda header: {**header, "__metadata__": {"crc32": "00000000"}}),
    "unknown type": with_entry(dtype="F99"),
    "integers": with_entry(dtype="I32"),
    "complex": with_entry(dtype="C64", shape=[32]),
    "type of half the size": with_entry(dtype="F16"),
    "shape too large": with_entry(shape=[65]),
    "shape without end": with_entry(shape=[1 << 62, 1 << 62]),
    "negative shape": with_entry(shape=[-64]),
    "shape of text": with_entry(shape=["64"]),
    "no shape": with_entry(shape=None),
    "offsets beyond the file": with_entry(data_offsets=[0, 1 << 40]),
    "offsets reversed": with_entry(data_offsets=[256, 0]),
    "offsets overlapping": with_entry(data_offsets=[0, 256]),
    "metadata of numbers": with_header(lambda header: {**header, "__metadata__": {"a": 1}}),
    "a list": with_header(lambda header: [1, 2, 3]),
    "nothing": with_header(lambda header: {}),
    "no tensor": with_header(lambda header: {"__metadata__": {}}),
    "text": with_header(lambda header: b"garbage"),
    "not UTF-8": with_header(lambda header: b'{"\xff": 1}'),
    "deep": with_header(lambda header: b'{"a":' * 5000),
}
VARIANTS = {
    "words": "just words",
    "a list": "- net_kwargs",
    "a number": "3",
    "not UTF-8": b"\xff\xfe",
    "not UTF-8 either": b"\x80abc",
    **UNREADABLE_YAML,
}
# For each kind of file: what is wrong, the change of the undamaged content, and words of the message.
DAMAGE = [
    *[
        (kind, f"cut at {share}", lambda content, share=share: content[: int(len(content) * share)], "damaged")
        for kind in ("zip", "legacy", "safetensors")
        for share in (0.0, 0.01, 0.3, 0.9, 0.9999)
    ],
    *[
        (kind, f"other {text[:9]}", lambda _, text=text: text, words)
        for kind in ("zip", "safetensors")
        for text, words in (
            *((b"<html>404 not found</html>\n", "damaged"), (b"plain text\n" * 50, "damaged"), (b"\0" * 64, "damaged")),
            (LFS, "Git LFS pointer, not the weights; fetch them with `git lfs pull`"),
        )
    ],
    *[("zip", f"pickle {number}", lambda _, text=text: pickled(text), "") for number, text in enumerate(PICKLES)],
    *[
        ("zip", f"flood {name}", lambda _, name=name: archive({name: bytes(64 << 20)}, zipfile.ZIP_DEFLATED), FLOOD)
        for name in ("archive/data.pkl", "archive/data/0")
    ],
    *[
        ("zip", f"header {at}", lambda _, at=at: with_bytes(archive({"archive/a.txt": "b" * 1000}), *at), "")
        for at in ((0, 4), (6, 2), (8, 2), (14, 4), (18, 4), (26, 2), (28, 2))
    ],
    *[("safetensors", name, change, "") for name, change in HEADERS.items()],
    *[
        ("safetensors", f"length {length}", lambda content, length=length: struct.pack("<Q", length) + content[8:], "")
        for length in (0, 1, 7, 1 << 31, 1 << 63, (1 << 64) - 1)
    ],
    *[
        ("safetensors", f"{more} bytes more", lambda content, more=more: content + bytes(more), "")
        for more in (1, 1000)
    ],
    *[
        ("variant", name, lambda _, text=text: text if isinstance(text, bytes) else text.encode(), "")
        for name, text in VARIANTS.items()
    ],
]
FILES = {"zip": "checkpoint.pth", "legacy": "checkpoint.pth", "safetensors": "model.safetensors"}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Undamaged content of each kind of weights file."""
    folder = tmp_path_factory.mktemp("originals")
    torch.save({"model": stored_state()}, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    return {
        "zip": (OFFICIAL / "checkpoint.pth").read_bytes(),
        "legacy": (folder / "legacy.pth").read_bytes(),
        "safetensors": convert_checkpoint(OFFICIAL, folder).read_bytes(),
    }


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    ("kind", "name", "change", "words"), DAMAGE, ids=[f"{kind}-{name}" for kind, name, *_ in DAMAGE]
)
def test_a_damaged_file_is_refused(model_folder, originals, refuses_weights, kind, name, change, words):
    path = model_folder / FILES.get(kind, "variant.yml")
    path.write_bytes(change(originals.get(kind, b"")))
    refuses_weights(model_folder, path, words)


@pytest.mark.parametrize("kind", FILES)
def test_an_undamaged_file_is_converted_whatever_its_name(run, tmp_path, model_folder, originals, kind):
    """The other tests would pass as well if nothing could be converted."""
    (model_folder / "checkpoint.pth").write_bytes(originals[kind])
    status, _, err = run("convert", "--checkpoint", model_folder, "--output", tmp_path / "out")
    assert (status, err) == (0, "")
    assert load(tmp_path / "out").num_classes == 5


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), part=st.sampled_from(["zip", "all", "header"]))
@examples(60)
def test_a_flipped_bit_is_noticed_or_harmless(model_folder, originals, at, bit, part):
    content = bytearray(originals["zip" if part == "zip" else "safetensors"])
    content[int(at * (8500 if part == "header" else len(content)))] ^= 1 << bit
    path = model_folder / ("checkpoint.pth" if part == "zip" else "model.safetensors")
    path.write_bytes(content)
    try:
        model = load(path)
    except CheckpointError as error:
        message = str(error)
    else:  # a flip between the members of the archive, in a date, or in a name of the header's metadata
        assert part != "all" or int(at * len(content)) < 8500
        assert all(model.state_dict()[key].equal(value) for key, value in STATE.items())
        message = str(path)
    assert str(path) in message
    path.unlink()


# --- Objects in pickles ------------------------------------------------------------------------------

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


@pytest.mark.parametrize("content", [{}, {"model": {}}, [1, 2], {"model": {"a": 1}}, 3])
def test_a_pytorch_file_without_tensors(tmp_path, content):
    torch.save(content, tmp_path / "checkpoint.pth")
    refused(tmp_path / "checkpoint.pth", "holds no tensors")


# --- Tensors -----------------------------------------------------------------------------------------

STRAY_KEYS = [
    *("encoder.more", "head.weight", "encoder.blocks.x.y", "encoder.blocks.4.norm1.weight"),
    *("encoder.blocks.6.norm1.weight", "encoder.blocks.04.norm1.weight", "encoder.blocks.-1.norm1.weight"),
    *("encoder.blocks.99999999999999999999.norm1.weight", "encoder.blocks.\u0661.norm1.weight", "encoder.Norm.weight"),
    *("encoder.norm.weight\n", "decoder.blocks.2.norm1.weight", "decoder.head.weight", "module.encoder.norm.weight"),
    *("backbone.cls_token", "encoder.reg_token", "", "\0", "\x1b[31mred", "a" * 10_000),
]
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
NOT_FINITE = [(dtype, wrong) for dtype in (torch.bfloat16, torch.float32) for wrong in ("nan", "inf", "-inf")]
NOT_FINITE += [(torch.float64, "1e300")]


def with_number(value, dtype, number):
    value = value.to(dtype, copy=True)
    value.view(-1)[-1] = float(number)
    return value


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize("key", SOME_KEYS)
def test_a_value_that_does_not_belong_in_its_place_is_refused(stored, refuses_weights, key):
    value = STATE[key]
    for damage in UNSOUND.values():
        path = stored(changed(key, damage(value)))
        refuses_weights(path, path.parent)
    for dtype, number in NOT_FINITE:
        path = stored(changed(key, with_number(value, dtype, number)))
        refuses_weights(path, None, key, f"has 1 of {value.numel():,} weights that are NaN or infinite")


@pytest.mark.parametrize("key", STRAY_KEYS, ids=lambda key: ascii(key[:40]))
def test_a_key_that_does_not_belong(stored, refuses_weights, key):
    path = stored(changed(key, torch.zeros(64)))
    refuses_weights(path, path.parent)  # a key that changes a size may be named as a contradiction to variant.yml


def test_every_missing_tensor_is_named(stored):
    assert len(STATE) == 87
    for key in STATE:
        # Without a class token there is one patch more; without the embedding the layout is unknown.
        path = stored({other: value for other, value in STATE.items() if other != key})
        assert key in refused(path) or key in ("encoder.cls_token", "encoder.patch_embed.proj.weight")
    blocks = {key: value for key, value in STATE.items() if ".blocks." not in key}
    refused(stored(blocks), "encoder.blocks.0", "missing")
    other = {"backbone.conv1.weight": torch.zeros(2), "fc.weight": torch.zeros(3)}
    refused(stored(other), "backbone.conv1.weight", "match no known Segmenter layout", "mmsegmentation zoo, mask head")


def test_finite_weights_whose_sum_is_not_are_fine(stored):
    value = torch.full((64,), 3e38)
    assert load(stored(changed("encoder.norm.bias", value))).encoder.norm.bias.equal(value)


@pytest.mark.parametrize("damage", ["sparse", "scalar", "int8", "none"])
def test_a_damaged_matrix_of_the_zoo_layout(tmp_path, damage):
    state = torch.load(DATA / "parity" / "mmseg_linear" / "checkpoint.pth", weights_only=True)["state_dict"]
    state["decode_head.conv_seg.weight"] = UNSOUND[damage](state["decode_head.conv_seg.weight"])
    torch.save({"state_dict": state}, tmp_path / "zoo.pth")
    refused(tmp_path / "zoo.pth")


@given(data=st.data())
@examples(25)
def test_any_other_shape_is_refused(stored, data):
    key = data.draw(st.sampled_from(list(STATE)))
    shape = data.draw(st.lists(st.sampled_from([0, 1, 2, 5, 16, 64, 65, 192]), max_size=4).map(tuple))
    if shape != tuple(STATE[key].shape):
        path = stored(changed(key, torch.zeros(shape)))
        with pytest.raises(CheckpointError) as raised:
            load(path)
        assert str(path.parent) in str(raised.value)


# --- Settings ----------------------------------------------------------------------------------------

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
    ("net_kwargs", "decoder", ["linear"]),
    ("net_kwargs", "decoder", {"name": "mask_transformer", "n_heads": 3}),
    ("net_kwargs", "decoder", {"name": "mask_transformer", "n_layers": 3}),
    ("net_kwargs", "decoder", {"name": "linear"}),
    ("dataset_kwargs", "normalization", "imagenet"),
    (None, "net_kwargs", ["vit"]),
    (None, "dataset_kwargs", None),
    (None, "inference_kwargs", 640),
    (None, "convention", "detectron"),
    (None, "convention", ["mmseg"]),
]


@pytest.mark.parametrize(("section", "key", "value"), WRONG, ids=str)
def test_a_variant_that_contradicts_the_tensors_or_itself(variant, model_folder, section, key, value):
    path = variant(lambda content: None)
    assert yaml.safe_load(path.read_text())["net_kwargs"]["n_cls"] == 5
    variant(lambda content: (content if section is None else content[section]).update({key: value}))
    named = "heads" if "heads" in str((key, value)) else list(value)[-1] if "name" in str(value) else key
    refused(model_folder, str(path), named)


def nested(part, **changes):
    return lambda content: {**content, part: {**content[part], **changes}}


CONFIGS = {  # what is wrong: the change, and words of the message
    **{
        f"{name} {value!r}": (nested("architecture", **{name: value}), name)
        for name in ("depth", "width", "num_classes", "decoder_depth")
        for value in (0, -4, 7, "4", None, True, 10**12)
    },
    "depth": (nested("architecture", depth=3), "depth is 3, but the tensors in model.safetensors say 4"),
    "patch size 8": (nested("architecture", patch_size=8), "patch_size is 8"),
    "heads that divide nothing": (nested("architecture", heads=7), "heads is 7; it must divide the width, 64"),
    "another decoder": (nested("architecture", decoder="linear"), "decoder is 'linear'"),
    "an unknown decoder": (nested("architecture", decoder="conv"), "decoder is 'conv'; it must be 'mask_tr"),
    "another image size": (nested("architecture", image_size=[64, 64]), "image_size is [64, 64], but the position"),
    "no image size": (nested("architecture", image_size=None), "image_size is None"),
    "a ratio below 0": (nested("architecture", mlp_ratio=-1), "mlp_ratio is -1"),
    "a ratio that is NaN": (nested("architecture", mlp_ratio=float("nan")), "mlp_ratio is nan"),
    "a ratio of the wrong size": (nested("architecture", mlp_ratio=2.0), "encoder.blocks.0.mlp.fc1.weight"),
    "distilled": (nested("architecture", distilled=True), "distilled is True"),
    "distilled as text": (nested("architecture", distilled="no"), "distilled is 'no'; it must be a valid boolean"),
    "an unknown size": (nested("architecture", colour="red"), "colour is 'red'; Unexpected keyword argument"),
    "a window of 0": (nested("protocol", window=0), "window is 0; it must be greater than or equal to 1"),
    "a window of text": (nested("protocol", window="large"), "window is 'large'"),
    "a stride below 0": (nested("protocol", stride=-1), "stride is -1"),
    "a stride with a fraction": (nested("protocol", stride=0.5), "stride is 0.5"),
    "unknown statistics": (nested("protocol", normalization="imagenet"), "normalization is 'imagenet'"),
    "no protocol": (lambda content: {**content, "protocol": 3}, "protocol is 3"),
    "no architecture": (lambda content: {**content, "architecture": {}}, "architecture: image_size: Field required"),
    "an unknown convention": (lambda content: {**content, "convention": "seed"}, "it must be 'official' or 'mmseg'"),
    "a newer format": (lambda content: {**content, "format": 99}, "format is 99; it must be 1"),
    "another library": (lambda content: {**content, "library_name": "timm"}, "another library's"),
    "too few names": (lambda content: {**content, "classes": ["a"]}, "classes has 1 names, the model 5 classes"),
    "names of numbers": (lambda content: {**content, "classes": [1, 2, 3, 4, 5]}, "classes is 1"),
    "names of text": (lambda content: {**content, "classes": "abcde"}, "classes is 'abcde'"),
    "a reducer of text": (lambda content: {**content, "reducer": "ToMe"}, "reducer is 'ToMe'"),
    "a reducer of no class": (lambda content: {**content, "reducer": {}}, "reducer: class: Field required"),
}
BROKEN = ["", "{", "[1]", "null", '{"format": 1, "format": 2}', "[" * 100_000, "\ufeff{}", '{"a": 1' + "0" * 5000 + "}"]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return load(OFFICIAL).save_pretrained(tmp_path_factory.mktemp("pretrained"))


@pytest.mark.parametrize("change", [*CONFIGS, *BROKEN], ids=lambda change: change[:30])
def test_a_config_that_contradicts_the_tensors_or_itself(tmp_path, pretrained, refuses_weights, change):
    folder = shutil.copytree(pretrained, tmp_path / "stored")
    edit, words = CONFIGS.get(change, (lambda _: change, ""))
    content = edit(json.loads((folder / "config.json").read_text()))
    (folder / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))
    refuses_weights(folder, folder / ("model.safetensors" if "wrong size" in change else "config.json"), words)
