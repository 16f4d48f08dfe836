"""Bundled demo data: drawn scenes, so that everything can be tried without a download."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .base import ImageSource, SegmentationDataModule
from .sources import require_split

_DEFAULT_TRAINING_SCENES = 512


class Demo(SegmentationDataModule):
    """Drawn scenes with exact labels, evaluated as drawn unless ``short_side`` is given.

    Args:
        split: ``validation`` or ``train``.
        count: Number of scenes; by default all 64 of validation or 512 of train.

    Raises:
        ConfigError: If ``count`` is not between 1 and the number of scenes.
    """

    as_stored: ClassVar[bool] = True

    def __init__(self, split: str = "validation", count: int | None = None, **kwargs: Any) -> None:
        # Imported here because drawing needs OpenCV, which a data set does not need to be listed by the CLI.
        from . import scenes

        super().__init__(root="demo", split=split, **kwargs)
        self.classes = scenes.CLASSES
        self.palette = scenes.PALETTE
        self.splits = {"validation": scenes.VALIDATION, "train": scenes.TRAINING}
        self.count = count

    def source(self) -> ImageSource:
        """Return the scenes of the split; raises ``DataError`` if it does not exist."""
        require_split(self.split, self.splits, self.root)
        indices = self.splits[self.split]
        count = self.count if self.count is not None else min(len(indices), _DEFAULT_TRAINING_SCENES)
        if not 0 < count <= len(indices):
            raise ConfigError(f"count is {count}: {self.split} has 1 to {len(indices)} scenes")
        return _Scenes(indices[:count])


class _Scenes:
    """An image source that draws each scene when it is read."""

    def __init__(self, indices: Sequence[int]) -> None:
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return f"scene_{self.indices[index]:05d}"

    def image(self, index: int) -> NDArray[np.uint8]:
        return _draw(self.indices[index])[0]

    def label(self, index: int) -> NDArray[np.uint8]:
        return _draw(self.indices[index])[1]


@lru_cache(maxsize=1)  # image and label of one scene come from one drawing
def _draw(index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    from .scenes import draw_scene

    return draw_scene(index)
