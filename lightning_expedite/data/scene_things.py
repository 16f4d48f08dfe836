"""Objects of the demo scenes: cars, people, poles, signs and trees."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lightning_expedite.data.scene_canvas import CAR, PERSON, POLE, SIGN, SIZE, TREE, Canvas, Colour, View

__all__ = ["Drawer", "arrange_things", "draw_tree"]

Drawer = Callable[[Canvas, View, float], None]


def arrange_things(canvas: Canvas) -> list[tuple[Drawer, float]]:
    """Choose objects and their nearness, the farthest first so that nearer ones hide them."""
    things: list[tuple[Drawer, float]] = []
    plan: tuple[tuple[Drawer, int, int, float, float], ...] = (
        (_draw_car, 2, 5, 0.16, 0.55),
        (_draw_person, 4, 9, 0.2, 0.5),
        (_draw_pole, 2, 5, 0.2, 0.55),
        (_draw_signpost, 2, 5, 0.2, 0.45),
        (_draw_roadside_tree, 0, 3, 0.12, 0.3),
    )
    for draw, fewest, most, far, near in plan:
        count = int(canvas.rng.integers(fewest, most + 1))
        # The square makes far, small objects more frequent than near ones, as in a real street.
        things += [(draw, far + (near - far) * canvas.between(0, 1) ** 2) for _ in range(count)]
    return sorted(things, key=lambda thing: thing[1])


def draw_tree(canvas: Canvas, view: View, x: float, foot: float, height: float) -> None:
    """Paint a trunk and a crown of overlapping leaf balls, brighter towards the sun."""
    family = ((45, 95, 45), (60, 110, 50), (35, 80, 50), (90, 105, 40))
    leaves = np.array(canvas.colour(family, 10))
    trunk = max(3.0, 0.06 * height)
    canvas.box(x - trunk, foot - 0.5 * height, x + trunk, foot + 1, (75, 55, 40), TREE)
    for lit in (0.75, 0.75, 0.95, 0.95, 1.2, 1.3):
        drift = view.sun * (lit - 0.9) * 0.3 * height
        centre = (
            x + drift + canvas.between(-0.2, 0.2) * height,
            foot - (0.62 + 0.25 * (lit - 0.9) + canvas.between(-0.14, 0.14)) * height,
        )
        radius = canvas.between(0.15, 0.26) * height
        red, green, blue = (float(channel) for channel in np.clip(leaves * lit, 0, 255))
        canvas.ellipse(centre, (radius, 0.85 * radius), (red, green, blue), TREE)


def _scale(view: View, nearness: float) -> float:
    """Return the pixels per metre at `nearness`, for a camera 1.5 m above the ground."""
    return (view.row(nearness) - view.horizon) / 1.5


def _beside_road(canvas: Canvas, view: View, nearness: float) -> float:
    """Draw a column on the pavement or the lawn's edge at `nearness`, in the picture if there is room."""
    sides: list[float] = []
    for edge, width in ((view.road[0], -view.pavement[0]), (view.road[1], view.pavement[1])):
        x = view.column(edge + width * canvas.between(0.15, 1.2), nearness)
        if 0 < x < SIZE[1]:
            sides.append(x)
    return sides[int(canvas.rng.integers(len(sides)))] if sides else canvas.between(0, SIZE[1])


def _cast_shadow(canvas: Canvas, view: View, x: float, nearness: float, thickness: float, length: float) -> None:
    """Cast the shadow of an object at column `x` along the ground, away from the sun."""
    row = view.row(nearness)
    tip = x - view.sun * length
    end = row + 0.16 * length
    canvas.shade([(x - thickness / 2, row), (x + thickness / 2, row), (tip, end + 2), (tip, end)])


def _shade_below(canvas: Canvas, x: float, row: float, half: float) -> None:
    """Darken the ground under a car that is 2 `half` wide."""
    canvas.shade([(x - half, row - 2), (x + half, row - 2), (x + half, row + 3), (x - half, row + 3)], 0.4)


