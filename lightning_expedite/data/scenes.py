"""Procedurally drawn road scenes with a class label for every pixel.

They replace a street data set where none may be downloaded: large surfaces (sky, walls, asphalt) where
neighbouring tokens are alike, and many thin or small objects (poles, signs, people, lane marks) that a
token reducer loses when it merges or drops too much. A scene depends on its index and seed alone.
"""

from __future__ import annotations

import cv2
import numpy as np

from lightning_expedite.data.scene_canvas import (
    BUILDING,
    CLASSES,
    GRASS,
    LANE_MARK,
    PALETTE,
    PAVEMENT,
    ROAD,
    SIZE,
    SKY,
    Canvas,
    Colour,
    Image,
    View,
)
from lightning_expedite.data.scene_things import arrange_things, draw_tree

__all__ = ["CLASSES", "PALETTE", "SIZE", "TRAINING", "VALIDATION", "draw_scene"]

VALIDATION = range(0, 64)
"""Indices of the validation scenes."""

TRAINING = range(1_000, 1_000_000)
"""Indices training scenes are taken from, none of them a validation scene."""

# Strength of the fine and the blotchy brightness texture of each class, in the order of CLASSES.
_FINE_GRAIN = np.array([0.0, 0.05, 0.20, 0.13, 0.09, 0.05, 0.05, 0.02, 0.04, 0.03, 0.02], dtype=np.float32)
_BLOTCHES = np.array([0.03, 0.05, 0.16, 0.14, 0.08, 0.07, 0.06, 0.03, 0.05, 0.03, 0.02], dtype=np.float32)


def draw_scene(index: int, seed: int = 0) -> tuple[Image, Image]:
    """Draw one road scene.

    Args:
        index: Number of the scene; see `VALIDATION` and `TRAINING`.
        seed: Another seed gives another series of scenes.

    Returns:
        (H, W, 3) uint8 RGB image and (H, W) uint8 labels, an index into `CLASSES` for every pixel.
    """
    canvas = Canvas(np.random.default_rng([seed, index]))
    view = _choose_view(canvas)
    _draw_sky(canvas, view)
    _draw_skyline(canvas, view)
    _draw_ground(canvas, view)
    _draw_lane_marks(canvas, view)
    _draw_ground_shadows(canvas, view)
    for draw, nearness in arrange_things(canvas):
        draw(canvas, view, nearness)
    return _photograph(canvas, view), canvas.labels


def _choose_view(canvas: Canvas) -> View:
    """Choose camera, road width and the side of the sun."""
    height, width = SIZE
    return View(
        horizon=canvas.between(0.38, 0.48) * height,
        vanishing=canvas.between(0.25, 0.75) * width,
        road=(canvas.between(-0.35, 0.12) * width, canvas.between(0.88, 1.35) * width),
        pavement=(canvas.between(0.3, 0.7) * width, canvas.between(0.3, 0.7) * width),
        sun=1 if canvas.chance(0.5) else -1,
    )


def _draw_sky(canvas: Canvas, view: View) -> None:
    """Paint the sky: a gradient from zenith to horizon, with clouds."""
    zenith = np.array(canvas.colour(((95, 150, 225), (150, 175, 205), (120, 165, 235), (185, 190, 200)), 15))
    haze = np.array(canvas.colour(((205, 225, 245), (240, 215, 190), (215, 220, 225)), 12))
    down = np.clip(np.arange(SIZE[0]) / view.horizon, 0, 1)[:, None]
    canvas.image[:] = (zenith * (1 - down) + haze * down)[:, None].astype(np.uint8)
    white = canvas.colour(((238, 240, 243), (222, 225, 232)), 10)
    for _ in range(int(canvas.rng.integers(0, 5))):
        x, y = canvas.between(0, SIZE[1]), canvas.between(0, 0.7 * view.horizon)
        for _ in range(4):
            radii = (canvas.between(12, 40), canvas.between(4, 11))
            canvas.ellipse((x + canvas.between(-30, 30), y + canvas.between(-6, 6)), radii, white, SKY)


