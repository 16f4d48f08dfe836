"""Small files that users write or fetch, read so that no content stalls or floods the program."""

import errno
import stat
from pathlib import Path
from typing import Any

import yaml

LARGEST_TEXT = 1 << 20
"""Bytes of the largest config, list or `variant.yml` that is read: a hundred times what any has."""
MOST_NODES = 100_000
"""Values that a YAML file may stand for once its aliases are written out."""
DEEPEST = 50
"""Levels of nesting that a YAML file may have: far more than any config, far fewer than Python bears."""


def expand_home(path: str | Path) -> Path:
    """Write out a leading ``~``; where there is no such user, the path stays as it is, and is missing as such."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def require_regular(path: Path) -> None:
    """Refuse what is no regular file: opening a pipe waits for a writer, and some devices never end.

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
        raise OSError(errno.EINVAL, "it is no regular file")


def read_text(path: Path, encoding: str = "utf-8", most: int = LARGEST_TEXT) -> str:
    """Read a small text file.

    Args:
        path: The file.
        encoding: As Python names it.
        most: Bytes that it may have.

    Raises:
        OSError: It is missing, unreadable, no regular file or too large.
        UnicodeDecodeError: It is no text of this encoding.
    """
    require_regular(path)
    size = path.stat().st_size
    if size > most:
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, which no such file needs")
    return path.read_text(encoding=encoding)


def read_yaml(path: Path) -> Any:
    """Read a YAML file with `parse_yaml`.

    Raises:
        OSError, UnicodeDecodeError, yaml.YAMLError: As `read_text` and `parse_yaml` raise them.
    """
    return parse_yaml(read_text(path))


def parse_yaml(text: str) -> Any:
    """Read YAML as ``yaml.safe_load`` does, but for files that it would read without a word, or without end.

    Refused are keys that stand twice in a mapping, of which YAML's reader drops the first, and aliases that refer to
    themselves or stand for more than `MOST_NODES` values.

    Raises:
        yaml.YAMLError: It is no YAML, or as above.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {})
        return loader.construct_document(node)
    except (ValueError, KeyError, AttributeError, TypeError, OverflowError) as error:
        # YAML's reader lets these through for values such as the date 2001-99-99.
        raise yaml.YAMLError(f"a value is not what its form or its tag says ({error})") from error
    except RecursionError as error:
        raise yaml.YAMLError(f"it is nested more than {DEEPEST} levels deep") from error
    finally:
        loader.dispose()


def _measure(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Count a node's values, aliases written out, and its levels; nodes that are being counted are ``None``."""
    place = id(node)
    if place in known:
        found = known[place]
        if found is None:
            raise yaml.YAMLError(f"an alias refers to itself (line {node.start_mark.line + 1})")
        return found
    known[place] = None
    count, depth = 1, 0
    for child in _children(node):
        nodes, levels = _measure(child, known)
        count, depth = count + nodes, max(depth, levels + 1)
        if count > MOST_NODES:
            raise yaml.YAMLError(f"its aliases stand for more than {MOST_NODES:,} values")
        if depth > DEEPEST:
            raise yaml.YAMLError(f"it is nested more than {DEEPEST} levels deep")
    known[place] = count, depth
    return count, depth


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if isinstance(node, yaml.MappingNode):
        _require_once(node)
        return [part for pair in node.value for part in pair]
    return []


def _require_once(mapping: yaml.MappingNode) -> None:
    seen: set[tuple[str, str]] = set()
    for key, _ in mapping.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        if (key.tag, key.value) in seen:
            raise yaml.YAMLError(f"{key.value!r} stands twice in one mapping (line {key.start_mark.line + 1})")
        seen.add((key.tag, key.value))