def _draw_car(canvas: Canvas, view: View, nearness: float) -> None:
    """Paint a car on the road, seen from behind or, less often, from the side."""
    metre = _scale(view, nearness)
    row = view.row(nearness)
    share = canvas.between(0.12, 0.88)
    x = view.column(view.road[0] + share * (view.road[1] - view.road[0]), nearness)
    family = ((185, 35, 40), (35, 70, 160), (225, 225, 228), (40, 42, 48), (60, 120, 90), (225, 150, 40))
    paint = canvas.colour((*family, (150, 155, 165)), 15)
    if canvas.chance(0.3):
        _draw_car_side(canvas, x, row, metre, paint)
    else:
        _draw_car_back(canvas, x, row, metre, paint)


def _draw_car_back(canvas: Canvas, x: float, row: float, metre: float, paint: Colour) -> None:
    """Paint tyres, body, rear window and tail lamps of a car that stands on `row`."""
    half, height = 1.0 * metre, canvas.between(1.4, 1.8) * metre
    waist = row - 0.55 * height
    _shade_below(canvas, x, row, half)
    for side in (-0.72, 0.72):
        canvas.box(x + (side - 0.2) * half, row - 0.3 * height, x + (side + 0.2) * half, row, (25, 25, 28), CAR)
    roof = row - height
    shell = [(-0.7, roof), (0.7, roof), (1.0, waist), (-1.0, waist)]
    canvas.polygon([(x + share * half, y) for share, y in shell], paint, CAR)
    canvas.box(x - half, waist, x + half, row - 0.14 * height, paint, CAR)
    glass = canvas.colour(((50, 60, 75), (90, 110, 125)), 10)
    top = roof + 0.1 * height
    window = [(-0.6, top), (0.6, top), (0.8, waist), (-0.8, waist)]
    canvas.polygon([(x + share * half, y) for share, y in window], glass, CAR)
    lamp = (215.0, 40.0, 35.0) if canvas.chance(0.6) else (250.0, 245.0, 205.0)
    for side in (-0.8, 0.8):
        canvas.ellipse((x + side * half, waist + 0.14 * height), (0.14 * half, 0.08 * height), lamp, CAR)


def _draw_car_side(canvas: Canvas, x: float, row: float, metre: float, paint: Colour) -> None:
    """Paint body, windows and wheels of a car that crosses the road on `row`."""
    half, height = 2.0 * metre, canvas.between(1.35, 1.6) * metre
    waist, sill = row - 0.58 * height, row - 0.16 * height
    _shade_below(canvas, x, row, half)
    cabin = [(-0.55, waist), (-0.35, row - height), (0.3, row - height), (0.6, waist)]
    canvas.polygon([(x + share * half, y) for share, y in cabin], paint, CAR)
    glass = canvas.colour(((50, 60, 75), (90, 110, 125)), 10)
    for start, end in ((-0.42, -0.08), (0.0, 0.42)):
        canvas.box(x + start * half, row - 0.9 * height, x + end * half, waist, glass, CAR)
    canvas.box(x - half, waist, x + half, sill, paint, CAR)
    for side in (-0.6, 0.6):
        centre = (x + side * half, row - 0.2 * height)
        canvas.ellipse(centre, (0.22 * height, 0.22 * height), (25, 25, 28), CAR)
        canvas.ellipse(centre, (0.1 * height, 0.1 * height), (150, 150, 155), CAR)


def _draw_person(canvas: Canvas, view: View, nearness: float) -> None:
    """Paint a pedestrian: legs, coat, arms and head."""
    metre = _scale(view, nearness) * 1.15
    row, height = view.row(nearness), canvas.between(1.55, 1.9) * metre
    x = canvas.between(0, SIZE[1]) if canvas.chance(0.25) else _beside_road(canvas, view, nearness)
    half = 0.17 * height
    coat = canvas.colour(((190, 45, 60), (45, 60, 130), (235, 190, 60), (120, 50, 120), (40, 130, 130)), 18)
    legs = canvas.colour(((45, 45, 60), (60, 75, 115), (85, 70, 60)), 12)
    stride = canvas.between(0.0, 0.7)
    _cast_shadow(canvas, view, x, nearness, 1.4 * half, 0.8 * height)
    for side in (-1, 1):
        hip, sole = x + side * 0.4 * half, x + side * (0.5 + stride) * half
        crotch, wide = row - 0.48 * height, 0.45 * half
        leg = [(hip - wide, crotch), (hip + wide, crotch), (sole + wide, row), (sole - wide, row)]
        canvas.polygon(leg, legs, PERSON)
    canvas.ellipse((x, row - 0.6 * height), (half, 0.25 * height), coat, PERSON)
    skin = canvas.colour(((225, 180, 150), (150, 105, 80), (105, 70, 55)), 10)
    canvas.ellipse((x, row - 0.89 * height), (0.1 * height, 0.11 * height), skin, PERSON)


