"""Runs that are not alike are named."""

import pytest
from results_files import CLASSES, CLUSTERING, benchmark, row, scores, sweep, write

from lightning_expedite.analysis.report import make_report

TOME = ("ToMe", {"ratio": 0.5})


def said(folder):
    return make_report([folder]).cautions


def test_runs_that_are_alike_need_no_caution(tmp_path):
    sweep(tmp_path, 9)
    assert said(tmp_path) == []
    assert make_report([tmp_path]).missing == []


def other_scores(environment=None, protocol=None, **changes):
    content = scores(TOME, 1.0, **changes)
    content["environment"] |= environment or {}
    content["protocol"] |= protocol or {}
    return content


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (
            other_scores(images=3),
            ["Not compared with the baseline: ToMe ratio 0.5: it has other images or labels", "images.jsonl cannot be"],
        ),
        (
            other_scores(complete=False, images_total=9),
            ["Scores of only some of the data set's images: ToMe ratio 0.5."],
        ),
        (other_scores({"device": "Other"}), ["Scores were computed on several devices: Some Processor, Other."]),
        (other_scores({"precision": "bf16-true"}), ["Scores were computed at several precisions: 32-true, bf16-true."]),
        (other_scores({"commit": "beef"}), ["Scores are of several commits: c0ffee, beef."]),
        (other_scores({"torch": "1.2"}), ["Scores are of several versions of PyTorch: 9.8.7, 1.2."]),
        (other_scores(protocol={"window": 64}), ["The protocol differs in window: 128, 64."]),
        (other_scores(protocol={"stride": 64}), ["The protocol differs in stride: 96, 64."]),
        (other_scores(protocol={"short_side": 512}), ["The protocol differs in short_side: not set, 512."]),
        (other_scores(protocol={"scales": [1.0, 2.0]}), ["The protocol differs in scales: [1.0], [1.0, 2.0]."]),
        (other_scores(checkpoint="other"), ["Weights or data differ", "demo on Demo, split val; other on Demo"]),
        (other_scores(data="Folder"), ["Weights or data differ", "demo on Folder"]),
        (
            other_scores(classes=CLASSES[:5]),
            ["Not compared with the baseline: ToMe ratio 0.5: its classes are not those of the baseline."],
        ),
    ],
)
def test_scores_that_are_not_alike_are_named(tmp_path, content, parts):
    write(tmp_path / "none/results.json", scores())
    write(tmp_path / "some/results.json", content)
    text = said(tmp_path)[0]
    for part in parts:
        assert part in text


UNTRAINED = "Trained ones take the same time, except with a method that adapts to content (ACT)."


def untrained(line, **changes):
    line["model"] |= {"untrained": True}
    return line | changes


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (benchmark(row(TOME), device="Other"), ["Times were taken on several devices: Some Processor, Other."]),
        (benchmark(row(TOME), threads=8), ["Times were taken with several numbers of threads: 2, 8."]),
        (benchmark(row(TOME), compiled=True), ["Times were taken compiled in several ways: False, True."]),
        (benchmark(row(TOME), commit="beef"), ["Times are of several commits: c0ffee, beef."]),
        (benchmark(row(TOME) | {"commit": "beef"}), ["Times are of several commits: c0ffee, beef."]),
        (benchmark(row(TOME, batch=8)), ["Throughput is at several batch sizes: 4, 8."]),
        (benchmark(untrained(row(TOME))), [f"Times are of untrained weights: ToMe ratio 0.5. {UNTRAINED}"]),
        (
            benchmark(row(TOME), precision="bf16-true"),
            [
                "Times were taken at several precisions: 32-true, bf16-true.",
                "Scored at 32-true, timed at bf16-true: baseline, ToMe ratio 0.5.",
            ],
        ),
        (
            benchmark(row(TOME) | {"input": {"source": "Demo", "size": [64, 64]}}),
            [
                "Times are of several input sizes: 128 x 128, 64 x 64.",
                "Timed on inputs of another size than the scored windows: ToMe ratio 0.5.",
            ],
        ),
        (
            benchmark(row(TOME, baseline_ms=30.0)),
            [
                "The baseline took 20.00 to 30.00 ms in different rows (Some Processor, 2 threads, 32-true): "
                "the machine was not equally fast throughout, so compare speed-ups, not latencies."
            ],
        ),
        (benchmark(row(TOME, baseline_ms=21.5)), []),
        (benchmark(row(TOME), failed=[{"config": "a", "error": "b c"}]), ["a failed: b c"]),
    ],
)
def test_times_that_are_not_alike_are_named(tmp_path, content, parts):
    write(tmp_path / "none/results.json", scores())
    write(tmp_path / "tome/results.json", scores(TOME, 1.0))
    write(tmp_path / "a/benchmark.json", benchmark(row(None), row(CLUSTERING, 1.2, 1.1)))
    write(tmp_path / "ours/results.json", scores(CLUSTERING, 1.0))
    write(tmp_path / "b/benchmark.json", content)
    assert said(tmp_path) == parts
