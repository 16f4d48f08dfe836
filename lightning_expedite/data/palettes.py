"""Colours for classes of data sets without colours of their own."""

Palette = tuple[tuple[int, int, int], ...]


def generated_palette(num_classes: int) -> Palette:
    """Return the colours that the PASCAL VOC development kit generates: neighbouring indices differ strongly.

    The three lowest bits of an index become the highest bits of red, green and blue, the next three the next
    ones, and so on. Colours are distinct up to 256 classes.
    """
    return tuple(_colour(index) for index in range(num_classes))


def _colour(index: int) -> tuple[int, int, int]:
    channels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            channels[channel] |= ((index >> (3 * place + channel)) & 1) << (7 - place)
    red, green, blue = channels
    return red, green, blue
