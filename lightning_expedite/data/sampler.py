"""Division of a data set over processes, each image exactly once."""

from collections.abc import Iterator, Sized
from collections.abc import Set as AbstractSet
from typing import Any

from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

PLACEHOLDER = -1


class ShardedSampler(DistributedSampler[Any]):
    """Gives process r of w every w-th position from the r-th on, of those that are not finished.

    torch's own sampler repeats images until all shares are equal, which distorts scores. Here nothing is
    repeated; a process without any position gets one placeholder, -1, since Lightning needs a batch on every
    process. It is a ``DistributedSampler`` because Lightning replaces any other kind by one that repeats.

    Args:
        dataset: Anything with a length.
        num_replicas: Number of processes.
        rank: This process, from 0.
        finished: Positions that an interrupted run has done; they are left out.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        num_replicas: int = 1,
        rank: int = 0,
        finished: AbstractSet[int] = frozenset(),
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False)
        assert isinstance(dataset, Sized)
        left = [position for position in range(len(dataset)) if position not in finished]
        self.positions = left[rank::num_replicas] or [PLACEHOLDER]
        # Lightning and torch read this attribute; theirs is the padded length.
        self.num_samples = len(self.positions)

    def __iter__(self) -> Iterator[int]:
        """Yield this process's positions in ascending order."""
        return iter(self.positions)

    def __len__(self) -> int:
        """Return the number of positions of this process, placeholder included."""
        return len(self.positions)
