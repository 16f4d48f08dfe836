"""Results of made-up tests and benchmarks, in the layout of the real ones."""

import json

import numpy as np

from lightning_expedite.analysis.comparison import ImageCounts, mean_iou

TOME = "lightning_expedite.reducers.ToMe"
ENVIRONMENT = {
    "lightning_expedite": "0.1.0",
    "torch": "2.14.1",
    "device": "Test CPU",
    "device_type": "cpu",
    "precision": "32-true",
    "threads": 2,
}


def tome(ratio):
    return {"class_path": TOME, "init_args": {"ratio": ratio}}


def counts_of(quality, images=60, classes=6, seed=0, noise=0.02):
    """Counts in which a share ``quality`` of the pixels of every class is right; not all classes are in all images."""
    generator = np.random.default_rng(seed)
    label = generator.integers(500, 3000, (images, classes)) * (generator.random((images, classes)) < 0.7)
    share = np.clip(quality + noise * np.random.default_rng([seed, int(1e6 * quality)]).normal(size=label.shape), 0, 1)
    intersection = (label * share).astype(np.int64)
    names = tuple((number, f"image_{number}", 40, 50) for number in range(images))
    return ImageCounts(names, intersection, intersection + (label - intersection)[:, ::-1], label)


def images_of(counts):
    for number, (index, name, height, width) in enumerate(counts.images):
        parts = np.stack([counts.intersection[number], counts.prediction[number], counts.label[number]])
        classes = parts.any(axis=0).nonzero()[0]
        intersection, prediction, label = parts[:, classes].tolist()
        yield {
            "index": index,
            "name": name,
            "digest": (counts.digests or [None] * len(counts.images))[number],
            "height": height,
            "width": width,
            "classes": classes.tolist(),
            "intersection": intersection,
            "prediction": prediction,
            "label": label,
        }


def write_test(folder, counts, reducer, **changes):
    """Write what ``test`` leaves."""
    totals = {name: getattr(counts, name).sum(axis=0) for name in ("intersection", "union", "prediction", "label")}
    content = {
        "scores": {"mIoU": float(mean_iou(totals["intersection"], totals["union"])), "aAcc": None, "mAcc": None},
        "per_class": [{"name": str(number), "IoU": None} for number in range(counts.label.shape[1])],
        **{name: values.tolist() for name, values in totals.items()},
        "images": len(counts.images),
        "images_total": len(counts.images),
        "complete": True,
        "protocol": {"convention": "mmseg", "window": 128, "stride": 128},
        "config": {
            "data": {"class_path": "lightning_expedite.data.Demo", "init_args": {}},
            "model": {"checkpoint": "demo", "reducer": reducer},
        },
        "environment": ENVIRONMENT,
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(content))
    (folder / "images.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in images_of(counts)))


def write_benchmark(folder, *rows, checkpoint="demo", **environment):
    """Write what ``benchmark`` leaves; a row is a reducer, its time in ms and, if wanted, the spread of its passes."""
    content = {
        "kind": "benchmark",
        "environment": {**ENVIRONMENT, **environment},
        "settings": {"precision": "32-true", "compile": False},
        "rows": [row_of(*row, checkpoint=checkpoint) for row in rows],
        "failed": [],
        "notes": [],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmark.json").write_text(json.dumps(content))


def row_of(reducer, ms, spread=0.0, memory=100.0, checkpoint="demo"):
    """Return a row of a setting whose baseline takes 20 ms; at batch 4 both are twice as fast."""
    steps = np.linspace(-1, 1, 21)
    times = {"unreduced": np.full(21, 20.0), "reduced": ms * (1 + spread * steps)}
    ratios = times["unreduced"] / times["reduced"]
    middle, first, third = np.quantile(ratios, (0.5, 0.25, 0.75))
    speedup = {"median": middle, "q1": first, "q3": third, "pairs": 21}
    sides = ("unreduced", "reduced") if reducer else ("unreduced",)
    empty = {"reduced": None}
    return {
        "config": "none" if reducer is None else f"tome_{reducer['init_args']['ratio']}",
        "reducer": reducer,
        "model": {"checkpoint": checkpoint, "untrained": False},
        "input": {"source": "Demo", "size": [128, 128]},
        "gflops": {**empty, **{side: float(times[side].mean() / 10) for side in sides}, "ratio": None},
        "efficiency": None,
        "latency": {
            **empty,
            **{side: describe(times[side]) for side in sides},
            "speedup": speedup if reducer else {"median": 1.0, "q1": 1.0, "q3": 1.0, "pairs": 0},
            "seconds": {**empty, **{side: (times[side] / 1000).tolist() for side in sides}},
        },
        "throughput": {
            **empty,
            "batch_size": 4,
            **{side: 4 / (2 * float(np.median(times[side])) / 1000) for side in sides},
            "speedup": speedup,
            "seconds": {**empty, **{side: (2 * times[side] / 1000).tolist() for side in sides}},
        },
        "peak_memory_mib": {"unreduced": 200.0, "reduced": memory if reducer else None},
    }


def describe(times):
    median, first, third = np.quantile(times, (0.5, 0.25, 0.75))
    return {"median_ms": median, "q1_ms": first, "q3_ms": third}


QUALITIES = {0.1: 0.899, 0.2: 0.894, 0.3: 0.88, 0.4: 0.83}
MS = {0.1: 18.0, 0.2: 16.0, 0.3: 14.0, 0.4: 11.0}


def write_sweep(folder, images=60, benchmarked=True):
    """Write a sweep of ToMe: the baseline at 90% right pixels and four ratios, ever faster and worse."""
    for ratio, quality in {None: 0.9, **QUALITIES}.items():
        point = folder / "points" / ("none" if ratio is None else f"tome_ratio{ratio}")
        reducer = None if ratio is None else tome(ratio)
        write_test(point / "test", counts_of(quality, images), reducer)
        (point / "point.yaml").write_text("model: {}\n")
        if benchmarked:
            write_benchmark(point / "benchmark", (reducer, MS.get(ratio, 20.0)))
    return folder
