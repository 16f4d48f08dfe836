"""Class names and colours: tables of the published data sets, and colours for classes without any."""

import csv
from pathlib import Path
from typing import NamedTuple

Palette = tuple[tuple[int, int, int], ...]

_TABLES = Path(__file__).parents[1] / "assets" / "classes"


class ClassTable(NamedTuple):
    """Names of classes, ``None`` where unknown, and their RGB colours, in index order."""

    names: tuple[str, ...] | None
    palette: Palette


def table_rows(data_set: str) -> list[dict[str, str]]:
    """Return the rows of ``assets/classes/DATA_SET.csv``, by the names of its columns."""
    with (_TABLES / f"{data_set}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def read_table(data_set: str) -> tuple[tuple[str, ...], Palette]:
    """Return names and colours of the classes in ``assets/classes/DATA_SET.csv``."""
    rows = table_rows(data_set)
    names = tuple(row["name"] for row in rows)
    return names, tuple((int(row["red"]), int(row["green"]), int(row["blue"])) for row in rows)


def class_table(data_set: str | None, num_classes: int) -> ClassTable:
    """Return the class table of the data set that a model was trained on.

    Args:
        data_set: Name in the known weights or in ``variant.yml``, such as ``ade20k`` or ``demo``; ``None`` if unknown.
        num_classes: Number of classes of the model.

    Returns:
        The data set's table, without ``background`` if the model has one class fewer; generated colours without names
        if the data set is unknown or has another number of classes.
    """
    names: tuple[str, ...] = ()
    palette: Palette = ()
    if data_set == "demo":
        from .scene_canvas import CLASSES, PALETTE  # imports OpenCV

        names, palette = CLASSES, PALETTE
    elif data_set in [path.stem for path in _TABLES.glob("*.csv")]:
        names, palette = read_table(str(data_set))
    if names[:1] == ("background",) and len(names) == num_classes + 1:
        names, palette = names[1:], palette[1:]
    if len(names) != num_classes:
        return ClassTable(None, generated_palette(num_classes))
    return ClassTable(names, palette)


def generated_palette(num_classes: int) -> Palette:
    """Return the colours of the PASCAL VOC development kit, distinct for up to 256 classes.

    The three lowest bits of an index become the highest bits of red, green and blue, the next three the next highest,
    and so on, so that neighbouring indices differ strongly.
    """

    def channel(index: int, first_bit: int) -> int:
        return sum((index >> (3 * place + first_bit) & 1) << (7 - place) for place in range(8))

    return tuple((channel(index, 0), channel(index, 1), channel(index, 2)) for index in range(num_classes))
