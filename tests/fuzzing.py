"""What tests of wrong inputs share."""

import os

import PIL
from hypothesis import HealthCheck, settings

# What may stand in the place of a file.
PLACES = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}
EMPTY = {"an empty file": lambda path: path.touch()}
NOTHING = {"nothing": lambda path: None}

# How Pillow stores YCbCr so that it can read it: uncompressed files of its own look cut off to versions before 13.
YCBCR = {"compression": "tiff_lzw"} if int(PIL.__version__.split(".")[0]) < 13 else {}


def examples(number):
    """The same drawn examples in every run, so many of them."""
    return settings(
        max_examples=number,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
