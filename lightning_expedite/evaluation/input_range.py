"""Whether the first images of a run look normalised."""

import math

from torch import Tensor

LOOKED_AT = 4  # images: four photographs in a row that are all bright, and none of them dark anywhere, are not expected
_NORMALISED = 10.0  # far beyond any normalised pixel: the usual statistics reach from -2.2 to 2.7
_SLACK = 0.05  # by which resampled values may leave the range from 0 to 1
_BRIGHT = 0.5


class InputRange:
    """Judges the values of the first images that a model is given.

    Pixels of all known normalisations lie on both sides of 0. Values of hundreds are told from one image. Values from 0
    to 1 are told from four: a single bright photograph may have no pixel below the mean. Their lowest has to be 0 and
    not merely above, which in normalised pixels would be the very grey of the mean.
    """

    def __init__(self) -> None:
        self._seen = 0
        self._least, self._most = math.inf, -math.inf

    def look(self, image: Tensor) -> str | None:
        """Look at one more image ``(3, h, w)``, which the device is waited for, but at the first few only.

        Returns:
            What is wrong, in a sentence that is given once.
        """
        if self._seen >= LOOKED_AT:
            return None
        least, most = (float(value) for value in image.aminmax())
        self._seen += 1
        self._least, self._most = min(self._least, least), max(self._most, most)
        if self._unnormalised():
            self._seen = LOOKED_AT
            return (
                f"the images reach the model with values from {self._least:.4g} to {self._most:.4g}, as if they were "
                "not normalised: it expects about -1 to 1 (vit) or -2.1 to 2.6 (deit); mend the data module"
            )
        return None

    def _unnormalised(self) -> bool:
        if max(-self._least, self._most) > _NORMALISED:
            return True
        from_0_to_1 = abs(self._least) <= _SLACK and _BRIGHT < self._most <= 1 + _SLACK
        return self._seen == LOOKED_AT and from_0_to_1
