"""Thousands of images: memory, speed and what is left behind stay what they are after a few hundred."""

import itertools
import json
import math
from statistics import median

import pytest
from processes import run_script

IMAGES = 5000
MEBIBYTE = 1 << 20
MOST_GROWTH = 50 * MEBIBYTE
MOST_SLOWING = 1.25  # of a fifth's median processor time
ATTEMPTS = 3  # neighbours on the same hardware can slow a run down for a minute; what grows slows down every run


def soak(folder, images, sizes):
    """Run for long; gives the notes, what was left, and what the temporary folder holds in the end."""
    temporary = folder / "temporary"
    temporary.mkdir()
    run_script("soak_run.py", folder, images, sizes, folder=folder, timeout=1800, TMPDIR=str(temporary))
    notes, left = (json.loads((folder / f"{name}.json").read_text()) for name in ("notes", "left"))
    return notes, left, sorted(str(path) for path in temporary.rglob("*"))


def fifths(notes, value):
    """Medians of the first fifth after the warm-up, another fifth, and of the last fifth."""
    fifth = len(notes) // 5
    values = [value(note) for note in notes]
    return median(values[fifth : 2 * fifth]), median(values[-fifth:])


def growth(notes, value):
    first, last = fifths(notes, value)
    return last - first


def processor_slowing(notes):
    """By how much the processor time of 50 images, that of the loader's processes included, grew."""
    first, last = fifths([*itertools.pairwise(notes)], lambda pair: pair[1]["processor"] - pair[0]["processor"])
    return last / first


@pytest.mark.slow
@pytest.mark.promise("soak")
@pytest.mark.parametrize("sizes", [5, 500])
def test_thousands_of_images_take_no_more_than_hundreds(tmp_path, sizes):
    slowing, largest = math.inf, 0
    for attempt in range(ATTEMPTS):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        notes, left, temporary = soak(folder, IMAGES, sizes)
        largest = max(largest, holds_no_more(notes))
        leaves_nothing(folder, left, temporary)
        slowing = min(slowing, processor_slowing(notes))
        if slowing < MOST_SLOWING:
            break
    assert slowing < MOST_SLOWING


def holds_no_more(notes):
    """Memory and handles of the process and of the two of its loader; gives the growth of all memory."""
    assert notes[-1]["images"] == IMAGES
    assert {len(note["resident"]) for note in notes} == {3}
    for process in range(3):
        assert growth(notes, lambda note, process=process: note["resident"][process]) < MOST_GROWTH
        first, last = fifths(notes, lambda note, process=process: note["handles"][process])
        assert first == last
    grown = growth(notes, lambda note: sum(note["resident"]))
    assert grown < MOST_GROWTH
    return grown


def leaves_nothing(folder, left, temporary):
    assert json.loads((folder / "long" / "results.json").read_text())["images"] == IMAGES
    assert left["after"] == left["before"]
    assert set(temporary) <= set(left["before"]["temporary files"])
    written = {path.name for path in (folder / "long").iterdir()}
    assert written == {path.name for path in (folder / "first").iterdir()}
