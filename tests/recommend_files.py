"""Results with counts of every image and passes of every timing, in the layout of the real ones."""

import json

import numpy as np
from results_files import benchmark, environment, reducer, row, scores, write

from lightning_expedite.analysis.comparison import ImageCounts, mean_iou

ENVIRONMENT = environment("32-true", device="Test CPU")
QUALITIES = {0.1: 0.899, 0.2: 0.894, 0.3: 0.88, 0.4: 0.83}
MS = {0.1: 18.0, 0.2: 16.0, 0.3: 14.0, 0.4: 11.0}


def tome(ratio):
    return reducer(("ToMe", {"ratio": ratio}))


def counts_of(quality, images=60, classes=6, seed=0, noise=0.02):
    """Counts in which a share ``quality`` of the pixels of every class is right; not all classes are in all images."""
    generator = np.random.default_rng(seed)
    label = generator.integers(500, 3000, (images, classes)) * (generator.random((images, classes)) < 0.7)
    share = np.clip(quality + noise * np.random.default_rng([seed, int(1e6 * quality)]).normal(size=label.shape), 0, 1)
    intersection = (label * share).astype(np.int64)
    names = tuple((number, f"image_{number}", 40, 50) for number in range(images))
    return ImageCounts(names, intersection, intersection + (label - intersection)[:, ::-1], label)


def images_of(counts):
    """The lines of ``images.jsonl``."""
    digests = counts.digests or [None] * len(counts.images)
    for number, image in enumerate(counts.images):
        line = dict(zip(("index", "name", "height", "width"), image, strict=True), digest=digests[number])
        pixels = {name: getattr(counts, name)[number] for name in ("intersection", "prediction", "label")}
        classes = np.stack([*pixels.values()]).any(axis=0).nonzero()[0]
        yield line | {"classes": classes.tolist()} | {name: one[classes].tolist() for name, one in pixels.items()}


def write_test(folder, counts, reducer, **changes):
    """Write what ``test`` leaves."""
    totals = {name: getattr(counts, name).sum(axis=0) for name in ("intersection", "union", "prediction", "label")}
    content = scores(images=len(counts.images), classes=[str(number) for number in range(counts.label.shape[1])])
    content["scores"] = {"mIoU": float(mean_iou(totals["intersection"], totals["union"])), "aAcc": None, "mAcc": None}
    content["config"]["model"]["reducer"] = reducer
    content |= {"environment": ENVIRONMENT, **{name: values.tolist() for name, values in totals.items()}, **changes}
    write(folder / "results.json", content)
    (folder / "images.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in images_of(counts)))


def write_benchmark(folder, *rows, **changes):
    """Write what ``benchmark`` leaves; a row is a reducer, its time in ms and, if wanted, spread and memory."""
    write(folder / "benchmark.json", benchmark(*(row_of(*one) for one in rows), **{"device": "Test CPU", **changes}))


def row_of(reducer, ms, spread=0.0, memory=100.0):
    """Return a row of a setting whose baseline takes 20 ms; at batch 4 both are twice as fast."""
    times = {"unreduced": np.full(21, 20.0), "reduced": ms * (1 + spread * np.linspace(-1, 1, 21))}
    ratios = times["unreduced"] / times["reduced"]
    speedup = describe(ratios, "") | {"pairs": 21}
    content = row(None, config="none" if reducer is None else f"tome_{reducer['init_args']['ratio']}")
    content |= {"reducer": reducer, "peak_memory_mib": {"unreduced": 200.0, "reduced": memory}}
    for side, values in times.items():
        if side == "unreduced" or reducer:
            content["gflops"][side] = float(values.mean() / 10)
            content["latency"][side] = describe(values, "_ms")
            content["throughput"][side] = 4 / (2 * float(np.median(values)) / 1000)
            content["throughput"].setdefault("seconds", {})[side] = (2 * values / 1000).tolist()
    content["latency"]["speedup"] = content["throughput"]["speedup"] = speedup
    return content


def describe(values, unit):
    return {
        f"{name}{unit}": np.quantile(values, share) for name, share in (("median", 0.5), ("q1", 0.25), ("q3", 0.75))
    }


def write_sweep(folder, images=60, benchmarked=True):
    """Write a sweep of ToMe: the baseline at 90% right pixels and four ratios, ever faster and worse."""
    for ratio, quality in {None: 0.9, **QUALITIES}.items():
        point = folder / "points" / ("none" if ratio is None else f"tome_ratio{ratio}")
        spec = None if ratio is None else tome(ratio)
        write_test(point / "test", counts_of(quality, images), spec)
        (point / "point.yaml").write_text("model: {}\n")
        if benchmarked:
            write_benchmark(point / "benchmark", (spec, MS.get(ratio, 20.0)))
    return folder
