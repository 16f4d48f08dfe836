"""What each run of a report was computed with."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..text import plain
from .comparison import Subject
from .runs import Speed, Test


class Provenance(NamedTuple):
    """Facts that some runs share: ``kind`` is ``scores`` or ``times``, ``runs`` are their names."""

    kind: str
    facts: list[tuple[str, str]]
    runs: list[str]


def provenances(subjects: Sequence[Subject]) -> list[Provenance]:
    """Give what scores and times were computed with, runs of the same together."""
    found: dict[tuple[str, str], Provenance] = {}
    for subject in subjects:
        for entry in subject.entries:
            for kind, facts in (
                ("scores", _facts_of_test(entry.run.test)),
                ("times", _facts_of_speed(entry.speed)),
            ):
                if facts:
                    name = f"{subject.title}: {entry.title}" if len(subjects) > 1 else entry.title
                    same = found.setdefault((kind, json.dumps(facts)), Provenance(kind, facts, []))
                    same.runs.append(name)
    return sorted(found.values(), key=lambda provenance: provenance.kind)


def _facts_of_test(test: Test | None) -> list[tuple[str, str]]:
    if test is None:
        return []
    content = test.content
    total = content.get("images_total")
    images = content["images"] if total in (None, content["images"]) else f"{content['images']} of {total}"
    protocol = [
        (name.replace("_", " "), value) for name, value in content.get("protocol", {}).items() if value is not None
    ]
    return _shown([*_facts(content["environment"]), ("images", images), *protocol])


def _facts_of_speed(speed: Speed | None) -> list[tuple[str, str]]:
    if speed is None:
        return []
    row, settings, environment = speed.row, speed.content["settings"], dict(speed.content["environment"])
    environment["commit"] = row.get("commit") or environment.get("commit")
    given = row.get("input")
    size = None if given is None else f"{given['source']}, {given['size'][0]} x {given['size'][1]}"
    weights = "untrained" if row["model"].get("untrained") else "trained"
    return _shown([*_facts(environment), ("compile", settings["compile"]), ("input", size), ("weights", weights)])


def _facts(environment: dict[str, Any]) -> list[tuple[str, Any]]:
    names = ("device", "threads", "precision", "processes", "torch", "timm", "lightning_expedite", "commit", "platform")
    return [(name, environment.get(name)) for name in names]


def _shown(facts: Iterable[tuple[str, Any]]) -> list[tuple[str, str]]:
    return [(plain(name, 40), plain(value)) for name, value in facts if value is not None]
