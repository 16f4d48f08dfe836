"""Data sets for tests that end a run while it works: every image takes a while, or one stops the run."""

import os
import time
from typing import Any

from lightning_expedite.data import Folder

SECONDS = "SLOW_DATA_SECONDS"


class SlowSource:
    def __init__(self, source: Any) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def read(self, index: int, labels: bool) -> Any:
        time.sleep(float(os.environ.get(SECONDS, "0")))
        return self.source.read(index, labels)


class SlowFolder(Folder):
    """A `Folder` whose images take as long as an environment variable says."""

    def source(self) -> Any:
        return SlowSource(super().source())
