"""Images of every kind and damage: the pixels that they stand for, or one line that names the file."""

import io
import struct

import cv2
import numpy as np
import pytest
from data_files import EXIF_ORIENTATION, chunk, encoded, picture, png
from fuzzing import EMPTY, PLACES, YCBCR, examples
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lightning_expedite.data.reading import image_header, read_image, rgb_pixels
from lightning_expedite.errors import DataError

pytestmark = pytest.mark.promise("bad-images")
few_examples = examples(40)

PIXELS = picture(24, 32)
PICTURE = Image.fromarray(PIXELS)
# Areas of one colour, which a JPEG of the highest quality keeps, whatever a decoder does at their edges.
SMOOTH = np.kron(picture(3, 4, seed=1), np.ones((8, 8, 1), np.uint8))
SHADES = PIXELS[..., 1]
DEEP = np.random.default_rng(2).integers(0, 1 << 16, (24, 32, 4), dtype=np.uint16)
KINDS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")


def grey(values):
    return np.repeat(np.asarray(values)[..., None], 3, axis=2)


def in_rgb(image):
    return np.asarray(image.convert("RGB"))


@pytest.fixture
def reads(tmp_path):
    """Writes an image and reads it; its header must tell the size that is read."""

    def read(content, name="image.png"):
        path = tmp_path / name
        path.write_bytes(content)
        pixels = read_image(path)
        assert pixels.dtype == np.uint8
        assert (*image_header(path), 3) == pixels.shape
        return pixels

    return read


@pytest.fixture
def refuses(tmp_path):
    """Checks that a file is refused by an error that names it, of bearable length and without addresses of objects."""

    def check(content, name="image.png", *words):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError) as raised:
            read_image(path)
        message = str(raised.value)
        for word in (str(path), *words):
            assert word in message
        assert " object at 0x" not in message
        assert len(message) < len(str(path)) + 300

    return check


