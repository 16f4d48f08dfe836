"""A data set of any number of images that cost nothing to make: noise, known by its number."""

import numpy as np

from lightning_expedite.data import SegmentationDataModule

STEPS = 25  # heights, in pixels, that images differ by


class Noise(SegmentationDataModule):
    """Noise with labels of noise.

    Args:
        count: Number of images.
        height: Height of the smallest images.
        width: Width of the smallest images.
        sizes: Number of distinct sizes, each a few pixels from the others.
        num: Number of classes.
    """

    as_stored = True

    def __init__(self, count: int, height: int = 64, width: int = 64, sizes: int = 1, num: int = 5, **options) -> None:
        super().__init__(root="noise", split="all", **options)
        self.classes = tuple(f"class {number}" for number in range(num))
        self.palette = tuple((number, number, number) for number in range(num))
        self.count, self.height, self.width, self.sizes = count, height, width, sizes

    def source(self):
        return self

    def __len__(self):
        return self.count

    def name(self, index):
        return f"noise_{index:06d}"

    def size(self, index):
        number = index * 7919 % self.sizes  # a prime: neighbours differ in size
        return self.height + number % STEPS, self.width + number // STEPS

    def image(self, index):
        height, width = self.size(index)
        return np.frombuffer(np.random.default_rng(index).bytes(height * width * 3), np.uint8).reshape(height, width, 3)

    def label(self, index):
        generator = np.random.default_rng(index)
        return generator.integers(0, self.num_classes, self.size(index), dtype=np.uint8)
