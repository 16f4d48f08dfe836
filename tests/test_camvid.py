"""CamVid's validation split, whole, against the scores of the reference implementation."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import SHARED, needs_shared

ROOT = Path(__file__).parents[1]
CLASS = {"cluster": "TokenClustering", "evit": "EViT", "tome": "ToMe", "act": "ACT"}
EXPECTED = SHARED / "camvid" / "model" / "expected.json"
CASES: dict[str, Any] = {}
if EXPECTED.is_file():
    CASES = {case["case"]: case for case in json.loads(EXPECTED.read_text())["cases"]}


def evaluate(case: dict[str, Any], output: Path, processes: int) -> dict[str, Any]:
    words = ["--config", str(ROOT / "configs" / "camvid_none.yaml"), "--data.root", str(SHARED / "camvid")]
    words += ["--model.checkpoint", str(SHARED / "camvid" / "model"), "--output", str(output)]
    words += ["--trainer.accelerator", "cpu", "--trainer.devices", str(processes), "--data.num_workers", "1"]
    if case["reducer"] != "none":
        words += ["--model.reducer", CLASS[case["reducer"]]]
        words += [f"--model.reducer.{name}={value}" for name, value in case["settings"].items()]
    command = [sys.executable, "-m", "lightning_expedite", "test", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, env=environment, timeout=1800, capture_output=True)
    results: dict[str, Any] = json.loads((output / "results.json").read_text())
    return results


def check(case: dict[str, Any], results: dict[str, Any]) -> None:
    assert results["images"] == 101
    assert results["complete"]
    assert results["scores"]["mIoU"] == pytest.approx(case["mIoU"], abs=0.02)
    assert results["scores"]["aAcc"] == pytest.approx(case["aAcc"], abs=0.02)


@needs_shared
def test_unreduced_in_two_processes(tmp_path: Path) -> None:
    check(CASES["none"], evaluate(CASES["none"], tmp_path, processes=2))


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CASES))
def test_every_case_in_one_and_in_two_processes(name: str, tmp_path: Path) -> None:
    one = evaluate(CASES[name], tmp_path / "one", processes=1)
    check(CASES[name], one)
    two = evaluate(CASES[name], tmp_path / "two", processes=2)
    assert two["intersection"] == one["intersection"]
    assert two["union"] == one["union"]
