"""The table of results: reading, pairing, comparing with the baseline, and damaged files."""

import copy
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recommend_files import counts_of, tome, write_test
from results_files import CLUSTERING, benchmark, row, scores, sweep, write

from lightning_expedite.analysis.report import make_report, report_files
from lightning_expedite.analysis.results import published_tables, read_results
from lightning_expedite.errors import DataError

ROOT = Path(__file__).parents[1]
ADE = "ade20k/seg_large_mask_640"
TOME = ("ToMe", {"ratio": 0.5})
ODD = (None, True, -1, 0, 1e400, float("nan"), "", "text", [], [[]], {}, {"a": 1}, 10**400, "\ud800", [None] * 3)


def error_of(folder):
    """The message of the one kind of error that damaged results may end in; ``None`` where there was none."""
    try:
        report_files(make_report([folder]))
    except DataError as error:
        return str(error)
    return None


def places(value, path=()):
    """The path of every value within a JSON document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def changed(content, path, value):
    """The document with another value at a path; one that is not JSON's stands for its removal."""
    if not path:
        return value
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content


@pytest.mark.parametrize("kind", ["results.json", "benchmark.json"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_result_ends_in_one_error_that_names_the_file_or_in_a_report(tmp_path, kind, data):
    content = scores(CLUSTERING, 1.0) if kind == "results.json" else benchmark(row(CLUSTERING, 1.5, 1.2))
    path = data.draw(st.sampled_from(list(places(content))))
    value = data.draw(st.sampled_from([*ODD, *([...] if path else [])]))
    write(tmp_path / "none/results.json", scores())
    file = write(tmp_path / "some" / kind, changed(content, path, value))
    message = error_of(tmp_path)
    assert message is None or str(file) in message
    assert message is None or len(message.splitlines()) == 1


@pytest.mark.parametrize("kind", ["results.json", "benchmark.json"])
def test_broken_bytes_end_in_one_error_that_names_the_file(tmp_path, kind):
    content = scores(CLUSTERING, 1.0) if kind == "results.json" else benchmark(row(CLUSTERING, 1.5, 1.2))
    whole = json.dumps(content).encode()
    for cut in random.Random(0).sample(range(1, len(whole) - 1), 100):
        for damaged in (whole[:cut], whole[:cut] + b"\xff\x00" + whole[cut:], b"[" * cut):
            (tmp_path / kind).write_bytes(damaged)
            with pytest.raises(DataError, match=kind):
                read_results([tmp_path])


DEEP = json.loads("[" * 600 + "]" * 600)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("scores", "mIoU"), "high", "scores.mIoU: .*; run it again"),
        (("scores", "mIoU"), float("nan"), "scores.mIoU: .*; run it again"),
        (("config", "model", "reducer", "class_path"), ..., "config.model.reducer.class_path: .*; run it again"),
        (("per_class", 3, "IoU"), 101, "per_class.3.IoU: .*; run it again"),
        (("images",), -1, "images: .*; run it again"),
        (("protocol", "window"), DEEP, "levels deep"),
        (("rows", 0, "latency", "reduced"), None, "lacks the figures of the reduced model"),
        (("rows", 0, "throughput", "batch_size"), 10**400, "throughput.batch_size: "),
    ],
)
def test_the_damaged_place_is_named(tmp_path, path, value, message):
    kind, content = ("benchmark", benchmark(row(TOME))) if path[0] == "rows" else ("results", scores(CLUSTERING))
    write(tmp_path / f"{kind}.json", changed(content, path, value))
    with pytest.raises(DataError, match=rf"{kind}\.json.* {message}"):
        read_results([tmp_path])


def test_scores_and_times_of_the_same_setting_make_one_row(tmp_path):
    table = read_results([sweep(tmp_path, 9)])
    assert len(table) == 9
    assert table[["mIoU", "latency_ms"]].notna().all(axis=None)
    assert table["is_baseline"].tolist() == [True] + 8 * [False]
    # The baseline has no benchmark of its own elsewhere: its times are those measured beside a reducer.
    write(tmp_path / "points/none/benchmark/benchmark.json", benchmark())
    assert read_results([tmp_path])["latency_ms"][0] == 20


