"""Classes, camera view and canvas of the demo scenes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

CLASSES: tuple[str, ...] = (
    "sky",
    "building",
    "tree",
    "grass",
    "road",
    "pavement",
    "lane mark",
    "car",
    "person",
    "pole",
    "sign",
)
"""Class names; a label is an index into this tuple."""

PALETTE: tuple[tuple[int, int, int], ...] = (
    (110, 180, 240),
    (120, 85, 75),
    (30, 120, 50),
    (150, 220, 110),
    (90, 70, 120),
    (240, 130, 220),
    (250, 250, 250),
    (20, 30, 200),
    (225, 25, 60),
    (160, 160, 160),
    (255, 215, 0),
)
"""RGB colour of each class in overlays."""

SIZE: tuple[int, int] = (256, 384)
"""Height and width of a scene in pixels."""

SKY, BUILDING, TREE, GRASS, ROAD, PAVEMENT, LANE_MARK, CAR, PERSON, POLE, SIGN = range(len(CLASSES))

Colour = tuple[float, float, float]
Image = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """Camera view: flat ground in one-point perspective.

    Attributes:
        horizon: Row of the horizon.
        vanishing: Column the road runs to.
        road: Columns of the road's two edges on the bottom row.
        pavement: Width of the left and the right pavement on the bottom row.
        sun: -1 where light comes from the left, 1 where it comes from the right.
    """

    horizon: float
    vanishing: float
    road: tuple[float, float]
    pavement: tuple[float, float]
    sun: int

    def row(self, nearness: float) -> float:
        """Return the row of the ground at `nearness`, 0 on the horizon and 1 on the bottom row."""
        return self.horizon + nearness * (SIZE[0] - self.horizon)

    def column(self, bottom: float, nearness: float) -> float:
        """Return the column, at `nearness`, of the ground line that leaves the bottom row at column `bottom`."""
        return self.vanishing + nearness * (bottom - self.vanishing)


class Canvas:
    """Image, labels and shadows of a scene, painted from far to near.

    Attributes:
        rng: The scene's only source of chance.
        image: (H, W, 3) uint8 RGB before lighting.
        labels: (H, W) uint8 class of the thing painted last at each pixel.
        light: (H, W) float32 share of the light that reaches each pixel.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.image: Image = np.zeros((*SIZE, 3), np.uint8)
        self.labels: Image = np.zeros(SIZE, np.uint8)
        self.light: Floats = np.ones(SIZE, np.float32)

    def between(self, low: float, high: float) -> float:
        """Draw a number uniformly between `low` and `high`."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """Draw whether an event of this probability happens."""
        return bool(self.rng.random() < probability)

    def colour(self, family: tuple[Colour, ...], spread: float = 12.0) -> Colour:
        """Draw a colour near one of `family`, up to `spread` away in brightness and half of that in hue."""
        base = family[int(self.rng.integers(len(family)))]
        offset = self.between(-spread, spread)
        red, green, blue = (
            float(np.clip(channel + offset + self.between(-spread, spread) / 2, 0, 255)) for channel in base
        )
        return red, green, blue

    def polygon(self, points: list[tuple[float, float]], colour: Colour, label: int) -> None:
        """Fill the polygon through the (column, row) `points`, fully lit."""
        corners = np.round(points).astype(np.int32)
        cv2.fillPoly(self.image, [corners], colour)
        cv2.fillPoly(self.labels, [corners], label)
        cv2.fillPoly(self.light, [corners], 1.0)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour, label: int) -> None:
        """Fill an upright rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour, label)

    def ellipse(self, centre: tuple[float, float], radii: tuple[float, float], colour: Colour, label: int) -> None:
        """Fill an upright ellipse."""
        middle = (round(centre[0]), round(centre[1]))
        axes = (max(1, round(radii[0])), max(1, round(radii[1])))
        cv2.ellipse(self.image, middle, axes, 0, 0, 360, colour, -1)
        cv2.ellipse(self.labels, middle, axes, 0, 0, 360, label, -1)
        cv2.ellipse(self.light, middle, axes, 0, 0, 360, 1.0, -1)

    def shade(self, points: list[tuple[float, float]], strength: float = 0.58) -> None:
        """Darken what is already painted by a cast shadow; labels stay."""
        cv2.fillPoly(self.light, [np.round(points).astype(np.int32)], strength)