def _draw_skyline(canvas: Canvas, view: View) -> None:
    """Paint the row of houses and trees along the horizon, with gaps that show the sky."""
    x = canvas.between(-30, 0)
    foot = view.row(0.08)
    while x < SIZE[1]:
        kind = canvas.rng.random()
        width = canvas.between(32, 90)
        if kind < 0.62:
            _draw_building(canvas, view, x, x + width, foot)
        elif kind < 0.86:
            draw_tree(canvas, view, x + width / 2, foot, canvas.between(34, 80))
        x += width * canvas.between(0.85, 1.1)


def _draw_building(canvas: Canvas, view: View, left: float, right: float, foot: float) -> None:
    """Paint a house front with its roof, windows and the shaded strip of its far side."""
    top = foot - canvas.between(38, 112)
    family = ((170, 95, 75), (195, 170, 135), (150, 140, 135), (205, 190, 165), (130, 85, 70))
    wall = canvas.colour(family, 14)
    if canvas.chance(0.45):
        roof = canvas.colour(((120, 60, 50), (85, 80, 85), (105, 75, 60)), 10)
        ridge = top - canvas.between(10, 24)
        middle = (left + right) / 2
        canvas.polygon([(left - 3, top), (middle, ridge), (right + 3, top)], roof, BUILDING)
    canvas.box(left, top, right, foot + 2, wall, BUILDING)
    _draw_windows(canvas, (left, top, right, foot))
    side = canvas.between(0.1, 0.3) * (right - left)
    edge = (left, left + side) if view.sun > 0 else (right - side, right)
    canvas.shade([(edge[0], top), (edge[1], top), (edge[1], foot), (edge[0], foot)], 0.7)


def _draw_windows(canvas: Canvas, front: tuple[float, float, float, float]) -> None:
    """Paint rows of windows on the house front (left, top, right, bottom)."""
    left, top, right, bottom = front
    glass = canvas.colour(((60, 70, 90), (95, 115, 135), (225, 205, 140)), 15)
    pitch_x, pitch_y = canvas.between(12, 20), canvas.between(14, 22)
    share_x, share_y = canvas.between(0.4, 0.65), canvas.between(0.45, 0.65)
    for y in np.arange(top + 5, bottom - pitch_y + 4, pitch_y):
        for x in np.arange(left + 5, right - pitch_x + 2, pitch_x):
            canvas.box(x, y, x + share_x * pitch_x, y + share_y * pitch_y, glass, BUILDING)


def _draw_ground(canvas: Canvas, view: View) -> None:
    """Paint lawn, the two pavements with their slab joints, and the road."""
    bottom, (left, right) = SIZE[0], view.road
    lawn = canvas.colour(((125, 150, 65), (105, 155, 70), (150, 150, 80)), 12)
    canvas.box(0, view.row(0.03), SIZE[1], bottom, lawn, GRASS)
    tone = canvas.colour(((185, 170, 155), (170, 165, 160), (195, 175, 145)), 10)
    joint = (tone[0] * 0.82, tone[1] * 0.82, tone[2] * 0.82)
    outer = (left - view.pavement[0], right + view.pavement[1])
    _ground_strip(canvas, view, (outer[0], outer[1]), (0.02, 1.0), tone, PAVEMENT)
    for nearness in np.cumprod(np.full(14, 0.82)):
        # A slab joint is a line across, thinner far away; the road painted next hides its middle.
        _ground_strip(canvas, view, outer, (float(nearness) * 0.985, float(nearness)), joint, PAVEMENT)
    asphalt = canvas.colour(((85, 85, 92), (100, 98, 100), (70, 72, 80)), 10)
    _ground_strip(canvas, view, (left, right), (0.0, 1.0), asphalt, ROAD)


