"""Images of every kind and damage: the pixels that they stand for, or one line that names the file."""

import io
import struct

import cv2
import numpy as np
import pytest
from data_files import EXIF_ORIENTATION, chunk, encoded, picture, png
from fuzzing import EMPTY, PLACES, YCBCR, examples, reading_fixtures
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


def checked(path):
    """Read an image; its header must tell the size that is read."""
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    assert (*image_header(path), 3) == pixels.shape
    return pixels


reads, refuses = reading_fixtures(checked, "image.png")

NO_TURN = [b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*" * 50]
for number in (0, 9, 65535):
    NO_TURN.append(Image.Exif())
    NO_TURN[-1][EXIF_ORIENTATION] = number


@pytest.mark.parametrize("exif", NO_TURN, ids=range(len(NO_TURN)))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_orientation_that_is_none_or_damaged_turns_nothing(reads, kind, exif):
    content = encoded(PICTURE, kind, exif=exif)
    assert np.array_equal(reads(content), in_rgb(Image.open(io.BytesIO(content))))


def opencv(pixels):
    """A PNG file of 16 bits per sample, which Pillow cannot write."""
    return cv2.imencode(".png", pixels)[1].tobytes()


EXACT = {"lossless": True, "exact": True}  # of WebP; other formats ignore it
GREY, HIGH = Image.fromarray(SHADES), (DEEP[..., :3] >> 8).astype(np.uint8)
FORMS = {  # the files' kinds, what they are made of, and the pixels that they stand for
    "grey": ("PNG BMP TIFF", GREY, {}, grey(SHADES)),
    "grey with alpha": ("PNG TIFF", Image.merge("LA", [GREY] * 2), {}, grey(SHADES)),
    "alpha": ("PNG BMP TIFF WEBP", Image.fromarray(np.dstack([PIXELS, SHADES])), EXACT, PIXELS),
    "nothing but alpha 0": ("PNG TIFF", Image.fromarray(np.dstack([PIXELS, np.zeros_like(SHADES)])), {}, PIXELS),
    "a transparent colour": ("PNG", PICTURE, {"transparency": tuple(PIXELS[0, 0].tolist())}, PIXELS),
    "a transparent grey": ("PNG", GREY, {"transparency": int(SHADES[0, 0])}, grey(SHADES)),
    "16 bits of grey": ("PNG TIFF", Image.fromarray(DEEP[..., 0]), {}, grey(HIGH[..., 0])),
    "16 bits of colour": ("PNG", opencv(DEEP[..., 2::-1]), {}, HIGH),
    "16 bits of colour with alpha": ("PNG", opencv(DEEP[..., [2, 1, 0, 3]]), {}, HIGH),
    "black and white": ("PNG BMP TIFF", Image.fromarray(SHADES > 127), {}, grey((SHADES > 127) * np.uint8(255))),
    "several pages": ("TIFF", PICTURE, {"save_all": True, "append_images": [Image.new("RGB", (9, 9))]}, PIXELS),
    "several frames": (
        *("PNG WEBP", PICTURE, {"save_all": True, "append_images": [Image.new("RGB", (32, 24))], **EXACT}),
        PIXELS,
    ),
    "CMYK": ("TIFF", PICTURE.convert("CMYK"), {}, in_rgb(PICTURE.convert("CMYK"))),
    "no compression": ("TIFF", PICTURE, {"compression": "raw"}, PIXELS),
    "LZW": ("TIFF", PICTURE, {"compression": "tiff_lzw"}, PIXELS),
    "deflate": ("TIFF", PICTURE, {"compression": "tiff_adobe_deflate"}, PIXELS),
    "packed bits": ("TIFF", PICTURE, {"compression": "packbits"}, PIXELS),
}
for colours in (2, 3, 4, 16, 200, 256):
    paletted = PICTURE.quantize(colours)
    FORMS[f"{colours} colours"] = ("PNG BMP TIFF GIF", paletted, {}, in_rgb(paletted))
for transparency in (0, bytes(range(16)), b"\0" * 16):
    paletted = PICTURE.quantize(16)
    FORMS[f"transparent {transparency}"] = ("PNG", paletted, {"transparency": transparency}, in_rgb(paletted))


@pytest.mark.parametrize(("form", "kind"), [(form, kind) for form in FORMS for kind in FORMS[form][0].split()])
def test_an_unusual_form_is_read_right(reads, form, kind):
    _, image, options, expected = FORMS[form]
    assert np.array_equal(reads(image if isinstance(image, bytes) else encoded(image, kind, **options)), expected)


@pytest.mark.parametrize("quality", [50, 90, 100])
@pytest.mark.parametrize("mode", ["CMYK", "L", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_read_as_another_decoder_reads_it(reads, mode, quality, progressive):
    content = encoded(Image.fromarray(SMOOTH).convert(mode), "JPEG", quality=quality, progressive=progressive)
    other = in_rgb(Image.open(io.BytesIO(content)))
    assert np.abs(reads(content).astype(int) - other).max() <= (1 if mode == "CMYK" else 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3), (1, 2), (24, 32)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_smallest_and_the_narrowest_whatever_their_suffix(reads, kind, size):
    pixels = picture(*size)
    content = encoded(Image.fromarray(pixels), kind, **({"lossless": True} if kind == "WEBP" else {}))
    expected = in_rgb(Image.open(io.BytesIO(content))) if kind == "JPEG" else pixels
    for name in ("image.jpg", "image.bmp"):
        assert np.array_equal(reads(content, name), expected)


@given(share=st.floats(0, 0.99), kind=st.sampled_from(KINDS), size=st.sampled_from([(8, 8), (33, 20), (100, 70)]))
@few_examples
def test_a_file_cut_anywhere(refuses, share, kind, size):
    content = encoded(picture(*size), kind)
    length = int(len(content) * share)
    refuses(content[:length])


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), mode=st.sampled_from(["RGB", "L", "P", "RGBA"]))
@few_examples
def test_a_flipped_bit_of_a_png_is_noticed_or_harmless(reads, refuses, at, bit, mode):
    whole = encoded(PICTURE.convert(mode), "PNG")
    content = bytearray(whole)
    content[int(at * len(content))] ^= 1 << bit
    expected = reads(whole)
    try:
        pixels = reads(content)
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
HEADER = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 24, 8, 2, 0, 0, 0))


def bitmap(width, height):
    """A bitmap's header alone."""
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


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
    "no data": HEADER + chunk(b"IEND", b""),
    "an impossible depth": png(32, 24, ROWS, depth=3),
    "an impossible colour type": png(32, 24, ROWS, colour=5),
    "a palette that is missing": png(32, 24, bytes(24 * 33), colour=3),
    "data that cannot be unpacked": HEADER + chunk(b"IDAT", b"garbage") + chunk(b"IEND", b""),
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
    "a bitmap of negative size": bitmap(-32, -24),
    "a bitmap of 2 billion columns": bitmap(2**31 - 1, 1),
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