def test_of_several_scores_a_timing_gets_the_one_of_its_precision_and_data(tmp_path):
    bf16 = scores(TOME, 3.0)
    bf16["environment"]["precision"] = "bf16-true"
    for name, content in {"a": scores(TOME, 1.0, data="Folder"), "b": scores(TOME, 2.0), "c": bf16}.items():
        write(tmp_path / name / "results.json", content)
    write(tmp_path / "d/benchmark.json", benchmark(row(TOME)))
    write(tmp_path / "e/benchmark.json", benchmark(row(TOME), precision="bf16-true"))
    table = read_results([tmp_path]).dropna(subset=["timing", "evaluation"])
    found = {
        one.precision: score.path.parent.name for one, score in zip(table["timing"], table["evaluation"], strict=True)
    }
    assert found == {"32-true": "b", "bf16-true": "c"}


def test_two_measurements_of_one_setting_stay_apart(tmp_path):
    for name, loss in (("a", 1.0), ("b", 2.0)):
        write(tmp_path / f"{name}/test/results.json", scores(TOME, loss))
        write(tmp_path / f"{name}/benchmark/benchmark.json", benchmark(row(TOME, config=name)))
    table = read_results([tmp_path])
    reduced = table[~table["is_baseline"]]
    assert reduced["setting"].tolist() == ["ToMe ratio 0.5 (a)", "ToMe ratio 0.5 (b)"]
    assert [one.path.parent.parent.name for one in reduced["evaluation"]] == ["a", "b"]


# --- Comparable or not (what the runs are of is in their files) -----------------------------------------------------


def of(weights="w", data="d", images=60, **more):
    return {"run": {"weights": {"checkpoint.pth": weights}, "data": {"images": images, "sha256": data, **more}}}


@pytest.mark.parametrize(
    ("baseline", "reduced", "reason"),
    [
        (of(), of(weights="x"), "the weights changed between the runs (checkpoint.pth)"),
        (of(), of(data="x"), "images or labels changed between the runs"),
        (of(), of(), None),
        (of(), of(data="x", files="of a later version"), None),
        (of(), {}, None),
        ({}, of(), None),
    ],
)
def test_runs_of_other_weights_images_or_labels_are_not_compared(tmp_path, baseline, reduced, reason):
    write(tmp_path / "none/results.json", scores(**baseline))
    write(tmp_path / "tome/results.json", scores(TOME, 1.0, **reduced))
    write(tmp_path / "speed/benchmark.json", benchmark(row(TOME, 1.5, 1.3)))
    report = make_report([tmp_path])
    tome_row = report.table.iloc[1]
    assert tome_row["obstacle"] == reason
    assert (tome_row["on_front"], tome_row["mIoU_difference"] == tome_row["mIoU_difference"]) == 2 * (reason is None,)
    assert report.cautions == ([f"Not compared with the baseline: ToMe ratio 0.5: {reason}."] if reason else [])
    text = report_files(report)["report.md"].decode()
    assert ("At most" in text) == (reason is None)
    assert f"{tome_row['mIoU']:.2f}" in text


def test_changed_labels_or_images_are_found_in_the_counts_and_digests_of_images(tmp_path):
    baseline = replace(counts_of(0.9), digests=tuple("abc" * 20))
    some = replace(counts_of(0.89), digests=tuple("abc" * 19 + "abd")).select(
        [f"image_{number}" for number in range(30, 60)]
    )
    write_test(tmp_path / "none", baseline, None)
    write_test(tmp_path / "a", counts_of(0.89, seed=1), tome(0.5))
    write_test(tmp_path / "b", some, tome(0.6))
    for number, changed in enumerate(("60 of 60, such as image_0", "1 of 30, such as image_59"), start=1):
        reduced = read_results([tmp_path]).iloc[number]
        assert reduced["obstacle"] == f"images or labels changed between the runs ({changed})"
        assert reduced["mIoU_difference"] != reduced["mIoU_difference"]


