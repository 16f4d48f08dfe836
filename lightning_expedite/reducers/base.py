"""Interface of token reducers, and when the encoder calls it.

A `Reducer` holds a method's settings and is shared by all forward passes. For each pass it starts a
`Reduction`, which holds that pass's state and whose hooks the model calls in this order::

    tokens = reduction.prepare_tokens(tokens)                    # before the first layer
    for layer, block in enumerate(blocks, start=1):
        tokens = reduction.layer(layer, block, tokens)           # around each block
    tokens = reduction.restore_tokens(norm(tokens))              # on the encoder's output
    logits = reduction.restore_logits(decoder(patches(tokens)))  # on the decoder's logits

A method that changes the number of tokens restores one result per patch in ``restore_tokens`` (the
decoder then sees every patch) or in ``restore_logits`` (the decoder sees the reduced tokens).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from .blocks import run_block
from .spaces import SearchRange

if TYPE_CHECKING:
    from .grouping import GroupRecorder


@dataclass(frozen=True)
class EncoderShape:
    """Sizes of an encoder that a reducer's settings are checked against."""

    depth: int
    grid: tuple[int, int]
    class_token: bool = True


@dataclass(frozen=True)
class TokenLayout:
    """Order of the tokens of one pass: ``prefix`` tokens (class, registers), then ``rows * columns`` patches."""

    rows: int
    columns: int
    prefix: int = 1

    @property
    def patches(self) -> int:
        """Number of patch tokens."""
        return self.rows * self.columns


class Reduction:
    """State and hooks of one forward pass; this base class reduces nothing."""

    recorder: "GroupRecorder | None" = None
    """Where to report which patches share a token (see `GroupRecorder`), if a caller wants to know."""

    def __init__(self, layout: TokenLayout) -> None:
        self.layout = layout

    def prepare_tokens(self, tokens: Tensor) -> Tensor:
        """Change the embedded tokens ``(B, n, C)`` before the first layer."""
        return tokens

    def layer(self, layer: int, block: nn.Module, tokens: Tensor) -> Tensor:
        """Run timm ``Block`` number ``layer`` (from 1) on tokens ``(B, n, C)``."""
        return run_block(block, tokens)

    def restore_tokens(self, tokens: Tensor) -> Tensor:
        """Change the encoder's normalised output ``(B, n, C)``."""
        return tokens

    def restore_logits(self, logits: Tensor) -> Tensor:
        """Turn the decoder's logits ``(B, n, K)`` into one row per patch, ``(B, rows * columns, K)``."""
        return logits

    def queries(self, layer: int, tokens: int) -> int:
        """Return, after the pass, the number of queries in a layer whose attention got ``tokens`` tokens."""
        return tokens

    def multiply_adds(self, width: int) -> int:
        """Count, after the pass, the method's own multiply-adds per image by the published convention; width is C."""
        return 0

    def is_identity(self) -> bool | Tensor:
        """Return, after the pass, whether no token was merged or dropped; ``(B,)`` where it depends on the image."""
        return True


class Reducer(ABC):
    """Settings of a method, checked on construction; no parameters, no state between passes.

    To add a method, subclass it in a new file of ``lightning_expedite/reducers`` (found automatically) or anywhere else
    (named by class path).
    """

    shapes_depend_on_content: ClassVar[bool] = False
    """Whether the number of tokens or queries depends on their values. Such a method synchronises with the device in
    every pass, cannot be compiled as one graph, and its FLOPs are counted on real images only."""

    def check(self, encoder: EncoderShape) -> None:  # noqa: B027 (most methods apply to every encoder)
        """Raise `ReducerError` if these settings cannot apply to the encoder."""

    @classmethod
    def search_space(cls, encoder: EncoderShape) -> Mapping[str, SearchRange]:
        """Return the settings that a search may vary, each with the values worth trying on an encoder."""
        return {}

    @abstractmethod
    def start(self, layout: TokenLayout) -> Reduction:
        """Begin one forward pass over images of the given token layout."""

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if name[0] != "_")
        return f"{type(self).__name__}({settings})"
