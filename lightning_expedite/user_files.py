"""Old name of what is in `files`, until every caller uses the new one."""

from .files import expand_home, parse_yaml, read_text, read_yaml, require_regular

__all__ = ["expand_home", "parse_yaml", "read_text", "read_yaml", "require_regular"]
