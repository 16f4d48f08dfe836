"""``python -m lightning_expedite``."""

import sys

from lightning_expedite.cli import main

if __name__ == "__main__":
    sys.exit(main())
