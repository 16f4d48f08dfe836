"""Class names and colours by the names of data sets, for models that say what they were trained on."""

from __future__ import annotations

from typing import NamedTuple

from lightning_expedite.data.palettes import Palette, generated_palette


class ClassTable(NamedTuple):
    """Names, where they are known, and RGB colours of a model's classes, in index order."""

    names: tuple[str, ...] | None
    palette: Palette


def class_table(data_set: str | None, num_classes: int) -> ClassTable:
    """Return the names and colours of a data set's classes.

    Args:
        data_set: Name as in the known weights and in ``variant.yml``: ``ade20k``, ``cityscapes``, ``pascal_context``
            or ``demo``; ``None`` where it is not known.
        num_classes: Number of classes of the model.

    Returns:
        Those of the data set; generated colours without names where it is not known or has another number of classes.
    """
    names, palette = _known(data_set)
    if len(names) != num_classes:
        return ClassTable(None, generated_palette(num_classes))
    return ClassTable(names, palette)


def _known(data_set: str | None) -> tuple[tuple[str, ...], Palette]:
    if data_set == "ade20k":
        from lightning_expedite.data.ade20k_classes import ADE20K_CLASSES

        return tuple(name for name, _ in ADE20K_CLASSES), tuple(colour for _, colour in ADE20K_CLASSES)
    if data_set == "pascal_context":
        from lightning_expedite.data.pascal_context_classes import PASCAL_CONTEXT_CLASSES

        return tuple(name for name, _ in PASCAL_CONTEXT_CLASSES), tuple(colour for _, colour in PASCAL_CONTEXT_CLASSES)
    if data_set == "cityscapes":
        from lightning_expedite.data.cityscapes_classes import CITYSCAPES_CLASSES

        return tuple(name for name, _, _ in CITYSCAPES_CLASSES), tuple(colour for _, colour, _ in CITYSCAPES_CLASSES)
    if data_set == "demo":
        from lightning_expedite.data.scene_canvas import CLASSES, PALETTE

        return tuple(CLASSES), tuple(PALETTE)
    return (), ()
