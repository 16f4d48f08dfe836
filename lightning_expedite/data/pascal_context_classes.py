"""The 60 classes of PASCAL-Context, background first, with the colours they are usually shown in."""

from lightning_expedite.data.ade20k_classes import ADE20K_CLASSES

# In the order of the annotations' category ids, which is what the label files count. Lists that begin with
# aeroplane, bicycle, bird name the same classes in another order and do not fit these files.
_NAMES = (
    "background aeroplane bag bed bedclothes bench bicycle bird boat book bottle building bus cabinet car"
    " cat ceiling chair cloth computer cow cup curtain dog door fence floor flower food grass ground horse"
    " keyboard light motorbike mountain mouse person plate platform pottedplant road rock sheep shelves"
    " sidewalk sign sky snow sofa table track train tree truck tvmonitor wall water window wood"
)

# The colours this data set is usually shown in are ADE20K's first ones.
PASCAL_CONTEXT_CLASSES: tuple[tuple[str, tuple[int, int, int]], ...] = tuple(
    (name, colour) for name, (_, colour) in zip(_NAMES.split(), ADE20K_CLASSES, strict=False)
)
