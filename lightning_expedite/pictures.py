"""Deprecated name of `lightning_expedite.visualization` and `lightning_expedite.token_groups`."""

import warnings

from .evaluation.token_maps import token_groups
from .visualization import compare, draw_token_maps, figure_bytes, overlay

__all__ = ["compare", "draw_token_maps", "figure_bytes", "overlay", "token_groups"]

warnings.warn(
    "lightning_expedite.pictures is now lightning_expedite.visualization, and its token_groups is "
    "lightning_expedite.token_groups",
    FutureWarning,  # Python hides a DeprecationWarning outside __main__
    stacklevel=2,
)
