"""What each class gains or loses when tokens are reduced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..text import plain
from .comparison import Entry, Subject
from .front import AXES, views

Differences = list[float | None]


@dataclass(frozen=True)
class ClassTable:
    """IoU per class, in percent, of the unreduced model, and of each setting what it differs by, in points.

    A class that is in neither labels nor predictions has no IoU: ``None``.
    """

    subject: Subject
    classes: list[str]
    unreduced: list[float | None]
    rows: list[tuple[Entry, Differences]]

    def chosen(self, entries: Sequence[Entry]) -> "ClassTable":
        """Give the table of some of the settings, in the order given."""
        rows = dict(self.rows)
        kept = [(entry, rows[entry]) for entry in entries if entry in rows]
        return ClassTable(self.subject, self.classes, self.unreduced, kept)

    def by_loss(self) -> list[int]:
        """Give the classes' indices, those that lose most on average first, and those without IoU last."""

        def mean(index: int) -> float:
            known = [value for _, row in self.rows if (value := row[index]) is not None]
            return sum(known) / len(known) if known else float("inf")

        return sorted(range(len(self.classes)), key=mean)


def class_table(subject: Subject) -> ClassTable | None:
    """Compare a subject's settings with its unreduced model class by class.

    Returns:
        The table, with each score once however often it was timed; ``None`` without an unreduced model, or where no
        setting has its list of classes.
    """
    baseline = next((entry.baseline for entry in subject.entries if entry.baseline is not None), None)
    if baseline is None:
        return None
    names = _names(baseline.content)
    rows: list[tuple[Entry, Differences]] = []
    seen: set[int] = set()
    for entry in subject.entries:
        test = entry.run.test
        if entry.unreduced or test is None or entry.baseline is None or id(test) in seen:
            continue
        if names and names == _names(test.content) == _names(entry.baseline.content):
            seen.add(id(test))
            pairs = zip(_ious(test.content), _ious(entry.baseline.content), strict=True)
            rows.append((entry, [None if a is None or b is None else a - b for a, b in pairs]))
    if not rows:
        return None
    return ClassTable(subject, [plain(name, 40) for name in names], _ious(baseline.content), rows)


def telling(table: ClassTable, count: int) -> list[Entry]:
    """Choose at most ``count`` settings: along the front of latency, then the best of the rest of each method in turn.

    Args:
        table: The settings to choose from.
        count: How many there is room for.
    """
    known = [entry for entry, _ in table.rows]
    if len(known) <= count:
        return known
    scores = {id(entry.run.test) for entry in known}
    found = views([table.subject])
    front = [entry for entry, _, _ in found[0].front(AXES[0])] if found else []
    chosen = _spaced([entry for entry in front if not entry.unreduced and id(entry.run.test) in scores], count)
    same = {id(entry.run.test): entry for entry in known}  # of a score timed twice the table has one entry
    picked = [same[id(entry.run.test)] for entry in chosen]
    rest = sorted((entry for entry in known if entry not in picked), key=lambda entry: -(entry.miou or 0))
    while rest and len(picked) < count:
        methods = [entry.method for entry in picked]
        best = min(rest, key=lambda entry: methods.count(entry.method))
        picked.append(best)
        rest.remove(best)
    return [entry for entry in known if entry in picked]


def _spaced(entries: Sequence[Entry], count: int) -> list[Entry]:
    """Choose entries evenly, the first and the last among them."""
    if len(entries) <= count:
        return list(entries)
    return [entries[round(place * (len(entries) - 1) / (count - 1))] for place in range(count)]


def _names(content: Mapping[str, Any]) -> list[str]:
    return [row["name"] for row in content.get("per_class", [])]


def _ious(content: Mapping[str, Any]) -> list[float | None]:
    return [row["IoU"] for row in content.get("per_class", [])]
