"""Damaged and hostile checkpoint files, through the command line: one line names the file, nothing is executed."""

import json
import pickle
import struct
import zipfile
import zlib

import pytest
import safetensors.torch
import torch
from fuzzing import EMPTY, PLACES, examples, one
from hypothesis import given
from hypothesis import strategies as st
from stored_models import OFFICIAL, SOME_KEYS, STATE, changed

from lightning_expedite import load_segmenter
from lightning_expedite.errors import CheckpointError
from lightning_expedite.models.segmenter import convert_checkpoint

pytestmark = pytest.mark.promise("bad-checkpoints")
few_examples = examples(25)

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


@one
@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("call", CALLS)
def test_code_is_never_executed(model_folder, tmp_path, refuses_weights, call, new_format):
    module, name, arguments = CALLS[call]
    trace, path = tmp_path / "executed", model_folder / "checkpoint.pth"
    trap = Calls(module, name, arguments(str(trace)))
    torch.save({"model": changed("encoder.norm.bias", trap)}, path, _use_new_zipfile_serialization=new_format)
    refuses_weights(path, None, "holds objects other than tensors, which are never executed")
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
def test_a_pickle_that_makes_no_sense(model_folder, refuses_weights, pickled):
    path = model_folder / "checkpoint.pth"
    raw_archive(path, pickled)
    refuses_weights(path)


@one
@pytest.mark.parametrize("megabytes", [16, 256])
@pytest.mark.parametrize("member", ["archive/data.pkl", "archive/data/0"])
def test_an_archive_that_would_flood_the_memory(model_folder, refuses_weights, megabytes, member):
    path = model_folder / "checkpoint.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(member, "w") as stream:
        for _ in range(megabytes):
            stream.write(bytes(1 << 20))
    refuses_weights(path, None, f"claim to hold {megabytes << 20:,}")


def small_archive(path, **options):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/a.txt", "b" * 1000)
    return bytearray(path.read_bytes())


@one
@pytest.mark.parametrize("field", [(0, 4), (6, 2), (8, 2), (14, 4), (18, 4), (26, 2), (28, 2)], ids=str)
def test_an_archive_with_a_damaged_header(model_folder, refuses_weights, field):
    path = model_folder / "checkpoint.pth"
    content = small_archive(path)
    start, length = field
    content[start : start + length] = b"\xff" * length
    path.write_bytes(content)
    refuses_weights(path)


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@few_examples
def test_a_flipped_bit_is_noticed_or_harmless(model_folder, refuses_weights, bad_inputs, at, bit):
    content = bytearray((OFFICIAL / "checkpoint.pth").read_bytes())
    place = int(at * len(content))
    content[place] ^= 1 << bit
    path = model_folder / "checkpoint.pth"
    path.write_bytes(content)
    bad_inputs.add((place, bit))
    try:
        model = load_segmenter(path)
    except CheckpointError:
        refuses_weights(path)
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
def test_a_flipped_bit_of_safetensors_is_noticed(tensors_file, safe, refuses_weights, bad_inputs, at, bit):
    content = bytearray(tensors_file)
    place = int(at * len(content))
    content[place] ^= 1 << bit
    bad_inputs.add((place, bit))
    refuses_weights(safe(content))


@given(at=st.integers(0, 8500), bit=st.integers(0, 7))
@few_examples
def test_a_flipped_bit_of_a_safetensors_header_is_noticed_or_harmless(
    tensors_file, safe, refuses_weights, bad_inputs, at, bit
):
    content = bytearray(tensors_file)
    content[at] ^= 1 << bit
    bad_inputs.add((at, bit))
    path = safe(content)
    try:
        model = load_segmenter(path)
    except CheckpointError:
        refuses_weights(path)
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
def test_a_safetensors_header_that_lies(tensors_file, safe, refuses_weights, damage):
    header, data = header_of(tensors_file)
    refuses_weights(safe(with_header(HEADERS[damage](header), data)))


@one
@pytest.mark.parametrize("length", [0, 1, 7, 1 << 31, 1 << 63, (1 << 64) - 1])
def test_a_safetensors_header_of_another_length(tensors_file, safe, refuses_weights, length):
    refuses_weights(safe(struct.pack("<Q", length) + tensors_file[8:]))


@one
@pytest.mark.parametrize("more", [b"\0", b"\0" * 1000])
def test_bytes_after_the_end_of_safetensors(tensors_file, safe, refuses_weights, more):
    refuses_weights(safe(tensors_file + more))


@one
@pytest.mark.parametrize("key", SOME_KEYS)
def test_safetensors_with_a_weight_that_is_no_number(model_folder, refuses_weights, key):
    value = STATE[key].clone()
    value.view(-1)[0] = float("nan")
    path = model_folder / "model.safetensors"
    safetensors.torch.save_file(changed(key, value), path)
    refuses_weights(path, None, key, "NaN or infinite")


@one
@pytest.mark.parametrize("place", PLACES | EMPTY)
@pytest.mark.parametrize("name", ["checkpoint.pth", "model.safetensors", "variant.yml"])
def test_something_else_in_the_place_of_a_file(model_folder, refuses_weights, name, place):
    path = model_folder / name
    path.unlink(missing_ok=True)
    (PLACES | EMPTY)[place](path)
    refuses_weights(model_folder, path)
