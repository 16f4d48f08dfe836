"""Sweeps from end to end on a small data set: what they leave, go on with, refuse and report."""

import json

import pytest
import yaml
from small_run import make_config
from sweep_run import ONE, TOME, WorkerHere, failure_of, prepare, steps_asked, trouble

from lightning_expedite.analysis.results import read_results
from lightning_expedite.search import running
from lightning_expedite.search.sharding import Shard, locked

NAMES = ["none", "tome_ratio0.2", "tome_ratio0.4"]
ALL_STEPS = [(name, step) for name in NAMES for step in ("test", "benchmark")]


@pytest.fixture(autouse=True)
def worker_here(monkeypatch, tmp_path):
    monkeypatch.setattr(running, "Worker", WorkerHere)
    monkeypatch.syspath_prepend(tmp_path)
    steps_asked()


def results(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*.json"))}


def counts(out):
    return {path.parents[1].name: path.read_text() for path in out.rglob("images.jsonl")}


def test_a_sweep_leaves_a_test_and_a_benchmark_of_every_point(run, tmp_path):
    status, printed, _ = run(*prepare(tmp_path), "--model.stride", "64")
    assert status == 0
    out = tmp_path / "out"
    assert steps_asked() == ALL_STEPS
    assert "tome_ratio0.2: test took" in printed
    assert "python -m lightning_expedite recommend out --max_loss 0.5" in printed
    content = json.loads((out / "sweep.json").read_text())
    assert content["kind"] == "sweep"
    assert content["grid"]["entries"] == [TOME]
    assert [point["name"] for point in content["points"]] == NAMES
    assert content["points"][0]["reducer"] is None
    assert content["points"][1]["reducer"]["init_args"] == {"ratio": 0.2}
    for name in NAMES:
        found = sorted(
            path.relative_to(out / "points" / name).as_posix() for path in (out / "points" / name).rglob("*")
        )
        assert found == [
            "benchmark",
            "benchmark/benchmark.csv",
            "benchmark/benchmark.json",
            "log.txt",
            "point.yaml",
            "test",
            "test/config.yaml",
            "test/images.jsonl",
            "test/metrics.csv",
            "test/results.json",
        ]
    table = read_results([out])
    assert table["name"].tolist() == NAMES
    assert table[["mIoU", "latency_ms"]].notna().all(axis=None)
    assert table["is_baseline"].tolist() == [True, False, False]
    assert len(set(counts(out).values())) == 3


def test_a_points_config_is_usable_alone(run, tmp_path):
    assert run(*prepare(tmp_path), "--model.stride", "64", "--steps", "test")[0] == 0
    point = tmp_path / "out/points/tome_ratio0.4/point.yaml"
    content = yaml.safe_load(point.read_text())
    assert content["base"] == ["../../../small.yaml"]
    assert content["model"]["stride"] == 64
    assert content["model"]["reducer"]["init_args"] == {"ratio": 0.4}
    assert set(content) == {"base", "model"}
    assert run("test", "--config", point)[0] == 0
    alone = tmp_path / "runs/tome_ratio0.4"  # a point is named after its folder
    assert (alone / "images.jsonl").read_text() == counts(tmp_path / "out")["tome_ratio0.4"]
    assert read_results([tmp_path / "out"])["name"].tolist() == NAMES


def test_what_is_done_is_skipped_and_what_is_not_whole_is_made_anew(run, tmp_path):
    words = prepare(tmp_path, ONE)
    assert run(*words)[0] == 0
    out = tmp_path / "out"
    before = results(out)
    steps_asked()
    status, printed, _ = run(*words)
    assert (status, steps_asked()) == (0, [])
    assert "2 of 2 points are done already" in printed
    assert results(out) == before
    half = out / "points/none/test/results.json"
    half.write_bytes(half.read_bytes()[:-40])
    (out / "points/tome_ratio0.2/test/results.json").unlink()
    rows = out / "points/tome_ratio0.2/benchmark/benchmark.json"
    rows.write_text(json.dumps({**json.loads(rows.read_text()), "rows": []}))
    assert run(*words)[0] == 0
    assert steps_asked() == [("none", "test"), ("tome_ratio0.2", "test"), ("tome_ratio0.2", "benchmark")]
    assert json.loads(half.read_text())["images"] == 2


def test_results_of_other_settings_are_refused_by_name_unless_they_may_be_replaced(run, fails, tmp_path):
    words = prepare(tmp_path, ONE)
    assert run(*words)[0] == 0
    out = tmp_path / "out"
    before = results(out)
    steps_asked()
    message = fails(*words, "--model.stride", "64")
    assert "out/points/none/test/results.json was made with other settings (model.stride 48 instead of 64)" in message
    assert "--overwrite" in message
    assert message.endswith("Points with such results: none, tome_ratio0.2")
    message = fails(*words, "--benchmark.iterations", "6")
    assert "none/benchmark/benchmark.json was made with other settings (iterations 5 instead of 6)" in message
    assert (steps_asked(), results(out)) == ([], before)
    assert run(*words, "--benchmark.iterations", "6", "--overwrite")[0] == 0
    assert steps_asked() == [("none", "benchmark"), ("tome_ratio0.2", "benchmark")]
    assert run(*words, "--benchmark.iterations", "6", "--overwrite")[0] == 0  # what is as wanted is never replaced
    assert steps_asked() == []


def test_a_longer_grid_adds_to_what_is_there(run, tmp_path):
    words = [*prepare(tmp_path), "--steps", "test"]
    assert run(*words)[0] == 0
    steps_asked()
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump([{"class_path": "ToMe", "grid": {"ratio": [0.2, 0.3, 0.4]}}]))
    assert run(*words)[0] == 0
    assert steps_asked() == [("tome_ratio0.3", "test")]