def _draw_mast(canvas: Canvas, view: View, x: float, nearness: float, metres: float) -> tuple[float, float]:
    """Paint an upright pole `metres` tall, bright on the sunny side.

    Returns:
        Row of its top, and its thickness.
    """
    row, top = view.row(nearness), view.row(nearness) - metres * _scale(view, nearness)
    thickness = float(np.clip(0.2 * _scale(view, nearness), 7, 13))
    steel = canvas.colour(((95, 100, 105), (125, 125, 128), (70, 85, 80)), 8)
    _cast_shadow(canvas, view, x, nearness, thickness, 1.2 * (row - top))
    canvas.box(x - thickness / 2, top, x + thickness / 2, row, steel, POLE)
    bright = (steel[0] * 1.45, steel[1] * 1.45, steel[2] * 1.45)
    edge = x + view.sun * 0.28 * thickness
    canvas.box(edge - 0.16 * thickness, top, edge + 0.16 * thickness, row, bright, POLE)
    return top, thickness


def _draw_pole(canvas: Canvas, view: View, nearness: float) -> None:
    """Paint a street lamp or a bare pole."""
    x = _beside_road(canvas, view, nearness)
    top, thickness = _draw_mast(canvas, view, x, nearness, canvas.between(3.5, 6.0))
    if canvas.chance(0.6):
        reach = canvas.between(16, 34) * (1 if x < view.vanishing else -1)
        steel = canvas.colour(((95, 100, 105),), 8)
        left, right = sorted((x, x + reach))
        canvas.box(left - thickness / 2, top - 1, right, top + 0.8 * thickness, steel, POLE)
        canvas.ellipse((x + reach, top + 0.5 * thickness), (9, 5), (235, 230, 205), POLE)


def _draw_signpost(canvas: Canvas, view: View, nearness: float) -> None:
    """Paint a traffic sign on its post: disc, triangle or board, rimmed in another colour."""
    x = _beside_road(canvas, view, nearness)
    metres = canvas.between(2.2, 3.0)
    top, _ = _draw_mast(canvas, view, x, nearness, metres)
    radius = float(np.clip(0.42 * _scale(view, nearness), 9, 17))
    designs = (
        ((205, 30, 40), (245, 245, 245)),
        ((30, 80, 190), (240, 240, 245)),
        ((245, 200, 30), (35, 35, 35)),
    )
    rim, face = designs[int(canvas.rng.integers(len(designs)))]
    shape = int(canvas.rng.integers(3))
    for size, colour in ((radius, rim), (0.58 * radius, face if canvas.chance(0.6) else rim)):
        if shape == 0:
            canvas.ellipse((x, top), (size, size), colour, SIGN)
        elif shape == 1:
            foot, half = top + 0.8 * size, 1.15 * size
            canvas.polygon([(x, top - 1.2 * size), (x + half, foot), (x - half, foot)], colour, SIGN)
        else:
            canvas.box(x - size, top - 0.9 * size, x + size, top + 0.9 * size, colour, SIGN)


def _draw_roadside_tree(canvas: Canvas, view: View, nearness: float) -> None:
    """Paint a tree in front of the houses."""
    x = _beside_road(canvas, view, nearness)
    height = canvas.between(3.0, 4.5) * _scale(view, nearness)
    _cast_shadow(canvas, view, x, nearness, 0.4 * height, 0.8 * height)
    draw_tree(canvas, view, x, view.row(nearness), height)
