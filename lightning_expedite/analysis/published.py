"""The published figures that a run can be compared with."""

import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .runs import Run


@dataclass(frozen=True)
class Published:
    """A row of the published tables: mIoU in percent, GFLOPs, and the speed-up in frames per second at batch 1."""

    miou: float
    gflops: float
    speedup: float


@lru_cache(maxsize=1)
def published_tables() -> dict[str, Any]:
    """Give the published rows, their source, and which weights and reducer settings they stand for."""
    text = importlib.resources.files("lightning_expedite").joinpath("assets/published.json").read_text("utf-8")
    tables: dict[str, Any] = json.loads(text)
    return tables


def published_source() -> str:
    """Say where the published figures are from."""
    return str(published_tables()["source"])


def find_published(run: Run) -> Published | None:
    """Find the published row of a run: of the same weights, data set, method and settings.

    A run without scores is matched by its weights, for a model is timed on any data. Settings that the published
    tables do not name have to be the usual ones; the seed of a method that draws at random is no such setting.
    """
    tables = published_tables()
    model = tables["models"].get(run.checkpoint)
    if model is None or (run.test is not None and run.test.data != model["data"]):
        return None
    rows = tables["rows"][model["rows"]]
    (unreduced,) = (row for row in rows if row["method"] == "none")
    for row in rows:
        if _stands_for(row, run, tables["reducers"]):
            return Published(row["mIoU"], row["gflops"], row["fps"] / unreduced["fps"])
    return None


def _stands_for(row: Mapping[str, Any], run: Run, reducers: Mapping[str, Any]) -> bool:
    if run.reducer is None or row["method"] == "none":
        return run.reducer is None and row["method"] == "none"
    method = reducers[row["method"]]
    if method["class"] != run.method:
        return False
    names, usual = method["names"], method["usual"]
    wanted = {**usual, **{names[name]: value for name, value in row["setting"].items()}}
    return _comparable({**usual, **(run.reducer.get("init_args") or {})}) == _comparable(wanted)


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave the seed out, and give numbers of clusters as rows and columns, as one number stands for both."""
    return {
        name: [value, value] if name == "clusters" and not isinstance(value, list) else value
        for name, value in settings.items()
        if name != "seed"
    }
