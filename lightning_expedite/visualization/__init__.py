"""Overlays, comparisons and token maps: functions that take arrays and return a matplotlib ``Figure``, without pyplot.

`figure_bytes` turns a figure into the content of a file. `lightning_expedite.token_groups` runs a model and draws its
token maps.
"""

from .canvas import figure_bytes
from .labels import compare, overlay
from .tokens import TokenMap, TokenMaps, draw_token_maps

__all__ = ["TokenMap", "TokenMaps", "compare", "draw_token_maps", "figure_bytes", "overlay"]