def test_a_point_that_fails_is_reported_and_tried_again(run, tmp_path):
    words = [*prepare(tmp_path, trouble("error"), ONE), "--steps", "test"]
    out = tmp_path / "out"
    status, printed, _ = run(*words)
    assert status == 2
    assert steps_asked() == [("none", "test"), ("trouble_kinderror", "test"), ("tome_ratio0.2", "test")]
    point = out / "points/trouble_kinderror"
    assert failure_of(point) == {"step": "test", "error": "RuntimeError: broken on purpose"}
    assert "trouble_kinderror: test failed: RuntimeError: broken on purpose" in printed
    assert "    RuntimeError: broken on purpose" in printed.splitlines()  # the log's last line
    assert "1 point is not finished" in printed
    assert 'raise RuntimeError("broken on purpose")' in (point / "log.txt").read_text()
    assert run(*words)[0] == 2
    assert steps_asked() == [("trouble_kinderror", "test")]
    (tmp_path / "mended").touch()
    assert run(*words)[0] == 0
    assert steps_asked() == [("trouble_kinderror", "test")]
    assert not (point / "failed.json").exists()


def test_an_error_that_the_user_can_mend_is_recorded_in_its_own_words(run, tmp_path):
    words = [*prepare(tmp_path), "--steps", "test"]
    (tmp_path / "labels/part0/0.png").unlink()
    assert run(*words)[0] == 2
    failure = failure_of(tmp_path / "out/points/none")
    assert failure["step"] == "test"
    assert "labels/part0/0.png" in failure["error"]
    assert "error:" not in failure["error"]


def test_shards_share_a_folder_and_do_every_point_once(run, tmp_path):
    words = [*prepare(tmp_path), "--steps", "test"]
    sweep_files = []
    status, printed, _ = run(*words, "--shard", "2/2")
    assert status == 0
    assert "2 points are not finished" in printed
    assert steps_asked() == [("tome_ratio0.2", "test")]
    sweep_files.append((tmp_path / "out/sweep.json").read_bytes())
    assert run(*words, "--shard", "1/2")[0] == 0
    assert steps_asked() == [("none", "test"), ("tome_ratio0.4", "test")]
    sweep_files.append((tmp_path / "out/sweep.json").read_bytes())
    assert sweep_files[0] == sweep_files[1]
    assert run(*words)[0] == 0
    assert steps_asked() == []