@pytest.mark.parametrize("short", ["tome", "none"])
def test_a_run_over_some_images_is_compared_on_the_images_that_both_have(tmp_path, short):
    """Case 23."""
    some = [f"image_{number}" for number in range(7, 31)]
    counts = {"none": counts_of(0.9), "tome": counts_of(0.8)}
    difference = counts["tome"].select(some).miou - counts["none"].select(some).miou
    whole = counts["tome"].miou - counts["none"].miou
    counts[short] = counts[short].select(some)
    for name, one in counts.items():
        partial = {"complete": name != short, "images_total": 60} | of(data=name, images=len(one.images))
        write_test(tmp_path / name, one, tome(0.5) if name == "tome" else None, **partial)
    report = make_report([tmp_path])
    reduced = report.table.iloc[1]
    assert reduced["mIoU_difference"] == pytest.approx(difference, abs=1e-12)
    assert abs(difference - whole) > 1e-3
    assert reduced["compared_images"] == 24
    assert "Compared with the baseline on the 24 images that both have: ToMe ratio 0.5." in report.cautions
    (tmp_path / short / "images.jsonl").unlink()
    assert "images.jsonl cannot be read" in read_results([tmp_path]).iloc[1]["obstacle"]


def test_a_sample_of_resident_memory_is_left_out(tmp_path):
    """Case 9: files of earlier versions have one sample of a CPU's memory, which two runs do not repeat."""
    for name, more in {"older": {}, "none": {"peak_memory_mib": None}, "new": {"peak_memory_source": "live"}}.items():
        write(tmp_path / name / "benchmark.json", benchmark(row(TOME) | more, threads=len(name)))
    write(tmp_path / "gpu/benchmark.json", benchmark(row(TOME), device_type="cuda"))
    table = read_results([tmp_path])
    known = table[table["peak_memory_mib"].notna()]
    assert {timing.path.parent.name for timing in known["timing"]} == {"new", "gpu"}
    assert (known["peak_memory_mib"] == 80).sum() == len(known) == 4  # baseline and reduced


# --- Published figures -------------------------------------------------------------------------------------------


def test_every_published_row_is_found_by_the_settings_of_its_config():
    stored = json.loads((ROOT / "tests/data/published.json").read_text())
    assert {name: published_tables()[name] for name in stored} == stored
    table = read_results([ROOT / "benchmarks/results/cpu_32-true.json"])
    names = ["published_mIoU", "published_gflops", "published_speedup"]
    assert len(table) == len(table[names].dropna().drop_duplicates()) == 39
    best = table[table["checkpoint"] == ADE].iloc[0]
    assert best[names].tolist() == [51.82, 658.98, 1]


@pytest.mark.parametrize(
    ("checkpoint", "method", "data"),
    [
        (ADE, ("TokenClustering", {"location": 10, "clusters": [28, 27]}), "ADE20K"),
        (ADE, ("TokenClustering", {"location": 10, "clusters": [28, 28], "iterations": 6}), "ADE20K"),
        (ADE, ("EViT", {"locations": [8, 14], "keep_rate": 0.9}), "ADE20K"),
        (ADE, ("ToMe", {"ratio": 0.25}), "ADE20K"),
        (ADE, ("ToMe", {"ratio": 0.2}), "Folder"),
        ("ade20k/seg_large_mask", ("ToMe", {"ratio": 0.2}), "ADE20K"),
    ],
)
def test_what_differs_in_anything_is_compared_with_no_published_row(tmp_path, checkpoint, method, data):
    write(tmp_path / "results.json", scores(method, checkpoint=checkpoint, data=data))
    assert read_results([tmp_path])["published_mIoU"].isna().all()


def test_what_failed_is_read_from_sweeps_and_benchmarks(tmp_path):
    sweep(tmp_path, 3)
    write(tmp_path / "points/evit_9/failed.json", {"step": "test", "error": "memory ran out"})
    write(tmp_path / "more/benchmark.json", benchmark(failed=[{"config": "ade_none", "error": "no weights"}]))
    assert read_results([tmp_path]).attrs["failures"] == [
        ("ade_none", "no weights"),
        ("evit_9", "test: memory ran out"),
    ]


@pytest.mark.parametrize("content", [[], {"kind": "sweep"}, {}, "text", None])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    file = write(tmp_path / "some.json", content)
    with pytest.raises(DataError, match=r"some\.json is"):
        read_results([file])
