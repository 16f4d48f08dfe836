"""What tests of wrong inputs share."""

import os

import PIL
import pytest
from hypothesis import HealthCheck, settings

from lightning_expedite.errors import DataError

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

# What no YAML file may hold, whatever its keys mean.
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
)
UNREADABLE_YAML = {
    "aliases without end": BOMB,
    "an alias to itself": "model: &a {reducer: *a}",
    "an unknown alias": "model: *a",
    "a key twice": "model: {window: 64}\nmodel: {window: 32}",
    "a key twice below": "model: {window: 64, window: 32}",
    "an impossible date": "model: {window: 2001-99-99}",
    "levels without end": "[" * 5000,
    "balanced levels": "a: " + "[" * 400 + "]" * 400,
    "code": "model: !!python/object/apply:os.system ['true']",
    "an unknown tag": "model: !window 64",
    "bad binary": "model: !!binary a",
    "an unclosed list": "model: [1",
    "JSON cut short": '{"model": {"window": 64',
    "two colons": "a: b: c",
    "two documents": "model: {}\n---\nmodel: {}",
    "a tab": "model:\n\twindow: 64",
    "a key that is a mapping": "? [a, {b: c}]\n: 1\n? {a: b}\n: 2",
    "a merge of nothing": "model:\n  <<: 3",
    "HTML": "<html>\n<body>: [404</body>",
    "a zero byte": "model: \0",
    "a command of a terminal": "model: \x1b[31m",
    "a text too long": "# " + "a" * (2 << 20),
}

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


def reading_fixtures(read, name):
    """Two fixtures for a function that reads a file: ``reads(content)`` and ``refuses(content, *words)``.

    The latter checks that the error names the file, is of bearable length and has no addresses of objects.
    """

    @pytest.fixture
    def reads(tmp_path):
        def check(content, name=name, **options):
            (tmp_path / name).write_bytes(content)
            return read(tmp_path / name, **options)

        return check

    @pytest.fixture
    def refuses(reads, tmp_path):
        def check(content, *words, **options):
            with pytest.raises(DataError) as raised:
                reads(content, **options)
            message = str(raised.value)
            for word in (str(tmp_path / name), *words):
                assert word in message
            assert " object at 0x" not in message
            assert len(message) < len(str(tmp_path / name)) + 300

        return check

    return reads, refuses
