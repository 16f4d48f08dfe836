"""The Lightning data module that every data set is a subclass of."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule
from pytorch_lightning.accelerators import CUDAAccelerator
from torch.utils.data import DataLoader

from ..errors import ConfigError
from ..files import expand_home
from ..protocol import LONG_SIDE_FACTOR, Normalization, Protocol, check_views, choose_resize, require_positive
from .dataset import SampleDataset, ShardedSampler, start_worker
from .samples import IGNORE_INDEX, ImageSource, ListedImage, Sample, Size, View
from .sources import list_folder

_MOST_WORKERS = 1024  # each is a process: a typo must not start a million

__all__ = ["IGNORE_INDEX", "ImageSource", "Sample", "SegmentationDataModule", "Size", "View"]


class SegmentationDataModule(LightningDataModule):
    """Base of all data sets: resizing, normalising, sharding across processes and loading.

    A data set is a subclass with ``classes``, ``palette`` and ``source()``. The dataloaders yield ``list[Sample]``; the
    images of one batch may differ in size. ``setup`` chooses sizes and normalisation: arguments take precedence over
    the model's ``protocol``, which takes precedence over the stored size and ``vit``.

    Args:
        root: Folder of the data set.
        split: Split of the data set.
        short_side: Length in pixels that the short side is resized to; by default that of the model's protocol.
        long_side: Limit of the long side in pixels after resizing; by default a multiple of the short side.
        normalization: Pixel statistics, ``vit`` or ``deit``; by default those of the model's protocol.
        scales: Factors on the resized size, one view of each image per factor (multi-scale evaluation).
        mirror: Whether each view is followed by its horizontal mirror.
        batch_size: Images per batch.
        num_workers: Processes that read images; 0 reads in the main process.

    Raises:
        ConfigError: If a number is out of its range.
    """

    classes: tuple[str, ...]
    """Class names in index order."""
    palette: tuple[tuple[int, int, int], ...]
    """RGB of each class."""
    ignore_index: ClassVar[int] = IGNORE_INDEX
    as_stored: ClassVar[bool] = False
    """Whether images are evaluated as stored, whatever sizes the model's protocol has."""
    long_side_factor: ClassVar[int] = LONG_SIDE_FACTOR
    """Limit of the long side as a multiple of the short side, where only the short side is known."""

    def __init__(
        self,
        root: str | Path,
        split: str,
        short_side: int | None = None,
        long_side: int | None = None,
        normalization: Literal["vit", "deit"] | None = None,
        scales: Sequence[float] = (1.0,),
        mirror: bool = False,
        batch_size: int = 1,
        num_workers: int = 2,
    ) -> None:
        super().__init__()
        require_positive(short_side=short_side, long_side=long_side, batch_size=batch_size)
        if not 0 <= num_workers <= _MOST_WORKERS:
            raise ConfigError(f"num_workers is {num_workers}: it must be 0 or more, at most {_MOST_WORKERS}")
        check_views(scales, normalization)
        self.root = expand_home(root)
        self.split = split
        self.short_side = short_side
        self.long_side = long_side
        self.normalization = normalization
        self.scales = tuple(scales)
        self.mirror = mirror
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.protocol: Protocol | None = None
        """Sizes and normalisation that came with a model's weights; by default those of the trainer's model."""
        self._images_folder: Path | None = None
        self._source: ImageSource | None = None
        self._listings: dict[bool, list[ListedImage]] = {}  # with and without labels; each is checked once
        self.resize: tuple[int, int] | None = None
        self.used_normalization: Normalization = "vit"
        self.finished: Collection[int] = frozenset()
        """Positions of images that an interrupted run has finished, which the dataloaders leave out."""

    @property
    def num_classes(self) -> int:
        """Number of classes, without the ignored one."""
        return len(self.classes)

    def source(self) -> ImageSource:
        """List and return the images of ``split``.

        Raises:
            DataError: If the folder or the split is missing, empty or ambiguous.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement source()")

    @property
    def listed(self) -> ImageSource:
        """The images that are read: those of `source`, unless `read_images_from` chose others."""
        if self._source is None:
            self._source = list_folder(self._images_folder) if self._images_folder else self.source()
        return self._source

    def read_image(self, index: int) -> NDArray[np.uint8]:
        """Read an image as stored: ``(H, W, 3)`` uint8 RGB."""
        return self.listed.image(index)

    def read_label(self, index: int) -> NDArray[np.uint8] | None:
        """Read an image's label: ``(H, W)`` uint8, 255 = ignored; ``None`` if there is none, or no such file."""
        return self.listed.label(index)

    def read_images_from(self, folder: Path) -> None:
        """Read the images below ``folder``, or a single image file, instead of the data set's, without labels."""
        self._images_folder = expand_home(folder)
        self._source = None
        self._listings = {}

    def list_images(self, labels: bool) -> list[ListedImage]:
        """List the images and check them without decoding; a second call returns the same list.

        Args:
            labels: Whether labels have to be there.

        Returns:
            Name and file sizes of each image.

        Raises:
            DataError: If files are missing, empty, ambiguous or of the wrong size.
        """
        if labels not in self._listings:
            source = self.listed
            check = getattr(source, "check", None)  # that of files
            names = (source.name(index) for index in range(len(source)))
            self._listings[labels] = check(labels) if check else [ListedImage(name, ()) for name in names]
        return self._listings[labels]

    def setup(self, stage: str | None = None) -> None:
        """List the images, check them without decoding, and choose resizing and normalisation.

        Args:
            stage: Lightning's stage; every stage except ``predict`` needs labels.

        Raises:
            DataError: If files are missing, empty, ambiguous or of the wrong size.
            ConfigError: If ``short_side`` and ``long_side`` contradict each other.
        """
        self.list_images(labels=stage != "predict")
        protocol = self.protocol or getattr(getattr(self.trainer, "lightning_module", None), "protocol", None)
        sizes = None if self.as_stored else protocol
        self.resize = choose_resize(self.short_side, self.long_side, sizes, self.long_side_factor)
        self.used_normalization = self.normalization or getattr(protocol, "normalization", None) or "vit"

    def open_dataset(self, labels: bool = True) -> SampleDataset:
        """Return the images as samples, resized and normalised as in an evaluation; no trainer is needed.

        Args:
            labels: Whether labels are read, and have to be there.

        Raises:
            DataError, ConfigError: As `setup` raises them.
        """
        self.setup("test" if labels else "predict")
        return SampleDataset(self.listed, self.resize, self.used_normalization, self.scales, self.mirror, labels)

    def test_dataloader(self) -> DataLoader[Sample]:
        """Return a loader of ``list[Sample]`` with labels, sharded over the trainer's processes."""
        return self._dataloader(labels=True)

    def predict_dataloader(self) -> DataLoader[Sample]:
        """Return a loader of ``list[Sample]`` without labels, sharded over the trainer's processes."""
        return self._dataloader(labels=False)

    def _dataloader(self, labels: bool) -> DataLoader[Sample]:
        dataset = self.open_dataset(labels)
        world_size, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=ShardedSampler(dataset, world_size, rank, self.finished),
            num_workers=self.num_workers,
            collate_fn=list,  # images differ in size and cannot be stacked
            pin_memory=isinstance(getattr(self.trainer, "accelerator", None), CUDAAccelerator),
            worker_init_fn=start_worker,
        )
