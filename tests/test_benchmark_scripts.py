"""The scripts that time the published rows."""

import importlib
import json
import sys
from pathlib import Path

import pytest
from tiny import noise, tiny_model

from lightning_expedite.benchmarking import count_multiply_adds, untrained_segmenter
from lightning_expedite.reducers import ACT

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
rows, picture, scaled_queries = (importlib.import_module(name) for name in ("rows", "picture", "scaled_queries"))
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("cpu_*.json"))


def test_demo_rows_are_measured_and_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    output = tmp_path / "cpu.json"
    words = ["--device", "cpu", "--batch_size", "1", "--seconds", "1", "--iterations", "5", "--whole_images", "0"]
    for _ in range(2):  # the second call keeps the row
        rows.main(["--demo", "--only", "demo_tome", "--output", str(output), *words])
    (row,) = json.loads(output.read_text())["rows"]
    assert (row["config"], row["latency"]["speedup"]["pairs"]) == ("demo_tome", 5)
    assert picture.main([str(output), "--docs", str(tmp_path)]) == 0
    assert "| ToMe, ratio 0.5 |" in (tmp_path / "tables" / "efficiency_cpu.md").read_text()


def test_queries_are_scaled_until_act_costs_what_is_asked():
    images = noise(1, 3, 64, 64)
    model = untrained_segmenter(tiny_model().architecture, "mmseg")
    baseline = count_multiply_adds(model, images) / 1e9
    model.reducer = ACT(16)
    goal = (count_multiply_adds(model, images) / 1e9 + baseline) / 2
    before = {name: parameter.clone() for name, parameter in model.state_dict().items()}
    factor = scaled_queries.calibrate_queries(model, images, goal)
    assert count_multiply_adds(model, images) / 1e9 == pytest.approx(goal, rel=0.01)
    for name, parameter in model.state_dict().items():
        scaled = before[name].clone()
        if name.startswith("encoder.blocks") and "attn.qkv" in name:
            scaled[: len(scaled) // 3] *= factor
        assert parameter.allclose(scaled, rtol=1e-4)


@pytest.mark.parametrize("results", RESULTS, ids=lambda path: path.stem)
def test_pictures_and_tables_in_the_docs_are_those_of_the_results(results):
    pytest.importorskip("matplotlib")
    assert picture.main([str(results), "--check"]) == 0
