"""``prepare``: bring distributed annotations into the layout that is read here."""

from collections.abc import Sequence
from typing import Literal

from ..data.prepare_pascal_context import prepare_pascal_context
from .parser import Parser


def make_parser() -> Parser:
    """Return the parser of the command's options."""
    parser = Parser.of_function("prepare", prepare_pascal_context)
    parser.add_argument("data_set", type=Literal["pascal_context"], help="the data set: pascal_context")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Prepare the data set."""
    options = make_parser().parse_args(list(arguments)).as_dict()
    del options["data_set"]
    print(prepare_pascal_context(**options))
    return 0
