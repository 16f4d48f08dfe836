"""How methods are drawn, the same in every picture; and matplotlib's settings for all of them."""

import io
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

DOTS_PER_INCH = 150


class Look(NamedTuple):
    """A colour of Okabe and Ito's palette, which people with any colour vision tell apart, and a marker."""

    color: str
    marker: str


UNREDUCED = Look("#000000", "*")
_KNOWN = {
    "TokenClustering": Look("#0072B2", "o"),
    "EViT": Look("#D55E00", "s"),
    "ToMe": Look("#009E73", "^"),
    "ACT": Look("#CC79A7", "D"),
}
_OTHERS = (Look("#E69F00", "v"), Look("#56B4E9", "P"), Look("#999999", "X"))

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib; an SVG names every font listed here in every text
    "font.size": 9,
    "text.parse_math": False,  # a dollar sign in a name is no formula
    "svg.fonttype": "none",  # text stays text: smaller, and can be searched
    "svg.hashsalt": "lightning_expedite",  # the same results make the same file
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.facecolor": "white",
}


def looks_of(methods: Iterable[str]) -> dict[str, Look]:
    """Give each method its look, in the order given; ``none`` is the unreduced model."""
    looks: dict[str, Look] = {}
    for method in dict.fromkeys(methods):
        others = sum(name not in _KNOWN and name != "none" for name in looks)
        looks[method] = UNREDUCED if method == "none" else _KNOWN.get(method, _OTHERS[others % len(_OTHERS)])
    return looks


@contextmanager
def drawing() -> Iterator[None]:
    """Draw with the settings of this project, whatever style the user has set, and without a display."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # of names in scripts that the font lacks
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def saved(draw: Callable[[], Any]) -> dict[str, bytes]:
    """Draw a figure and give its files' content by their suffixes, ``.png`` and ``.svg``."""
    files = {}
    with drawing():
        figure = draw()
        for suffix in (".png", ".svg"):
            stream = io.BytesIO()
            metadata = {"Date": None} if suffix == ".svg" else {}  # else the same results would make another file
            figure.savefig(stream, format=suffix[1:], dpi=DOTS_PER_INCH, metadata=metadata)
            files[suffix] = stream.getvalue()
    return files
