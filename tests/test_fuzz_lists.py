"""Lists of names and of classes, and listings of folders: every line is understood, or refused by its number."""

import pytest
from data_files import make_pascal_context, picture, save
from fuzzing import NOTHING, PLACES, examples
from hypothesis import given
from hypothesis import strategies as st

from lightning_expedite.data import Folder, PascalContext
from lightning_expedite.errors import ConfigError, DataError

pytestmark = pytest.mark.promise("bad-lists")
few_examples = examples(60)
NAMES = ["2008_000002", "2008_000007"]


@pytest.fixture
def context(tmp_path):
    return make_pascal_context(tmp_path / "context")


@pytest.fixture
def val(context):
    return context / "ImageSets/SegmentationContext/val.txt"


@pytest.fixture
def refused(context, fails, config):
    """Checks that the data set's list is refused in one line with these words."""

    def check(*words, split="val"):
        options = ("--data", "PascalContext", "--data.root", context, f"--data.split={split}")
        message = fails("test", "--config", config, *options)
        for word in words:
            assert word in message

    return check


def listed(root):
    return [image.name for image in PascalContext(root).list_images(labels=True)]


FINE = {
    "Windows line ends": b"2008_000002\r\n2008_000007\r\n",
    "old line ends": b"2008_000002\r2008_000007\r",
    "blank lines": b"\n\n2008_000002\n\n\n2008_000007\n\n",
    "spaces around": b"  2008_000002 \n\t2008_000007\t\n",
    "no last line end": b"2008_000002\n2008_000007",
    "a byte order mark": b"\xef\xbb\xbf2008_000002\n2008_000007\n",
    "all of it": b"\xef\xbb\xbf\r\n 2008_000002\r\n\r\n\t2008_000007 \r\n \r\n",
}


@pytest.mark.parametrize("kind", FINE)
def test_every_way_to_end_lines_is_understood(context, val, kind):
    val.write_bytes(FINE[kind])
    assert listed(context) == NAMES


LEAVES = [
    *("../2008_000002", "/etc/passwd", "a/../2008_000002", "..", ".", "./2008_000002", "a/./b", "a//b", "a/", "/"),
    *("..\\2008_000002", "C:\\images\\a", "\\\\server\\share", "~/../a/..", "2008_000002/..", "a/../../b"),
    *("\x002008_000002", "2008\x00", "\x1b[31m2008", "a\x07b", "a\x7fb", "a\u202eb", "a\u200bb", "a\ufeffb"),
    "a/" * 50 + "..",
]


@pytest.mark.parametrize("name", LEAVES, ids=ascii)
def test_a_name_that_leaves_its_folder_or_cannot_be_seen(val, refused, name):
    val.write_text(f"2008_000002\n{name}\n", encoding="utf-8", newline="")
    refused(f"{val}, line 2: ", "is not a name within JPEGImages")


