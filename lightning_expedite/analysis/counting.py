"""GFLOPs of settings that were tested but not benchmarked. Needs torch, imported when it is asked for."""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import ExpediteError
from .candidates import Candidate, Field


def with_gflops(field: Field) -> Field:
    """Count the GFLOPs, in the published convention, of one window; those that depend on images stay unknown."""
    counted = count_gflops([field.unreduced, *field.reduced])
    unreduced, *reduced = (
        replace(candidate, gflops=gflops)
        for candidate, gflops in zip([field.unreduced, *field.reduced], counted, strict=True)
    )
    return replace(field, unreduced=unreduced, reduced=reduced)


def count_gflops(candidates: Sequence[Candidate]) -> list[float | None]:
    """Count each setting; no weights are needed where the model's are known ones.

    Raises:
        CheckpointError: The weights are neither known nor there, so that the model's sizes are not known.
    """
    import torch

    from ..benchmarking.flops import count_multiply_adds
    from ..models.segmenter import Segmenter, read_checkpoint
    from ..models.segmenter.weights import known_weights, resolve_checkpoint

    settings = candidates[0].test.content["config"]["model"]
    known = known_weights(settings["checkpoint"])
    sizes = known.architecture if known is not None else None
    if sizes is None:
        sizes = read_checkpoint(resolve_checkpoint(settings["checkpoint"], settings.get("weights_folder"))).architecture
    protocol = candidates[0].test.content["protocol"]
    with torch.device("meta"):
        model = Segmenter(sizes, protocol["convention"]).eval()
    image = torch.empty(1, 3, protocol["window"], protocol["window"], device="meta")
    counts: list[float | None] = []
    for candidate in candidates:
        reducer = None if candidate.reducer is None else make_reducer(candidate.reducer)
        if reducer is not None and reducer.shapes_depend_on_content:
            counts.append(None)
            continue
        model.reducer = reducer
        counts.append(count_multiply_adds(model, image) / 1e9)
    return counts


def make_reducer(spec: Mapping[str, Any]) -> Any:
    """Make a reducer from its class path and settings.

    Raises:
        ExpediteError: The class is not there, is no reducer, or does not take these settings.
    """
    from ..reducers.base import Reducer

    module, _, name = spec["class_path"].rpartition(".")
    try:
        kind = getattr(importlib.import_module(module or "lightning_expedite.reducers"), name)
    except (ImportError, AttributeError) as error:
        raise ExpediteError(f"the reducer {spec['class_path']} of a result cannot be imported: {error}") from error
    if not (inspect.isclass(kind) and issubclass(kind, Reducer)):  # else a file of results could have anything called
        raise ExpediteError(f"{spec['class_path']}, which a result names as its reducer, is no reducer")
    try:
        return kind(**(spec.get("init_args") or {}))
    except TypeError as error:
        raise ExpediteError(
            f"the reducer {spec['class_path']} of a result no longer takes its settings: {error}"
        ) from error
