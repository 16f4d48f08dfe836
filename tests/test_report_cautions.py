"""Runs that are not alike are named."""

import pytest
from results_files import CLASSES, CLUSTERING, benchmark, row, scores, sweep, write

from lightning_expedite.analysis.report import make_report

TOME = ("ToMe", {"ratio": 0.5})
SETTING = "ToMe ratio 0.5"
OTHER_IMAGES = f"Not compared with the baseline: {SETTING}: it has other images or labels"
UNTRAINED = "Trained ones take the same time, except with a method that adapts to content (ACT)."
DRIFT = "the machine was not equally fast throughout, so compare speed-ups, not latencies."


def test_runs_that_are_alike_need_no_caution(tmp_path):
    sweep(tmp_path, 9)
    report = make_report([tmp_path])
    assert report.cautions == report.missing == []


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"images": 3}, [OTHER_IMAGES, "images.jsonl cannot be"]),
        ({"complete": False, "images_total": 9}, [f"Scores of only some of the data set's images: {SETTING}."]),
        ({"device": "Other"}, ["Scores differ in device: Some Processor, Other."]),
        ({"precision": "bf16-true"}, ["Scores differ in precision: 32-true, bf16-true."]),
        ({"commit": "beef"}, ["Scores differ in commit: c0ffee, beef."]),
        ({"torch": "1.2"}, ["Scores differ in torch: 9.8.7, 1.2."]),
        ({"window": 64}, ["Scores differ in window: 128, 64."]),
        ({"stride": 64}, ["Scores differ in stride: 96, 64."]),
        ({"short_side": 512}, ["Scores differ in short side: not set, 512."]),
        ({"scales": [1.0, 2.0]}, ["Scores differ in scales: [1.0], [1.0, 2.0]."]),
        ({"checkpoint": "other"}, ["Weights or data differ", "demo on Demo, split val; other on Demo"]),
        ({"data": "Folder"}, ["Weights or data differ", "demo on Folder"]),
        (
            {"classes": CLASSES[:5]},
            [f"Not compared with the baseline: {SETTING}: its classes are not those of the baseline."],
        ),
    ],
)
def test_scores_that_are_not_alike_are_named(tmp_path, changes, parts):
    content = scores()
    write(tmp_path / "none/results.json", content)
    inner = {name: changes.keys() & content[name].keys() for name in ("environment", "protocol")}
    other = scores(TOME, 1.0, **{name: changes[name] for name in changes.keys() - set().union(*inner.values())})
    for section, names in inner.items():
        other[section] |= {name: changes[name] for name in names}
    write(tmp_path / "some/results.json", other)
    text = make_report([tmp_path]).cautions[0]
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (benchmark(row(TOME), device="Other"), ["Times differ in device: Some Processor, Other."]),
        (benchmark(row(TOME), threads=8), ["Times differ in threads: 2, 8."]),
        (benchmark(row(TOME), compiled=True), ["Times differ in compile: False, True."]),
        (benchmark(row(TOME), commit="beef"), ["Times differ in commit: c0ffee, beef."]),
        (benchmark(row(TOME) | {"commit": "beef"}), ["Times differ in commit: c0ffee, beef."]),
        (benchmark(row(TOME, batch=8)), ["Times differ in batch size: 4, 8."]),
        (
            benchmark(row(TOME) | {"model": {"checkpoint": "demo", "untrained": True}}),
            [f"Times are of untrained weights: {SETTING}. {UNTRAINED}"],
        ),
        (
            benchmark(row(TOME) | {"model": {"checkpoint": "demo", "query_scale": 8.0}}),
            ["Times differ in query scale: 1.0, 8.0."],
        ),
        (
            benchmark(row(TOME), precision="bf16-true"),
            [
                "Times differ in precision: 32-true, bf16-true.",
                f"Scored at 32-true, timed at bf16-true: baseline, {SETTING}.",
            ],
        ),
        (
            benchmark(row(TOME) | {"input": {"source": "Demo", "size": [64, 64]}}),
            [
                "Times differ in input size: 128 x 128, 64 x 64.",
                f"Timed on inputs of another size than the scored windows: {SETTING}.",
            ],
        ),
        (
            benchmark(row(TOME, baseline_ms=30.0)),
            [f"The baseline took 20.00 to 30.00 ms in different rows (Some Processor, 2 threads, 32-true): {DRIFT}"],
        ),
        (benchmark(row(TOME, baseline_ms=21.5)), []),
        (benchmark(row(TOME), failed=[{"config": "a", "error": "b c"}]), ["a failed: b c"]),
    ],
)
def test_times_that_are_not_alike_are_named(tmp_path, content, parts):
    for name, one in {"none": scores(), "tome": scores(TOME, 1.0), "ours": scores(CLUSTERING, 1.0)}.items():
        write(tmp_path / name / "results.json", one)
    write(tmp_path / "a/benchmark.json", benchmark(row(None), row(CLUSTERING, 1.2, 1.1)))
    write(tmp_path / "b/benchmark.json", content)
    assert make_report([tmp_path]).cautions == parts
