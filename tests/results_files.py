"""Results as ``test`` and ``benchmark`` write them, with made-up figures."""

import json
from pathlib import Path

CLASSES = ("sky", "building", "tree", "grass", "road", "pavement", "lane mark", "car", "person", "pole", "sign")
CLUSTERING = ("TokenClustering", {"location": 4, "clusters": [8, 8]})
METHODS = {
    "ours": lambda step: ("TokenClustering", {"location": 4 + step % 4, "clusters": [16 - step, 16 - step]}),
    "evit": lambda step: ("EViT", {"locations": [4, 7, 10], "keep_rate": round(0.95 - 0.04 * step, 2)}),
    "tome": lambda step: ("ToMe", {"ratio": round(0.05 + 0.04 * step, 2)}),
    "act": lambda step: ("ACT", {"query_hashes": 32 - step}),
}


def reducer(method):
    """The mapping of a reducer from its class's name and settings; ``None`` stays none."""
    if method is None:
        return None
    name, settings = method
    return {"class_path": name if "." in name else f"lightning_expedite.reducers.{name}", "init_args": settings}


def scores(method=None, loss=0.0, *, checkpoint="demo", data="Demo", images=4, classes=CLASSES, **changes):
    """Content of ``results.json``: every class loses ``loss`` points, those further down the list more."""
    ious = [max(0.0, 90.0 - 2 * index % 60 - loss * (0.5 + index / len(classes))) for index in range(len(classes))]
    content = {
        "scores": {"mIoU": sum(ious) / len(ious), "aAcc": 94.0 - loss / 2, "mAcc": 91.0 - loss},
        "per_class": [{"name": name, "IoU": iou, "Acc": iou + 5} for name, iou in zip(classes, ious, strict=True)],
        "images": images,
        "images_total": images,
        "complete": True,
        "windows": 6 * images,
        "windows_unreduced": 0,
        "seconds": 1.5,
        "protocol": {"convention": "mmseg", "window": 128, "stride": 96, "short_side": None, "long_side": None}
        | {"normalization": "vit", "scales": [1.0], "mirror": False},
        "config": {
            "data": {"class_path": f"lightning_expedite.data.{data}", "init_args": {"root": "data", "split": "val"}},
            "model": {"checkpoint": checkpoint, "reducer": reducer(method), "convention": "mmseg"},
        },
        "environment": environment("32-true"),
    }
    return content | changes


def environment(precision, **changes):
    return {
        "lightning_expedite": "0.1.0",
        "commit": "c0ffee",
        "torch": "9.8.7",
        "device": "Some Processor",
        "device_type": "cpu",
        "precision": precision,
        "processes": 1,
        "threads": 2,
    } | changes


def row(method, ratio=1.0, speedup=1.0, *, config="some", checkpoint="demo", baseline_ms=20.0, batch=4):
    """A row of ``benchmark.json``; without a reducer it has one side."""
    reduced = method is not None

    def side(ms):
        return {"median_ms": ms, "q1_ms": 0.98 * ms, "q3_ms": 1.03 * ms, "p95_ms": 1.1 * ms, "n": 7}

    spread = {"median": speedup, "q1": 0.98 * speedup, "q3": 1.02 * speedup, "min": 0.9 * speedup, "max": 1.1 * speedup}
    return {
        "config": config,
        "reducer": reducer(method),
        "model": {"checkpoint": checkpoint, "untrained": False, "query_scale": 1.0},
        "input": {"source": "Demo", "size": [128, 128], "crops": 4},
        "gflops": {"unreduced": 8.0, "reduced": 8.0 / ratio if reduced else None, "ratio": ratio if reduced else None},
        "latency": {
            "unreduced": side(baseline_ms),
            "reduced": side(baseline_ms / speedup) if reduced else None,
            "speedup": {**spread, "pairs": 7 if reduced else 0},
        },
        "efficiency": speedup / ratio if reduced else None,
        "throughput": {
            "batch_size": batch,
            "unreduced": 1100 / baseline_ms,
            "reduced": 1100 * speedup / baseline_ms if reduced else None,
            "speedup": {**spread, "pairs": 7},
        },
        "peak_memory_mib": {"unreduced": 80.0, "reduced": 80.0 / ratio**0.5 if reduced else None},
        "peak_memory_pass": "timed",
    }


def benchmark(*rows, precision="32-true", compiled=False, failed=(), **changes):
    """Content of ``benchmark.json``."""
    return {
        "kind": "benchmark",
        "environment": environment(precision, **changes),
        "settings": {"precision": precision, "compile": compiled},
        "notes": [],
        "rows": list(rows),
        "failed": list(failed),
    }


def write(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def sweep(folder: Path, points: int = 9, classes=CLASSES, baseline: bool = True) -> Path:
    """The layout that a sweep leaves: the baseline, and settings of every method, each tested and timed."""
    if baseline:
        write(folder / "points/none/test/results.json", scores(classes=classes))
        write(folder / "points/none/benchmark/benchmark.json", benchmark(row(None, config="point")))
    for number in range(points - baseline):
        name = list(METHODS)[number % len(METHODS)]
        step = number // len(METHODS)
        strength = 1 + step + 0.4 * (number % len(METHODS))
        method = METHODS[name](step)
        point = folder / f"points/{name}_{step}"
        write(point / "test/results.json", scores(method, 0.2 * strength**1.5, classes=classes))
        timed = row(method, 1 + 0.12 * strength, 1 + 0.1 * strength - (0.15 if name == "act" else 0), config="point")
        write(point / "benchmark/benchmark.json", benchmark(timed))
        (point / "point.yaml").write_text("data: Demo\n")
    return folder
