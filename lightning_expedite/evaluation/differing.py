"""In which setting two runs differ."""

import json
from collections.abc import Mapping
from typing import Any

_LONGEST = 60


def difference(found: Any, wanted: Any, key: str = "") -> str | None:
    """Name the first setting in which two results' settings differ, with both values; ``None`` where none does."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for name in (*wanted, *(name for name in found if name not in wanted)):
            below = difference(found.get(name), wanted.get(name), f"{key}.{name}" if key else str(name))
            if below:
                return below
        return None
    return None if found == wanted else f"{key} {_brief(found)} instead of {_brief(wanted)}"


def _brief(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