def test_two_processes_do_not_work_on_one_shard(fails, run, tmp_path):
    words = [*prepare(tmp_path), "--steps", "test"]
    with locked(tmp_path / "out", Shard(1, 2)):
        assert "another process works on shard 1/2 of out" in fails(*words, "--shard", "1/2")
        assert "in another division" in fails(*words)
        assert run(*words, "--shard", "2/2")[0] == 0
    assert run(*words)[0] == 0


def test_an_interrupted_sweep_says_so_and_goes_on(run, tmp_path, monkeypatch):
    class Interrupted(WorkerHere):
        def ask(self, job):
            if "none" not in job["log"] and job["kind"] != "resolve":
                raise KeyboardInterrupt
            return super().ask(job)

    words = [*prepare(tmp_path, ONE), "--steps", "test"]
    with monkeypatch.context() as patch:
        patch.setattr(running, "Worker", Interrupted)
        status, _, error = run(*words)
    assert (status, error) == (130, "error: interrupted; the same command goes on from here\n")
    steps_asked()
    assert run(*words)[0] == 0
    assert steps_asked() == [("tome_ratio0.2", "test")]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--model.stride", "100"), None),  # found where the model is put together, in the first point
        (("--model.windows", "3"), "windows"),
        (("--data", "NoSuchData"), "NoSuchData"),
        (("--trainer.devicez", "1"), "devicez"),
        (("--benchmark.iteration_count", "6"), "iteration_count"),
        (("--benchmark.iterations", "2"), "benchmark: --iterations is 2: it must be 5 or more"),
        (("--trainer.precision", "bf16-mixed"), "benchmark runs without Lightning's trainer, at --precision 32-true"),
        (("--model.checkpoint", "no/such"), "'no/such'"),
        (("--model.reducer", "ToMe"), "the grid gives the reducers"),
    ],
)
def test_options_that_cannot_be_used_are_found_before_any_work(fails, run, tmp_path, words, part):
    given = prepare(tmp_path)
    if part is None:
        assert run(*given, *words, "--steps", "test")[0] == 2
        assert "stride 100 is above window 64" in failure_of(tmp_path / "out/points/none")["error"]
        return
    assert part in fails(*given, *words)
    assert not (tmp_path / "out").exists()


def test_a_grid_that_cannot_be_used_is_found_before_any_work(fails, tmp_path):
    def message(*entries):
        text = fails(*prepare(tmp_path, TOME, *entries))
        assert f"--grid {tmp_path / 'grid.yaml'}: " in text
        assert not (tmp_path / "out").exists()
        return text

    assert "entry 2 (EViT): EViT needs keep_rate" in message({"class_path": "EViT", "init_args": {"locations": [1]}})
    assert "entry 2 (EViT): location 9 is not a layer" in message(
        {"class_path": "EViT", "init_args": {"locations": [9], "keep_rate": 0.5}}
    )
    assert "entry 2 (Tome): class_path 'Tome' is no reducer" in message({"class_path": "Tome"})
    same = {"class_path": "lightning_expedite.reducers.ToMe", "name": "again", "init_args": {"ratio": 0.2}}
    assert "entry 2 (ToMe): again_ratio0.2 has the same settings as tome_ratio0.2" in message(same)


def test_a_config_with_a_reducer_is_refused(fails, data, tmp_path):
    words = prepare(tmp_path)
    config = make_config(data, "reduced.yaml", reducer={"class_path": "ToMe", "init_args": {"ratio": 0.5}})
    message = fails("sweep", "--config", config, *words[3:])
    assert f"config {config} has a reducer" in message


@pytest.mark.slow
def test_tests_on_several_processes_give_what_one_gives(run, tmp_path):
    words = [*prepare(tmp_path, ONE), "--steps", "test"]
    assert run(*words)[0] == 0
    again = ["--output", "several", "--trainer.devices", "2", "--trainer.strategy", "ddp"]  # the last --output holds
    assert run(*words, *again)[0] == 0
    assert counts(tmp_path / "several") == counts(tmp_path / "out")
    result = json.loads((tmp_path / "several/points/none/test/results.json").read_text())
    assert result["environment"]["processes"] == 2
