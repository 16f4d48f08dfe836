"""The scripts in ``docs``."""

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))


def load(name):
    """Import a script; ``hooks`` needs MkDocs."""
    return importlib.import_module(name)


make_tables, run_commands, make_reliability = (
    load(name) for name in ("make_tables", "run_commands", "make_reliability")
)
