"""Pictures of labels and of tokens, each as a matplotlib ``Figure`` of its own, without pyplot's global state.

``compare`` and ``overlay`` draw label maps, ``token_groups`` runs a model and draws which patches share a token,
``figure_bytes`` turns a figure into the content of a file.
"""

from .canvas import figure_bytes
from .labels import compare, overlay
from .tokens import draw_token_maps, token_groups

__all__ = ["compare", "draw_token_maps", "figure_bytes", "overlay", "token_groups"]
