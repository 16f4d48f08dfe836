"""Checkpoints of every kind of damage, through the command line: one line that names the file, and nothing written."""

import json
import pickle
import struct
import zipfile
import zlib

import pytest
import safetensors.torch
import torch
import yaml
from fuzzing import EMPTY, PLACES, examples, one
from hypothesis import given
from hypothesis import strategies as st
from stored_models import OFFICIAL, stored_state

from lightning_expedite import load_segmenter
from lightning_expedite.errors import CheckpointError
from lightning_expedite.segmenter import convert_checkpoint

pytestmark = pytest.mark.promise("bad-checkpoints")
few_examples = examples(25)

STATE = {key: value for key, value in stored_state().items() if not key.startswith("encoder.head")}
SOME_KEYS = (
    "encoder.pos_embed",
    "encoder.patch_embed.proj.weight",
    "encoder.blocks.3.mlp.fc2.bias",
    "decoder.cls_emb",
    "decoder.mask_norm.weight",
)


@pytest.fixture
def refuses(fails, tmp_path):
    """Checks that a checkpoint is refused, in one line that names its file, and that nothing is written."""

    def check(checkpoint, named=None, *words):
        message = fails("convert", "--checkpoint", checkpoint, "--output", tmp_path / "out")
        for word in (str(named or checkpoint), *words):
            assert word in message
        assert len(message) < 2100
        assert not (tmp_path / "out").exists()
        return message

    return check


@pytest.fixture
def stored(model_folder):
    """A function that stores another state in the folder's checkpoint, and gives its path."""

    def store(state):
        torch.save({"model": state}, model_folder / "checkpoint.pth")
        return model_folder / "checkpoint.pth"

    return store


def changed(key, value):
    return {**STATE, key: value}


def test_every_tensor_is_missed(stored, refuses, bad_inputs):
    for key in STATE:
        refuses(stored({other: value for other, value in STATE.items() if other != key}))
        bad_inputs.add(key)
    assert len(bad_inputs) == len(STATE) == 87