def _ground_strip(
    canvas: Canvas,
    view: View,
    columns: tuple[float, float],
    nearness: tuple[float, float],
    colour: Colour,
    label: int,
) -> None:
    """Fill the flat strip between two ground lines, from the far to the near end of `nearness`."""
    (left, right), (far, near) = columns, nearness
    corners = [
        (view.column(left, far), view.row(far)),
        (view.column(right, far), view.row(far)),
        (view.column(right, near), view.row(near)),
        (view.column(left, near), view.row(near)),
    ]
    canvas.polygon(corners, colour, label)


def _draw_lane_marks(canvas: Canvas, view: View) -> None:
    """Paint dashed lines between the lanes, perhaps edge lines, perhaps a zebra crossing."""
    left, right = view.road
    span = right - left
    paint = canvas.colour(((235, 235, 230), (238, 232, 215), (225, 190, 70)), 8)
    half = canvas.between(0.026, 0.036) * SIZE[1]
    lanes = int(canvas.rng.integers(2, 4))
    phase = canvas.between(0.75, 1.0)
    for lane in range(1, lanes):
        x = left + span * lane / lanes
        for step in range(6):
            near = phase * 0.72**step
            if near > 0.2:
                _ground_strip(canvas, view, (x - half, x + half), (near * 0.82, near), paint, LANE_MARK)
    if canvas.chance(0.5):
        for x in (left + 0.05 * span, right - 0.05 * span):
            _ground_strip(canvas, view, (x - 0.7 * half, x + 0.7 * half), (0.25, 1.0), paint, LANE_MARK)
    if canvas.chance(0.4):
        _draw_zebra(canvas, view)


def _draw_zebra(canvas: Canvas, view: View) -> None:
    """Paint a pedestrian crossing from kerb to kerb."""
    left, right = view.road
    far = canvas.between(0.3, 0.6)
    near = far * canvas.between(1.25, 1.4)
    paint = canvas.colour(((235, 235, 232),), 8)
    asphalt = canvas.colour(((85, 85, 92),), 8)
    _ground_strip(canvas, view, (left, right), (far * 0.94, near * 1.05), asphalt, ROAD)
    stripe = canvas.between(10, 14) / far
    for x in np.arange(left + 0.6 * stripe, right - stripe, 2 * stripe):
        _ground_strip(canvas, view, (float(x), float(x) + stripe), (far, near), paint, LANE_MARK)


def _draw_ground_shadows(canvas: Canvas, view: View) -> None:
    """Darken the ground where houses or trees outside the image cast a shadow."""
    for _ in range(int(canvas.rng.integers(0, 3))):
        near = canvas.between(0.25, 1.1)
        far = near * canvas.between(0.65, 0.85)
        start = SIZE[1] if view.sun > 0 else 0
        end = start - view.sun * canvas.between(0.3, 0.9) * SIZE[1]
        tip = (end, view.row((near + far) / 2))
        canvas.shade([(start, view.row(far)), (end, view.row(far * 1.04)), tip, (start, view.row(near))], 0.68)


def _photograph(canvas: Canvas, view: View) -> Image:
    """Texture, light and expose the painting as a camera would.

    Returns:
        (H, W, 3) uint8 RGB image.
    """
    rng, (height, width) = canvas.rng, SIZE
    fine = rng.standard_normal(SIZE, np.float32)
    coarse = rng.standard_normal((height // 12, width // 12), np.float32)
    blotches = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    gain = 1 + _FINE_GRAIN[canvas.labels] * fine + _BLOTCHES[canvas.labels] * blotches
    gain *= cv2.GaussianBlur(canvas.light, (3, 3), 0)
    falloff = canvas.between(0.0, 0.14) * view.sun
    gain *= canvas.between(0.72, 1.12) * np.linspace(1 - falloff, 1 + falloff, width, dtype=np.float32)
    cast = np.array([canvas.between(0.93, 1.07), 1.0, canvas.between(0.9, 1.1)], np.float32)
    picture = cv2.GaussianBlur(canvas.image, (3, 3), 0.7).astype(np.float32) * gain[..., None] * cast
    picture += canvas.between(1.5, 6.0) * rng.standard_normal((height, width, 3), np.float32)
    photograph: Image = np.clip(picture, 0, 255).astype(np.uint8)
    return photograph
