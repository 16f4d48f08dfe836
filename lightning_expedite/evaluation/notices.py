"""Warnings of a run: on screen as soon as they are known, and in its results."""

import warnings
from collections.abc import Iterable, Sequence
from typing import TypeVar

from pytorch_lightning.utilities import rank_zero_warn
from torch import distributed

Item = TypeVar("Item")


class Notices:
    """What a user should know of a run; each sentence is shown once.

    Attributes:
        texts: All sentences so far.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, text: str, every_process: bool = False) -> None:
        """Show and keep a sentence.

        Args:
            text: The sentence.
            every_process: Whether it concerns the process that adds it alone, so that not only the first shows it.
        """
        if text in self.texts:
            return
        self.texts.append(text)
        if every_process:
            warnings.warn(text, stacklevel=2)
        else:
            rank_zero_warn(text, stacklevel=5)

    def recall(self, texts: Iterable[str]) -> None:
        """Keep sentences that an interrupted run has shown, without showing them again."""
        self.texts = list(dict.fromkeys([*self.texts, *texts]))

    def gather(self) -> None:
        """Join the sentences of all processes, which all have to call it."""
        self.texts = list(dict.fromkeys(gather(self.texts)))


def gather(items: Sequence[Item]) -> list[Item]:
    """Join a list of every process, on every process, in the order of the processes."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return list(items)
    parts: list[Sequence[Item]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]
