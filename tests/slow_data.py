"""A data set for tests that end a run while it works: every image takes a while."""

import os
import time
from typing import Any

from lightning_expedite.data import Folder

SECONDS = "SLOW_DATA_SECONDS"


class SlowFolder(Folder):
    """A `Folder` whose images take as long as an environment variable says."""

    def source(self) -> Any:
        source: Any = super().source()
        read = source.read

        def read_slowly(index: int, labels: bool) -> Any:
            time.sleep(float(os.environ.get(SECONDS, "0")))
            return read(index, labels)

        source.read = read_slowly
        return source