BROKEN = {
    "nothing": b"",
    "blank lines alone": b"\n\r\n \n",
    "a name twice": b"2008_000002\n2008_000007\n2008_000002\n",
    "a name twice with a space": b"2008_000002\n2008_000002 \n",
    "a name of no image": b"2008_000002\n2008_999999\n",
    "a name with its suffix": b"2008_000002.jpg\n",
    "other capitals": b"2008_000002\nX2008_000007\n",
    "two names in a line": b"2008_000002 2008_000007\n",
    "a comma between": b"2008_000002,2008_000007\n",
    "a comment": b"# names\n2008_000002\n",
    "a name without a label": b"2009_000001\n",
    "a column of flags": b"2008_000002  1\n2008_000007 -1\n",
    "a name too long": b"a" * 10_000 + b"\n",
    "UTF-16": "2008_000002\n".encode("utf-16"),
    "Latin-1": "caf\xe9\n".encode("latin-1"),
    "random bytes": bytes(range(128, 256)),
    "zeros": bytes(1000),
    "an image": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "HTML": b"<html>\n<body>404</body>\n</html>\n",
    "JSON": b'["2008_000002"]',
    "signs from right to left": "\u202e200000_8002\n".encode(),
    "other digits": "\u0662\u0660\u0660\u0668_000002\n".encode(),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_list_that_names_no_images(context, val, refused, kind):
    val.write_bytes(BROKEN[kind])
    refused(str(context))


@pytest.mark.parametrize("place", PLACES | NOTHING)
def test_something_else_in_the_place_of_a_list(val, refused, place):
    val.unlink()
    (PLACES | NOTHING)[place](val)
    refused(str(val.parent))


@pytest.mark.parametrize("split", ["", ".", "..", "../val", "val.txt", "VAL", " val", "va?", "*", "val\0", "a" * 5000])
def test_a_split_that_has_no_list(refused, split):
    refused("no split", split=split)


@given(
    lines=st.lists(
        st.one_of(
            st.sampled_from([*NAMES, "", "  ", "../up", "/abs", "a\\b", "missing", "2009_000001"]),
            st.text(st.characters(codec="utf-8"), max_size=12),
        ),
        max_size=5,
    ),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
@few_examples
def test_any_list_gives_its_names_or_is_refused(context, val, lines, end):
    content = end.join(lines).encode()
    val.write_bytes(content)
    wanted = [line.strip() for line in content.decode("utf-8-sig").splitlines() if line.strip()]
    fine = wanted and len(set(wanted)) == len(wanted) and set(wanted) <= set(NAMES)
    if fine:
        assert listed(context) == wanted
        return
    with pytest.raises(DataError, match="context"):
        listed(context)


CLASS_FILES = {
    "no bytes": b"",
    "blank lines": b"\n \r\n\t\n",
    "a name twice": b"sky\nwall\nsky\n",
    "a name twice with a space": b"sky\nsky \n",
    "too many names": b"\n".join(b"%d" % number for number in range(255)),
    "UTF-16": "sky\nwall\n".encode("utf-16"),
    "Latin-1": "caf\xe9\n".encode("latin-1"),
    "control characters": b"sky\nwa\x07ll\n",
    "escapes of a terminal": b"\x1b[31msky\n",
    "zeros": bytes(100),
    "a name too long": b"a" * 201,
    "a file too large": b"a\n" * (1 << 20),
    "a pair of names": b"sky,wall\n",
}


@pytest.mark.parametrize("kind", [*CLASS_FILES, *PLACES, *NOTHING])
def test_a_file_of_classes_that_does_not_tell_them(fails, config, tmp_path, kind):
    path = tmp_path / "classes.txt"
    if kind in CLASS_FILES:
        path.write_bytes(CLASS_FILES[kind])
    else:
        (PLACES | NOTHING)[kind](path)
    assert "classes" in fails("test", "--config", config, "--data.classes", path)


@pytest.mark.parametrize("content", ["sky\r\ngrüne Wiese\r\n", "\ufeffsky\ngrüne Wiese", "\n sky \n\ngrüne Wiese\n\n"])
def test_a_file_of_classes_is_read_whatever_ends_its_lines(tmp_path, content):
    path = tmp_path / "classes.txt"
    path.write_bytes(content.encode())
    data = Folder(tmp_path, classes=path)
    assert data.classes == ("sky", "grüne Wiese")
    assert len(data.palette) == 2


@given(names=st.lists(st.text(max_size=6), max_size=4))
@few_examples
def test_any_names_of_classes_are_kept_or_refused(tmp_path, names):
    fine = names and len(set(names)) == len(names) and all(name.isprintable() for name in names)
    if fine:
        assert Folder(tmp_path, classes=names).classes == tuple(names)
        return
    with pytest.raises(ConfigError, match="classes has"):
        Folder(tmp_path, classes=names)


FOLDERS = {
    "two suffixes of one name": lambda images: save(images / "part0/0.jpg", picture(64, 64)),
    "no images": lambda images: [path.unlink() for path in images.rglob("*.png")],
    "a file in its place": lambda images: (images.rename(images.with_name("moved")), images.write_text("")),
    "nothing": lambda images: images.rename(images.with_name("moved")),
    "a link to itself": lambda images: (images.rename(images.with_name("moved")), images.symlink_to(images.name)),
    "an image more than labels": lambda images: save(images / "part0/more.png", picture(64, 64)),
    "an image of another size": lambda images: save(images / "part0/0.png", picture(64, 65)),
    "hidden images alone": lambda images: [
        path.rename(path.with_name(f".{path.name}")) for path in images.rglob("*.png")
    ],
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_that_does_not_fit(fails, data, config, kind):
    FOLDERS[kind](data / "images")
    message = fails("test", "--config", config)
    assert str(data / "images") in message or str(data / "labels") in message
