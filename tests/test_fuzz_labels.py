"""Labels of every kind and damage: the classes that they stand for, or one line that names the file."""

import os

import numpy as np
import pytest
from data_files import class_map, encoded, picture, png, save
from fuzzing import YCBCR, examples, reading_fixtures
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_run import SIZES

from lightning_expedite.data.reading import label_table, read_label
from lightning_expedite.errors import DataError

pytestmark = pytest.mark.promise("bad-labels")
few_examples = examples(40)

CLASSES = class_map(24, 32, classes=4)
TABLE = label_table(4)


def with_palette(values, colours):
    image = Image.fromarray(values).convert("L")
    image.putpalette([channel for colour in colours for channel in colour])
    return image


reads, refuses = reading_fixtures(lambda path, table=TABLE: read_label(path, table), "label.png")


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [*((kind, np.uint8) for kind in ("PNG", "BMP", "TIFF", "GIF")), ("TIFF", np.uint16), ("TIFF", np.int32)],
)
def test_classes_are_read_from_every_lossless_kind_and_depth(reads, kind, dtype):
    assert np.array_equal(reads(encoded(CLASSES.astype(dtype), kind)), CLASSES)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_index_counts_and_not_the_colour(reads, bits):
    values = CLASSES % min(1 << bits, 4)
    for colours in ([(9, 9, 9)] * 4, [(255, 0, 0), (255, 0, 0), (0, 0, 0), (1, 2, 3)]):
        image = with_palette(values, colours[: 1 << bits])
        assert np.array_equal(reads(encoded(image, bits=bits)), values)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_not_multiplied(reads, bits):
    """Pillow spreads grey values of 2 and 4 bits over 0 to 255."""
    values = np.arange(64).reshape(8, 8) % min(1 << bits, 4)
    unpacked = (values[..., None] >> np.arange(bits)[::-1]) & 1
    rows = np.packbits(unpacked.reshape(8, -1).astype(np.uint8), axis=1)
    content = png(8, 8, b"".join(b"\0" + row.tobytes() for row in rows), depth=bits, colour=0)
    assert np.array_equal(reads(content), values)


def test_every_value_that_is_no_class_is_refused(refuses, reads):
    for value in range(4, 255):
        label = CLASSES.copy()
        label[-1, -1] = value
        refuses(encoded(label), f"label values {value} are not classes")
    label[-1, -1] = 255
    assert np.array_equal(reads(encoded(label)), label)


BEYOND = [(dtype, value) for dtype in (np.uint16, np.int32) for value in (4, 256, 259, 511, 65535, 32768)]
BEYOND += [(np.int32, value) for value in (-1, -256, -(2**31), 2**31 - 1, 256 * 4)]


@pytest.mark.parametrize(("dtype", "value"), BEYOND)
def test_values_beyond_8_bits_do_not_wrap(refuses, dtype, value):
    label = CLASSES.astype(dtype)
    label[0, 0] = value
    refuses(encoded(label, "TIFF"), f"label values {value} are not classes")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "CMYK", "YCbCr", "LAB"])
def test_several_channels_are_refused(refuses, mode):
    channels = len(Image.new(mode, (1, 1)).getbands())
    image = Image.merge(mode, [Image.fromarray(CLASSES)] * channels)
    kind, options = "PNG" if mode in ("RGB", "RGBA", "LA") else "TIFF", YCBCR if mode == "YCbCr" else {}
    refuses(encoded(image, kind, **options), f"has {channels} channels")


LOSSY = [(kind, np.uint8, value) for kind in ("JPEG", "WEBP", "JPEG2000") for value in (0, 1, 255)]
LOSSY += [("TIFF", np.float32, value) for value in (0.0, 1.0, 1.5, np.nan, np.inf)]


@pytest.mark.parametrize(("kind", "dtype", "value"), LOSSY)
def test_kinds_that_do_not_keep_values_and_fractions_are_refused(refuses, kind, dtype, value):
    refuses(encoded(np.full((24, 32), value, dtype), kind))


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), kind=st.sampled_from(["grey", "palette"]))
@few_examples
def test_a_flipped_bit_of_a_png_is_noticed_or_harmless(reads, refuses, at, bit, kind):
    colours = [(index, 9, 9) for index in range(4)]
    content = bytearray(encoded(CLASSES if kind == "grey" else with_palette(CLASSES, colours)))
    place = int(at * len(content))
    content[place] ^= 1 << bit
    try:
        values = reads(content)
    except DataError:
        refuses(content)
    else:
        assert np.array_equal(values, CLASSES)


@given(
    values=st.lists(st.integers(0, 255), min_size=1, max_size=12),
    classes=st.integers(1, 254),
    ignore=st.lists(st.integers(0, 255), max_size=3),
    zero=st.booleans(),
)
@few_examples
def test_a_label_gives_its_classes_or_is_refused(reads, refuses, values, classes, ignore, zero):
    """What is read is what the words of the documentation say, value by value."""
    classes = min(classes, 254)
    table = label_table(classes, ignore, zero)
    expected = [
        255
        if value == 255 or value in ignore or (zero and value == 0)
        else (value - zero if value - zero < classes else None)
        for value in values
    ]
    content = encoded(np.array([values], np.uint8))
    if None in expected:
        refuses(content, "are not classes", table=table)
    else:
        assert reads(content, table=table).tolist() == [expected]


WRONG = {
    "colours": lambda path: save(path, picture(*SIZES[3])),
    "another size": lambda path: save(path, class_map(50, 128, classes=4)),
    "turned": lambda path: save(path, class_map(129, 50, classes=4)),
    "one pixel": lambda path: save(path, class_map(1, 1, classes=4)),
    "a class too many": lambda path: save(path, class_map(*SIZES[3], classes=6)),
    "a page of HTML": lambda path: path.write_text("<html>404</html>"),
    "an empty file": lambda path: path.write_bytes(b""),
    "half a file": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    "nothing": lambda path: path.unlink(),
    "a link to nothing": lambda path: (path.unlink(), path.symlink_to("nothing")),
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path.name)),
    "a JPEG": lambda path: path.write_bytes(encoded(class_map(*SIZES[3], classes=4), "JPEG")),
    "floating-point values": lambda path: path.write_bytes(encoded(np.ones(SIZES[3], np.float32), "TIFF")),
}


@pytest.mark.parametrize("damage", WRONG)
def test_the_command_ends_with_one_line_and_no_result(fails, data, config, tmp_path, damage):
    label = data / "labels/part1/3.png"
    WRONG[damage](label)
    message = fails("test", "--config", config, "--output", tmp_path / "out", "--trainer.limit_test_batches", 4)
    assert "labels/part1/3.png" in message or str(data / "labels") in message or str(data / "images") in message
    assert not (tmp_path / "out/results.json").exists()