@one
@pytest.mark.parametrize(
    "key",
    [
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
def test_a_key_that_does_not_belong(stored, refuses, key):
    path = stored(changed(key, torch.zeros(64)))
    refuses(path, path.parent)  # a key that makes for another size may be told as a contradiction to variant.yml


@one
@pytest.mark.parametrize("key", SOME_KEYS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_one_weight_that_is_no_number(stored, refuses, key, dtype, wrong):
    value = STATE[key].to(dtype, copy=True)
    value.view(-1)[-1] = wrong
    refuses(stored(changed(key, value)), None, key, f"has 1 of {value.numel():,} weights that are NaN or infinite")


@one
def test_a_weight_beyond_float32(stored, refuses):
    value = STATE["encoder.norm.bias"].double()
    value[0] = 1e300
    refuses(stored(changed("encoder.norm.bias", value)), None, "encoder.norm.bias", "NaN or infinite")


def test_finite_weights_whose_sum_is_not_are_fine(stored):
    value = torch.full((64,), 3e38)
    assert load_segmenter(stored(changed("encoder.norm.bias", value))).encoder.norm.bias.equal(value)


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


@one
@pytest.mark.parametrize("key", SOME_KEYS)
@pytest.mark.parametrize("damage", UNSOUND)
def test_a_value_that_is_no_tensor_of_this_place(stored, refuses, key, damage):
    path = stored(changed(key, UNSOUND[damage](STATE[key])))
    refuses(path, path.parent)  # a tensor that makes for another size may contradict variant.yml


@given(data=st.data())
@few_examples
def test_any_other_shape_is_refused(stored, refuses, bad_inputs, data):
    key = data.draw(st.sampled_from(list(STATE)))
    right = tuple(STATE[key].shape)
    shape = data.draw(st.lists(st.sampled_from([0, 1, 2, 5, 16, 64, 65, 192]), max_size=4).map(tuple))
    if shape != right:
        path = stored(changed(key, torch.zeros(shape)))
        refuses(path, path.parent)
        bad_inputs.add((key, shape))


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
    "own class": ("lightning_expedite.segmenter.model", "Segmenter", lambda trace: ()),
}


class Calls:
    """Something whose pickle calls a function."""

    def __init__(self, module, name, arguments):
        self.made = getattr(__import__(module, fromlist=[name]), name), arguments

    def __reduce__(self):
        return self.made


@one
@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("call", CALLS)
def test_code_is_never_executed(model_folder, tmp_path, refuses, call, new_format):
    module, name, arguments = CALLS[call]
    trace, path = tmp_path / "executed", model_folder / "checkpoint.pth"
    trap = Calls(module, name, arguments(str(trace)))
    torch.save({"model": changed("encoder.norm.bias", trap)}, path, _use_new_zipfile_serialization=new_format)
    refuses(path, None, "holds objects other than tensors, which are never executed")
    assert not trace.exists()


def raw_archive(path, pickled, **more):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        for name, content in more.items():
            archive.writestr(name, content)


@one
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
def test_a_pickle_that_makes_no_sense(model_folder, refuses, pickled):
    path = model_folder / "checkpoint.pth"
    raw_archive(path, pickled)
    refuses(path)


@one
@pytest.mark.parametrize("megabytes", [16, 256])
@pytest.mark.parametrize("member", ["archive/data.pkl", "archive/data/0"])
def test_an_archive_that_would_flood_the_memory(model_folder, refuses, megabytes, member):
    path = model_folder / "checkpoint.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(member, "w") as stream:
        for _ in range(megabytes):
            stream.write(bytes(1 << 20))
    refuses(path, None, f"claim to hold {megabytes << 20:,}")


def small_archive(path, **options):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/a.txt", "b" * 1000)
    return bytearray(path.read_bytes())


@one
@pytest.mark.parametrize("field", [(0, 4), (6, 2), (8, 2), (14, 4), (18, 4), (26, 2), (28, 2)], ids=str)
def test_an_archive_with_a_damaged_header(model_folder, refuses, field):
    path = model_folder / "checkpoint.pth"
    content = small_archive(path)
    start, length = field
    content[start : start + length] = b"\xff" * length
    path.write_bytes(content)
    refuses(path)


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@few_examples
def test_a_flipped_bit_is_noticed_or_harmless(model_folder, refuses, bad_inputs, at, bit):
    content = bytearray((OFFICIAL / "checkpoint.pth").read_bytes())
    place = int(at * len(content))
    content[place] ^= 1 << bit
    path = model_folder / "checkpoint.pth"
    path.write_bytes(content)
    bad_inputs.add((place, bit))
    try:
        model = load_segmenter(path)
    except CheckpointError:
        refuses(path)
    else:  # a flip between the members or in a date
        assert all(model.state_dict()[key].equal(value) for key, value in STATE.items())


@pytest.fixture(scope="module")
def tensors_file(tmp_path_factory):
    return convert_checkpoint(OFFICIAL, tmp_path_factory.mktemp("tensors")).read_bytes()


@pytest.fixture
def safe(tmp_path):
    """A function that writes `model.safetensors` into a folder of its own."""

    def write(content):
        folder = tmp_path / "safe"
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_bytes(content)
        return folder / "model.safetensors"

    return write


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@few_examples
def test_a_flipped_bit_of_safetensors_is_noticed(tensors_file, safe, refuses, bad_inputs, at, bit):
    content = bytearray(tensors_file)
    place = int(at * len(content))
    content[place] ^= 1 << bit
    bad_inputs.add((place, bit))
    refuses(safe(content))


@given(at=st.integers(0, 8500), bit=st.integers(0, 7))
@few_examples
def test_a_flipped_bit_of_a_safetensors_header_is_noticed_or_harmless(tensors_file, safe, refuses, bad_inputs, at, bit):
    content = bytearray(tensors_file)
    content[at] ^= 1 << bit
    bad_inputs.add((at, bit))
    path = safe(content)
    try:
        model = load_segmenter(path)
    except CheckpointError:
        refuses(path)
    else:
        assert all(model.state_dict()[key].equal(value) for key, value in STATE.items())


def header_of(content):
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


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


@one
@pytest.mark.parametrize("damage", HEADERS)
def test_a_safetensors_header_that_lies(tensors_file, safe, refuses, damage):
    header, data = header_of(tensors_file)
    refuses(safe(with_header(HEADERS[damage](header), data)))


@one
@pytest.mark.parametrize("length", [0, 1, 7, 1 << 31, 1 << 63, (1 << 64) - 1])
def test_a_safetensors_header_of_another_length(tensors_file, safe, refuses, length):
    refuses(safe(struct.pack("<Q", length) + tensors_file[8:]))


@one
@pytest.mark.parametrize("more", [b"\0", b"\0" * 1000])
def test_bytes_after_the_end_of_safetensors(tensors_file, safe, refuses, more):
    refuses(safe(tensors_file + more))


@one
@pytest.mark.parametrize("key", SOME_KEYS)
def test_safetensors_with_a_weight_that_is_no_number(model_folder, refuses, key):
    value = STATE[key].clone()
    value.view(-1)[0] = float("nan")
    path = model_folder / "model.safetensors"
    safetensors.torch.save_file(changed(key, value), path)
    refuses(path, None, key, "NaN or infinite")


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
    "a list": "- net_kwargs",
    "a number": "3",
    "too long": "# " + "a" * (2 << 20),
    "two documents": "a: 1\n---\nb: 2",
    "tabs": "net_kwargs:\n\tn_heads: 1",
    "unhashable key": "? [a, {b: c}]\n: 1\n? {a: b}\n: 2",
    "bad binary": "net_kwargs: !!binary a",
    "a merge of nothing": "net_kwargs:\n  <<: 3",
}


@one
@pytest.mark.parametrize("text", TEXTS)
def test_a_variant_that_cannot_be_read(model_folder, refuses, text):
    (model_folder / "variant.yml").write_text(TEXTS[text])
    refuses(model_folder, model_folder / "variant.yml")


@one
@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x80abc", b"a: \x00", b"a: \x1b[31m"], ids=repr)
def test_a_variant_of_strange_bytes(model_folder, refuses, content):
    (model_folder / "variant.yml").write_bytes(content)
    refuses(model_folder, model_folder / "variant.yml")


WRONG_SIZES = [0, -1, 1.5, True, "12", [1], {"a": 1}, 10**30, float("nan"), float("inf")]


@one
@pytest.mark.parametrize("key", ["n_heads", "window_size", "window_stride", "im_size", "im_size_max"])
@pytest.mark.parametrize("value", WRONG_SIZES, ids=repr)
def test_a_variant_with_a_size_that_is_none(variant, model_folder, refuses, key, value):
    place = "net_kwargs" if key == "n_heads" else "inference_kwargs"
    path = variant(lambda content: content[place].update({key: value}))
    refuses(model_folder, path, f"{key} is")


@one
@pytest.mark.parametrize("size", [0, -128, [128], [128, 128, 128], [128, 0], [128, "a"], [64, 128], "128", 10**9, {}])
def test_a_variant_with_an_image_size_that_is_none(variant, model_folder, refuses, size):
    path = variant(lambda content: content["net_kwargs"].update(image_size=size))
    refuses(model_folder, path, "image_size")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    load_segmenter(OFFICIAL).save_pretrained(folder)
    return {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}


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


@one
@pytest.mark.parametrize("change", CONFIGS)
def test_a_config_that_contradicts_the_tensors_or_itself(tmp_path, pretrained, refuses, change):
    folder = tmp_path / "stored"
    folder.mkdir()
    for name, content in pretrained.items():
        (folder / name).write_bytes(content)
    content = CONFIGS[change](json.loads(pretrained["config.json"]))
    (folder / "config.json").write_text(json.dumps(content))
    refuses(folder, folder / ("model.safetensors" if change == "a ratio of the wrong size" else "config.json"))


@one
@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", "null", '{"format": 1, "format": 2}', "[" * 100_000, "\ufeff{}", '{"a": 1' + "0" * 5000 + "}"],
)
def test_a_config_that_cannot_be_read(tmp_path, pretrained, refuses, text):
    folder = tmp_path / "stored"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(pretrained["model.safetensors"])
    (folder / "config.json").write_text(text)
    refuses(folder, folder / "config.json")


@one
@pytest.mark.parametrize("place", PLACES | EMPTY)
@pytest.mark.parametrize("name", ["checkpoint.pth", "model.safetensors", "variant.yml"])
def test_something_else_in_the_place_of_a_file(model_folder, refuses, name, place):
    path = model_folder / name
    path.unlink(missing_ok=True)
    (PLACES | EMPTY)[place](path)
    refuses(model_folder, path)


@one
@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "no\nsuch",
        "no\0such",
        "a" * 5000,
        "../../../nowhere",
        "hf://",
        "hf://a",
        "hf://a/b/c/d",
        "\udcff",
        "~nosuchuser/weights",
    ],
)
def test_a_name_that_is_nothing(refuses, name):
    refuses(name, "error: ")


def test_the_undamaged_checkpoint_is_converted(run, tmp_path, model_folder):
    """The other tests would pass as well if nothing could be converted."""
    variant = yaml.safe_load((model_folder / "variant.yml").read_text())
    status, _, err = run("convert", "--checkpoint", model_folder, "--output", tmp_path / "out")
    assert (status, err) == (0, "")
    assert load_segmenter(tmp_path / "out").num_classes == variant["net_kwargs"]["n_cls"]
