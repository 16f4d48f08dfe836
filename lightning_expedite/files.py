"""Reading of small untrusted files, atomic writing, and output folders."""

import errno
import hashlib
import os
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from .errors import OutputError

RESULTS_FILE, IMAGES_FILE, BENCHMARK_FILE = "results.json", "images.jsonl", "benchmark.json"
POINT_FILE, FAILURE_FILE = "point.yaml", "failed.json"  # of a sweep's point, whose results lie in folders beside them
MAX_BYTES = 1 << 20
"""Size of the largest config, list or `variant.yml` that is read."""
MAX_NODES = 100_000
"""Values in a YAML file, with every alias counted as often as it is used."""
MAX_DEPTH = 50
"""Levels of nesting in a YAML file."""


def expand_home(path: str | Path) -> Path:
    """Return the path with a leading ``~`` expanded, unchanged where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def require_regular(path: Path) -> None:
    """Refuse everything but regular files: opening a pipe waits for a writer, and some devices never end.

    Raises:
        OSError: There is no such file, or it is a folder, a pipe, a socket or a device.
    """
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a NUL byte in the name
        raise OSError(errno.EINVAL, str(error)) from error
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file")


def read_text(path: Path, encoding: str = "utf-8", limit: int = MAX_BYTES) -> str:
    """Read a text file of at most ``limit`` bytes.

    Raises:
        OSError: It is missing, unreadable, not a regular file or too large.
        UnicodeDecodeError: It is not text in this encoding.
    """
    require_regular(path)
    size = path.stat().st_size
    if size > limit:
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, more than the {limit:,} that are read")
    return path.read_text(encoding=encoding)


def read_yaml(path: Path) -> Any:
    """Read a YAML file of at most `MAX_BYTES` with `parse_yaml`.

    Raises:
        OSError, UnicodeDecodeError, yaml.YAMLError: See `read_text` and `parse_yaml`.
    """
    return parse_yaml(read_text(path))


def parse_yaml(text: str) -> Any:
    """Parse YAML as ``yaml.safe_load`` does, but refuse duplicate keys and documents that expand without limit.

    Raises:
        yaml.YAMLError: It is not YAML, a key occurs twice in a mapping, an alias refers to itself, or `MAX_NODES` or
            `MAX_DEPTH` is exceeded.
    """
    loader = _BoundedLoader(text)
    try:
        return loader.get_single_data()
    except (ValueError, KeyError, AttributeError, TypeError, OverflowError) as error:
        # PyYAML lets these through, e.g. for the date 2001-99-99.
        raise yaml.YAMLError(f"a value does not match its form or its tag ({error})") from error
    except RecursionError as error:
        raise yaml.YAMLError(f"it is nested more than {MAX_DEPTH} levels deep") from error
    finally:
        loader.dispose()


class _BoundedLoader(yaml.SafeLoader):
    """PyYAML's loader, which measures every node as soon as it is composed."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._sizes: dict[int, tuple[int, int]] = {}  # by the node's id: values and levels, aliases expanded

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node, and check its keys and its size."""
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        assert node is not None
        line = node.start_mark.line + 1
        if is_alias:
            if id(node) not in self._sizes:
                raise yaml.YAMLError(f"an alias refers to itself (line {line})")
            return node
        children: list[yaml.Node] = list(node.value) if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
            keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for key, count in Counter(keys).items():
                if count > 1:
                    raise yaml.YAMLError(f"{key[1]!r} occurs twice in one mapping (line {line})")
        sizes = [self._sizes[id(child)] for child in children]
        values, levels = 1 + sum(size[0] for size in sizes), 1 + max((size[1] for size in sizes), default=0)
        if values > MAX_NODES:
            raise yaml.YAMLError(f"its aliases expand to more than {MAX_NODES:,} values")
        if levels > MAX_DEPTH:
            raise yaml.YAMLError(f"it is nested more than {MAX_DEPTH} levels deep")
        self._sizes[id(node)] = values, levels
        return node


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file for writing that replaces ``path`` only when the block ends without an error."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)  # mkstemp's own mode would hide the file from a group
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a mixture.

    Raises:
        OutputError: The folder cannot be written to, or the disk is full.
    """
    try:
        with whole_file(path) as stream:
            stream.write(content)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def require_no_file(output: Path) -> None:
    """Raise `OutputError` if the output folder is a file."""
    if output.is_file():
        raise OutputError(f"--output {output} is a file: name a folder")


def claim_output(output: Path, result: Path, overwrite: bool) -> None:
    """Create the output folder, or refuse, before any work, one that has results already.

    Args:
        output: Folder that the run writes to.
        result: File or folder in it whose presence indicates an earlier run.
        overwrite: Whether an earlier result may be replaced.

    Raises:
        OutputError: There is a result and ``overwrite`` is not set, or the folder cannot be created.
    """
    # Names with a dot are temporary files of a run that was killed.
    found = (path for path in result.iterdir() if not path.name.startswith(".")) if result.is_dir() else (result,)
    if any(path.exists() for path in found) and not overwrite:
        raise OutputError(f"{result} exists already; use --overwrite or another --output")
    require_no_file(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--output {output} cannot be made a folder: {error.strerror}") from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content as hexadecimal digits.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
