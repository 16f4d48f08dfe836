"""Expected values: a part of them lies in tests/data, all of them in the reference data set beside the checkout."""

import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from conftest import SHARED, needs_shared
from safetensors import safe_open

from lightning_expedite.reducers import ACT, EViT, Reducer, TokenClustering, ToMe

DATA = Path(__file__).parent / "data"
REDUCERS = {"cluster": TokenClustering, "evit": EViT, "tome": ToMe, "act": ACT}


@dataclass(frozen=True)
class ParityCase:
    folder: str
    name: str
    reducer: str
    input: str
    convention: str
    settings: dict[str, Any] = field(hash=False)

    @property
    def bundled(self) -> bool:
        return f"{self.name}.logits" in tensor_names(DATA / "parity" / self.folder)

    @property
    def place(self) -> Path:
        return (DATA if self.bundled else SHARED) / "parity" / self.folder

    def make_reducer(self) -> Reducer | None:
        return None if self.reducer == "none" else REDUCERS[self.reducer](**self.settings)

    def tensors(self):
        with safe_open(self.place / "tensors.safetensors", "pt") as file:
            return file.get_tensor(self.input), file.get_tensor(f"{self.name}.logits")


@lru_cache
def tensor_names(folder: Path) -> tuple[str, ...]:
    path = folder / "tensors.safetensors"
    if not path.is_file():
        return ()
    with safe_open(path, "pt") as file:
        return tuple(file.keys())


def parity_cases() -> list[ParityCase]:
    contents = {path.parent.name: json.loads(path.read_text()) for path in (DATA / "parity").glob("*/cases.json")}
    return [
        ParityCase(folder, case["case"], case["reducer"], case["input"], content["convention"], case["settings"])
        for folder, content in sorted(contents.items())
        for case in content["cases"]
    ]


def parity_parameters():
    return [
        pytest.param(case, id=f"{case.folder}-{case.name}", marks=() if case.bundled else needs_shared)
        for case in parity_cases()
    ]


def folder_with_weights(name: str) -> Path:
    """Folder of a parity model: bundled where it is, else the reference data set's."""
    bundled = DATA / "parity" / name
    return bundled if (bundled / "checkpoint.pth").is_file() else SHARED / "parity" / name
