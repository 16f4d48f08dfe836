"""The scripts in ``benchmarks``, and results files with made-up figures for them."""

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

rows, efficiency, picture, determinism = (
    importlib.import_module(name) for name in ("rows", "efficiency", "picture", "determinism")
)

DOCS, RESULTS = ROOT / "docs", ROOT / "benchmarks" / "results"
REDUCERS = {
    "ours": ("TokenClustering", {"location": 10, "clusters": [28, 28]}),
    "evit": ("EViT", {"locations": [8, 14, 20], "keep_rate": 0.8}),
    "tome": ("ToMe", {"ratio": 0.3}),
    "act": ("ACT", {"query_hashes": 32}),
}


def made_up_row(config, ratio, speedup, *, size=640, batch=1):
    name, settings = REDUCERS[config.split("_")[1]]
    ratios = {
        "median": speedup,
        "q1": speedup - 0.02,
        "q3": speedup + 0.01,
        "min": speedup - 0.04,
        "max": speedup + 0.05,
    }
    return {
        "config": config,
        "reducer": {"class_path": f"lightning_expedite.reducers.{name}", "init_args": settings},
        "model": {"checkpoint": "some", "untrained": True, "query_scale": 0.5 if name == "ACT" else 1.0},
        "input": {"source": "Photographs", "size": [size, size], "crops": 5},
        "gflops": {"unreduced": 600.0, "reduced": 600.0 / ratio},
        "latency": {
            "unreduced": {"median_ms": 3000.0},
            "reduced": {"median_ms": 3000.0 / speedup},
            "speedup": {**ratios, "pairs": 7},
        },
        "throughput": {
            "batch_size": batch,
            "unreduced": 0.5,
            "reduced": 0.5 * speedup,
            "speedup": {**ratios, "pairs": 6},
        },
    }


def made_up(*some, **environment):
    return {
        "environment": {
            "device": "Some Processor",
            "device_type": "cpu",
            "threads": 3,
            "torch": "9.8.7",
            "commit": "c0ffee",
            **environment,
        },
        "settings": {"precision": "bf16-true", "compile": False, "input_size": None, "untrained": True},
        "notes": ["a note of the benchmark"],
        "rows": list(some),
    }


def table_lines(text, panel):
    return [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith(f"| {panel}")
    ]
