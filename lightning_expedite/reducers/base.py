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

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from .spaces import SearchRange

if TYPE_CHECKING:
    from .grouping import GroupRecorder

_RENAMED_HOOKS = {
    "before": "prepare_tokens",
    "after": "restore_tokens",
    "masks": "restore_logits",
    "nothing_reduced": "is_identity",
}
Tokens = Callable[[Tensor], Tensor]


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
    """Where to report which patches share a token (`lightning_expedite.reducers.grouping`); nothing is to be computed
    for it where it is ``None``."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for old, new in _RENAMED_HOOKS.items():
            if old in vars(cls):  # it would never be called
                warnings.warn(f"{cls.__name__}.{old} is now called {new}: rename it", DeprecationWarning, stacklevel=2)
                setattr(cls, new, vars(cls)[old])

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
        """Count, after the pass, the method's own multiply-adds per image in the published convention.

        Args:
            width: Channels of the encoder's tokens.
        """
        return 0

    def is_identity(self) -> bool | Tensor:
        """Return, after the pass, True if no token was merged or dropped.

        Returns:
            One ``bool`` for the batch, or a boolean tensor ``(B,)`` where it depends on the image.
        """
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
        """Return the settings that a search may vary, each with its values worth trying on an encoder; none by default.

        All others keep the defaults of the class.
        """
        return {}

    @abstractmethod
    def start(self, layout: TokenLayout) -> Reduction:
        """Begin one forward pass over images of the given token layout."""

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if name[0] != "_")
        return f"{type(self).__name__}({settings})"


def run_block(block: Any, tokens: Tensor) -> Tensor:
    """Run a timm ``Block`` with the attention below, so that baseline and reduced model compute alike."""
    return mlp_residual(block, attention_residual(block, tokens, lambda x: attend(block.attn, x)))


def attention_residual(block: Any, tokens: Tensor, attend: Tokens) -> Tensor:
    """Run the first half of a timm ``Block`` with ``attend`` in place of its attention."""
    return tokens + block.drop_path1(block.ls1(attend(block.norm1(tokens))))


def mlp_residual(block: Any, tokens: Tensor, mlp: Tokens | None = None) -> Tensor:
    """Run the second half of a timm ``Block``, by default with its own MLP."""
    return tokens + block.drop_path2(block.ls2((mlp or block.mlp)(block.norm2(tokens))))


def attend(attention: Any, tokens: Tensor) -> Tensor:
    """Attend as a timm ``Attention`` does: ``(B, N, C)`` to ``(B, N, C)``."""
    query, key, value = split_heads(attention, tokens)
    return join_heads(attention, F.scaled_dot_product_attention(query, key, value, scale=1.0).transpose(1, 2))


def split_heads(attention: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Project tokens ``(B, N, C)`` to queries, keys and values ``(B, heads, N, C / heads)``.

    Queries are scaled before the product, as in the reference implementation, and so round as there.
    """
    qkv = attention.qkv(tokens).unflatten(-1, (3, attention.num_heads, attention.head_dim))
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return attention.q_norm(query) * attention.scale, attention.k_norm(key), value


def join_heads(attention: Any, tokens: Tensor) -> Tensor:
    """Project the heads' results ``(B, N, heads, C / heads)`` to tokens ``(B, N, C)``."""
    return attention.proj_drop(attention.proj(attention.norm(tokens.flatten(2))))
