"""Reading of results, whole and damaged."""

import copy
import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from results_files import CLUSTERING, benchmark, row, scores, sweep, write

from lightning_expedite.analysis.cautions import cautions, missing
from lightning_expedite.analysis.comparison import compare
from lightning_expedite.analysis.front import views
from lightning_expedite.analysis.page import page
from lightning_expedite.analysis.per_class import class_table
from lightning_expedite.analysis.provenance import provenances
from lightning_expedite.analysis.runs import read_failures, read_runs
from lightning_expedite.analysis.text_tables import csv_table, latex_tables, markdown_table
from lightning_expedite.errors import DataError

TOME = ("ToMe", {"ratio": 0.5})
ODD = (None, True, -1, 0, 1e400, float("nan"), "", "text", [], [[]], {}, {"a": 1}, 10**400, "\ud800", [None] * 3)


def everything(folder):
    """All that is made of results, but for pictures."""
    subjects = compare(read_runs([folder]))
    tables = [table for subject in subjects if (table := class_table(subject))]
    said = cautions(subjects, read_failures([folder])), missing(subjects)
    csv_table(subjects).encode()
    latex_tables(subjects).encode()
    "".join(map(markdown_table, subjects)).encode()
    page(subjects, views(subjects), tables, [], provenances(subjects), *said).encode()


def error_of(folder):
    """The message of the one kind of error that damaged results may end in; ``None`` where there was none."""
    try:
        everything(folder)
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
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    draw = random.Random(0)
    for _ in range(100):
        cut = draw.randrange(1, len(whole) - 1)
        for damaged in (whole[:cut], whole[:cut] + b"\xff\x00" + whole[cut:], b"[" * cut):
            (tmp_path / kind).write_bytes(damaged)
            with pytest.raises(DataError, match=kind):
                read_runs([tmp_path])


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        (("scores", "mIoU"), "high", "scores.mIoU"),
        (("scores", "mIoU"), float("nan"), "scores.mIoU"),
        (("config", "model", "reducer", "class_path"), ..., "config.model.reducer.class_path"),
        (("per_class", 3, "IoU"), 101, "per_class.3.IoU"),
        (("images",), -1, "images"),
    ],
)
def test_the_damaged_place_is_named(tmp_path, path, value, place):
    write(tmp_path / "results.json", changed(scores(CLUSTERING), path, value))
    with pytest.raises(DataError, match=rf"results\.json is damaged .*: {place}: .*; run it again"):
        read_runs([tmp_path])


def test_a_times_row_without_its_reduced_side_is_damaged(tmp_path):
    write(tmp_path / "benchmark.json", changed(benchmark(row(TOME)), ("rows", 0, "latency", "reduced"), None))
    with pytest.raises(DataError, match="lacks the reduced side"):
        read_runs([tmp_path])


def test_a_deeply_nested_setting_is_refused(tmp_path):
    deep = []
    for _ in range(600):
        deep = [deep]
    write(tmp_path / "results.json", scores(("ToMe", {"ratio": deep})))
    with pytest.raises(DataError, match="levels deep"):
        read_runs([tmp_path])


@pytest.mark.parametrize(
    "line",
    [
        '{"index": 0}',
        "[]",
        "nonsense",
        '{"index": 0, "name": "a", "height": 1, "width": 1, "classes": [0, 1], "intersection": [1], "prediction": [1], '
        '"label": [1]}',
    ],
)
def test_a_damaged_line_of_an_image_is_named(tmp_path, line):
    write(tmp_path / "results.json", scores(images=1))
    (tmp_path / "images.jsonl").write_text(f"{line}\n")
    (run,) = read_runs([tmp_path])
    with pytest.raises(DataError, match=r"images\.jsonl"):
        _ = run.test.images


def test_scores_and_speeds_of_the_same_setting_make_one_run(tmp_path):
    runs = read_runs([sweep(tmp_path, 9)])
    assert len(runs) == 9
    assert all(run.test and run.speed for run in runs)
    assert runs[0].reducer is None


def test_of_several_scores_a_speed_is_given_the_one_of_its_precision_and_data(tmp_path):
    write(tmp_path / "a/results.json", scores(TOME, 1.0, data="Folder"))
    write(tmp_path / "b/results.json", scores(TOME, 2.0))
    bf16 = scores(TOME, 3.0)
    bf16["environment"]["precision"] = "bf16-true"
    write(tmp_path / "c/results.json", bf16)
    write(tmp_path / "d/benchmark.json", benchmark(row(TOME)))
    write(tmp_path / "e/benchmark.json", benchmark(row(TOME), precision="bf16-true"))
    found = {
        run.speed.content["settings"]["precision"]: run.test.path.parent.name
        for run in read_runs([tmp_path])
        if run.speed
    }
    assert found == {"32-true": "b", "bf16-true": "c"}


def test_two_measurements_of_one_setting_stay_apart(tmp_path):
    for name, loss in (("a", 1.0), ("b", 2.0)):
        write(tmp_path / f"{name}/test/results.json", scores(TOME, loss))
        write(tmp_path / f"{name}/benchmark/benchmark.json", benchmark(row(TOME, config=name)))
    runs = read_runs([tmp_path])
    assert [(run.name, run.test.path.parent.parent.name) for run in runs] == [("a", "a"), ("b", "b")]


def test_what_failed_is_read_from_sweeps_and_benchmarks(tmp_path):
    sweep(tmp_path, 3)
    write(tmp_path / "points/evit_9/failed.json", {"step": "test", "error": "memory ran out"})
    write(tmp_path / "more/benchmark.json", benchmark(failed=[{"config": "ade_none", "error": "no weights"}]))
    assert read_failures([tmp_path]) == [("ade_none", "no weights"), ("evit_9", "test: memory ran out")]


@pytest.mark.parametrize("content", [[], {"kind": "sweep"}, {}, "text", None])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    file = write(tmp_path / "some.json", content)
    with pytest.raises(DataError, match=r"some\.json is"):
        read_runs([file])