@pytest.mark.parametrize("orientation", [0, 9, 65535])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_orientation_that_is_none_turns_nothing(reads, kind, orientation):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    content = encoded(PICTURE, kind, exif=exif)
    assert np.array_equal(reads(content), in_rgb(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*" * 50]
)
def test_damaged_exif_turns_nothing(reads, exif):
    content = encoded(PICTURE, "PNG", exif=exif)
    assert np.array_equal(reads(content), PIXELS)


FORMS = {
    "grey": (lambda kind: encoded(Image.fromarray(SHADES), kind), ("PNG", "BMP", "TIFF"), grey(SHADES)),
    "grey with alpha": (
        lambda kind: encoded(Image.merge("LA", [Image.fromarray(SHADES)] * 2), kind),
        ("PNG", "TIFF"),
        grey(SHADES),
    ),
    "alpha": (
        lambda kind: encoded(
            Image.fromarray(np.dstack([PIXELS, SHADES])),
            kind,
            **({"lossless": True, "exact": True} if kind == "WEBP" else {}),
        ),
        ("PNG", "BMP", "TIFF", "WEBP"),
        PIXELS,
    ),
    "nothing but alpha 0": (
        lambda kind: encoded(Image.fromarray(np.dstack([PIXELS, np.zeros_like(SHADES)])), kind),
        ("PNG", "TIFF"),
        PIXELS,
    ),
    "a transparent colour": (
        lambda kind: encoded(PICTURE, kind, transparency=tuple(PIXELS[0, 0].tolist())),
        ("PNG",),
        PIXELS,
    ),
    "a transparent grey": (
        lambda kind: encoded(Image.fromarray(SHADES), kind, transparency=int(SHADES[0, 0])),
        ("PNG",),
        grey(SHADES),
    ),
    "16 bits of grey": (
        lambda kind: encoded(Image.fromarray(DEEP[..., 0]), kind),
        ("PNG", "TIFF"),
        grey((DEEP[..., 0] >> 8).astype(np.uint8)),
    ),
    "16 bits of colour": (
        lambda kind: cv2.imencode(f".{kind.lower()}", DEEP[..., 2::-1])[1].tobytes(),
        ("PNG",),
        (DEEP[..., :3] >> 8).astype(np.uint8),
    ),
    "16 bits of colour with alpha": (
        lambda kind: cv2.imencode(f".{kind.lower()}", DEEP[..., [2, 1, 0, 3]])[1].tobytes(),
        ("PNG",),
        (DEEP[..., :3] >> 8).astype(np.uint8),
    ),
    "black and white": (
        lambda kind: encoded(Image.fromarray(SHADES > 127), kind),
        ("PNG", "BMP", "TIFF"),
        grey(np.where(SHADES > 127, 255, 0).astype(np.uint8)),
    ),
    "several pages": (
        lambda kind: encoded(PICTURE, kind, save_all=True, append_images=[Image.new("RGB", (9, 9))]),
        ("TIFF",),
        PIXELS,
    ),
    "several frames": (
        lambda kind: encoded(
            PICTURE,
            kind,
            save_all=True,
            append_images=[Image.new("RGB", (32, 24))],
            **({"lossless": True} if kind == "WEBP" else {}),
        ),
        ("PNG", "WEBP"),
        PIXELS,
    ),
    "CMYK": (lambda kind: encoded(PICTURE.convert("CMYK"), kind), ("TIFF",), in_rgb(PICTURE.convert("CMYK"))),
}


@pytest.mark.parametrize(("form", "kind"), [(form, kind) for form in FORMS for kind in FORMS[form][1]])
def test_an_unusual_form_is_read_right(reads, form, kind):
    store, _, expected = FORMS[form]
    assert np.array_equal(reads(store(kind)), expected)


@pytest.mark.parametrize("colours", [2, 3, 4, 16, 200, 256])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_a_palette_gives_its_colours(reads, kind, colours):
    image = PICTURE.quantize(colours)
    assert np.array_equal(reads(encoded(image, kind)), in_rgb(image))


@pytest.mark.parametrize("transparency", [0, bytes(range(16)), b"\0" * 16], ids=["one", "graded", "all"])
def test_a_palette_keeps_its_colours_where_they_are_transparent(reads, transparency):
    image = PICTURE.quantize(16)
    assert np.array_equal(reads(encoded(image, "PNG", transparency=transparency)), in_rgb(image))


@pytest.mark.parametrize("quality", [50, 90, 100])
@pytest.mark.parametrize("mode", ["CMYK", "L", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_read_as_another_decoder_reads_it(reads, mode, quality, progressive):
    content = encoded(Image.fromarray(SMOOTH).convert(mode), "JPEG", quality=quality, progressive=progressive)
    other = in_rgb(Image.open(io.BytesIO(content)))
    assert np.abs(reads(content).astype(int) - other).max() <= (1 if mode == "CMYK" else 0)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_tiff_of_every_lossless_compression(reads, compression):
    assert np.array_equal(reads(encoded(PICTURE, "TIFF", compression=compression)), PIXELS)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3), (1, 2)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_smallest_and_the_narrowest(reads, kind, size):
    pixels = picture(*size)
    content = encoded(Image.fromarray(pixels), kind, **({"lossless": True} if kind == "WEBP" else {}))
    expected = in_rgb(Image.open(io.BytesIO(content))) if kind == "JPEG" else pixels
    assert np.array_equal(reads(content), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["image.jpg", "image.bmp"])
def test_the_content_counts_and_not_the_suffix(reads, kind, name):
    content = encoded(PICTURE, kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert np.array_equal(reads(content, name), in_rgb(Image.open(io.BytesIO(content))))


@given(share=st.floats(0, 0.99), kind=st.sampled_from(KINDS), size=st.sampled_from([(8, 8), (33, 20), (100, 70)]))
@few_examples
def test_a_file_cut_anywhere(refuses, share, kind, size):
    content = encoded(picture(*size), kind)
    length = int(len(content) * share)
    refuses(content[:length])


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), mode=st.sampled_from(["RGB", "L", "P", "RGBA"]))
@few_examples
def test_a_flipped_bit_of_a_png_is_noticed_or_harmless(tmp_path, refuses, at, bit, mode):
    whole = encoded(PICTURE.convert(mode), "PNG")
    content = bytearray(whole)
    place = int(at * len(content))
    content[place] ^= 1 << bit
    path = tmp_path / "image.png"
    path.write_bytes(whole)
    expected = read_image(path)
    path.write_bytes(content)
    try:
        pixels = read_image(path)
    except DataError:
        refuses(content)
    else:
        assert np.array_equal(pixels, expected)


@given(
    content=st.binary(max_size=200),
    start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0", b"RIFF", b"BM"]),
)
@few_examples
def test_random_bytes_are_no_image(refuses, start, content):
    refuses(start + content)


ROWS = bytes(24 * (1 + 96))
BAD = {
    "a page of HTML": b"<html>404 not found</html>",
    "a picture drawn in text": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    "a reference to large files": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n",
    "zeros": bytes(5000),
    "3.6 billion pixels": png(60_000, 60_000, bytes(1000), colour=0),
    "144 million pixels without their data": png(12_000, 12_000, bytes(1000)),
    "4 billion columns": png(0xFFFFFFFF, 1, bytes(1000)),
    "no pixels": png(0, 0, b""),
    "no columns": png(0, 24, ROWS),
    "no rows": png(32, 0, ROWS),
    "too few rows": png(32, 24, ROWS[:500]),
    "no data": b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 24, 8, 2, 0, 0, 0))
    + chunk(b"IEND", b""),
    "an impossible depth": png(32, 24, ROWS, depth=3),
    "an impossible colour type": png(32, 24, ROWS, colour=5),
    "a palette that is missing": png(32, 24, bytes(24 * 33), colour=3),
    "data that cannot be unpacked": b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 24, 8, 2, 0, 0, 0))
    + chunk(b"IDAT", b"garbage")
    + chunk(b"IEND", b""),
    "an unknown filter": png(32, 24, b"\x09" * len(ROWS)),
    "floating-point samples": encoded(Image.fromarray(SHADES.astype(np.float32)), "TIFF"),
    "32-bit samples": encoded(Image.fromarray(SHADES.astype(np.int32)), "TIFF"),
    "Lab colours": encoded(Image.merge("LAB", PICTURE.split()), "TIFF"),
    "an icon": encoded(PICTURE, "ICO"),
    "a Targa file": encoded(PICTURE, "TGA"),
    "a PDF": encoded(PICTURE, "PDF"),
    "PostScript": encoded(PICTURE, "EPS"),
    "a JPEG's marks alone": b"\xff\xd8\xff\xd9",
    "half a JPEG with an end": encoded(PICTURE, "JPEG")[:620] + b"\xff\xd9",
    "a bitmap of negative size": b"BM"
    + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, -32, -24, 1, 24, 0, 0, 0, 0, 0, 0),
    "a bitmap of 2 billion columns": b"BM"
    + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**31 - 1, 1, 1, 24, 0, 0, 0, 0, 0, 0),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_whole_image(refuses, kind):
    refuses(BAD[kind])


@pytest.mark.parametrize("kind", list(BAD)[::4])
def test_predict_ends_with_one_line(fails, config, tmp_path, kind):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "image.png").write_bytes(BAD[kind])
    message = fails("predict", "--config", config, "--images", folder, "--output", tmp_path / "out")
    assert f"{folder}/image.png" in message


@pytest.mark.parametrize("place", PLACES | EMPTY)
def test_something_else_in_the_place_of_an_image(fails, config, tmp_path, place):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (PLACES | EMPTY)[place](folder / "image.png")
    with pytest.raises(DataError, match=r"image\.png"):
        read_image(folder / "image.png")
    message = fails("predict", "--config", config, "--images", folder, "--output", tmp_path / "out")
    assert str(folder) in message


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_a_pillow_image_is_read_as_its_file_is(reads, mode):
    image = Image.fromarray(DEEP[..., 0]) if mode == "I;16" else PICTURE.convert(mode)
    content = encoded(image, "TIFF" if mode in ("CMYK", "YCbCr") else "PNG", **(YCBCR if mode == "YCbCr" else {}))
    assert np.abs(rgb_pixels(image).astype(int) - reads(content)).max() <= (2 if mode == "YCbCr" else 0)
