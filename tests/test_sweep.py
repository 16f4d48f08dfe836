"""Sweeps from end to end on a small data set: what they leave, resume, refuse and report."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from small_run import make_config
from sweep_run import BROKEN, ONE, TOME, prepare, steps_here  # noqa: F401 (a fixture)

from lightning_expedite.search import workers
from lightning_expedite.search.workers import open_study

ROOT = Path(__file__).parents[1]
NAMES = ["none", "tome_ratio0.2", "tome_ratio0.4"]
FILES = ["benchmark/benchmark.csv", "benchmark/benchmark.json", "log.txt", "point.yaml", "test/config.yaml"]
FILES += ["test/images.jsonl", "test/metrics.csv", "test/results.json"]


@pytest.fixture
def ran(steps_here, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.syspath_prepend(tmp_path)
    return steps_here


def results(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*.json"))}


def counts(out):
    return {path.parents[1].name: path.read_text() for path in out.rglob("images.jsonl")}


def test_a_sweep_leaves_a_test_and_a_benchmark_of_every_point(run, ran, tmp_path):
    words = [*prepare(tmp_path), "--model.stride", "64"]
    status, printed, _ = run(*words)
    assert (status, ran) == (0, [(name, step) for name in NAMES for step in ("test", "benchmark")])
    out = tmp_path / "out"
    assert "tome_ratio0.2: test took" in printed
    assert "lightning-expedite recommend out --max_loss 0.5" in printed
    content = json.loads((out / "sweep.json").read_text())
    assert (content["kind"], content["grid"]["entries"]) == ("sweep", [TOME])
    assert [point["name"] for point in content["points"]] == NAMES
    assert content["points"][0]["reducer"] is None
    assert content["points"][1]["reducer"]["init_args"]["ratio"] == 0.2
    for name in NAMES:
        folder = out / "points" / name
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        assert files == FILES
    assert len(set(counts(out).values())) == 3
    study = open_study(out, "test,benchmark", ["maximize", "minimize"])[0]
    assert {trial.user_attrs["point"]: trial.values[0] for trial in study.trials} == {
        name: json.loads((out / f"points/{name}/test/results.json").read_text())["scores"]["mIoU"] for name in NAMES
    }

    before = results(out)
    ran.clear()
    status, printed, _ = run(*words)
    assert (status, ran, results(out)) == (0, [], before)
    assert "3 of 3 points are done already: nothing to do" in printed

    point = out / "points/tome_ratio0.4/point.yaml"  # usable alone
    content = yaml.safe_load(point.read_text())
    assert content["model"]["stride"] == 64
    assert content["model"]["reducer"]["init_args"]["ratio"] == 0.4
    assert run("test", "--config", point)[0] == 0
    alone = tmp_path / "runs/tome_ratio0.4"  # a point is named after its folder
    assert (alone / "images.jsonl").read_text() == counts(out)["tome_ratio0.4"]


def test_results_that_are_missing_damaged_or_of_other_settings(run, fails, ran, tmp_path):
    words = prepare(tmp_path, ONE)
    assert run(*words)[0] == 0
    out = tmp_path / "out/points"
    damaged = out / "none/test/results.json"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    (out / "tome_ratio0.2/test/results.json").unlink()
    rows = out / "tome_ratio0.2/benchmark/benchmark.json"
    rows.write_text(json.dumps({**json.loads(rows.read_text()), "rows": []}))
    ran.clear()
    assert run(*words)[0] == 0
    assert ran == [("none", "test"), ("tome_ratio0.2", "test"), ("tome_ratio0.2", "benchmark")]
    assert json.loads(damaged.read_text())["images"] == 2

    before = results(out)
    ran.clear()
    message = fails(*words, "--model.stride", "64")
    assert "out/points/none/test/results.json was made with other settings (model.stride 48 instead of 64)" in message
    assert "--overwrite" in message
    assert message.endswith("Points with such results: none, tome_ratio0.2")
    message = fails(*words, "--benchmark.iterations", "6")
    assert "none/benchmark/benchmark.json was made with other settings (iterations 5 instead of 6)" in message
    assert (ran, results(out)) == ([], before)
    for expected in ([("none", "benchmark"), ("tome_ratio0.2", "benchmark")], []):  # what is as wanted is kept
        ran.clear()
        assert run(*words, "--benchmark.iterations", "6", "--overwrite")[0] == 0
        assert ran == expected


def test_a_point_that_fails_is_reported_and_tried_again_and_a_grid_may_grow_and_shrink(run, ran, tmp_path):
    words = [*prepare(tmp_path, BROKEN, ONE), "--steps", "test"]
    label = tmp_path / "labels/part0/0.png"
    label.rename(tmp_path / "kept.png")
    assert run(*words)[0] == 2
    failure = json.loads((tmp_path / "out/points/none/failed.json").read_text())
    assert "labels/part0/0.png" in failure["error"]  # an error of the user, in its own words
    assert "error:" not in failure["error"]
    (tmp_path / "kept.png").rename(label)
    ran.clear()
    status, printed, _ = run(*words)
    assert status == 2
    assert ran == [("none", "test"), ("broken", "test"), ("tome_ratio0.2", "test")]
    point = tmp_path / "out/points/broken"
    failure = {"step": "test", "error": "RuntimeError: broken on purpose"}
    assert json.loads((point / "failed.json").read_text()) == failure
    assert "broken: test failed: RuntimeError: broken on purpose" in printed
    assert "1 point is not finished" in printed
    assert 'raise RuntimeError("broken on purpose")' in (point / "log.txt").read_text()
    (tmp_path / "fixed").touch()
    ran.clear()
    assert run(*words)[0] == 0
    assert ran == [("broken", "test")]
    assert not (point / "failed.json").exists()
    for ratios, expected in (([0.2, 0.3], [("tome_ratio0.3", "test")]), ([0.3], [])):
        (tmp_path / "grid.yaml").write_text(yaml.safe_dump([{"class_path": "ToMe", "grid": {"ratio": ratios}}]))
        ran.clear()
        assert run(*words)[0] == 0
        assert ran == expected


def test_an_interrupted_sweep_goes_on_and_waits_for_others_in_one_line(run, ran, tmp_path, monkeypatch):
    def interrupt(point, steps, console):
        if point.name != "none":
            raise KeyboardInterrupt
        return run_point(point, steps, console)

    run_point = workers.run_point
    words = [*prepare(tmp_path, ONE), "--steps", "test"]
    with monkeypatch.context() as patch:
        patch.setattr(workers, "run_point", interrupt)
        status, _, error = run(*words)
    assert (status, error) == (130, "error: interrupted; the same command continues from here\n")
    ran.clear()
    others = iter((["tome_ratio0.9"], ["tome_ratio0.9"], []))
    monkeypatch.setattr(workers.Queue, "others_running", lambda queue: next(others))
    monkeypatch.setattr(workers, "_POLL_SECONDS", 0)
    status, printed, _ = run(*words, "--shard", "1/2")  # which has no effect any more
    assert (status, ran) == (0, [("tome_ratio0.2", "test")])
    assert printed.count("waiting for other workers: tome_ratio0.9\n") == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--model.windows", "3"), "windows"),
        (("--data", "NoSuchData"), "NoSuchData"),
        (("--trainer.devicez", "1"), "devicez"),
        (("--benchmark.iteration_count", "6"), "iteration_count"),
        (("--benchmark.iterations", "2"), "benchmark: iterations is 2: it must be 5 or more"),
        (("--trainer.precision", "bf16-mixed"), "--precision 32-true"),
        (("--model.checkpoint", "no/such"), "'no/such'"),
        (("--model.reducer", "ToMe"), "--model.reducer: sweep sets the reducer"),
        (("--model.reducer.ratio=0.2",), "--model.reducer.ratio: sweep sets the reducer"),
        (("--benchmark", "3"), "--benchmark is not an option of sweep"),
        (("--benchmark.output", "a"), "--benchmark.output is not an option of sweep"),
        (("--benchmark.data.root", "a"), "--benchmark.data.root is not an option of sweep"),
        (("--seconds", "3"), "--seconds"),
        (("--steps", "tests"), "--steps has 'tests'"),
        (("--shard", "4"), "--shard is '4'"),
    ],
)
def test_options_that_cannot_be_used_are_named_before_any_work(fails, ran, tmp_path, words, expected):
    assert expected in fails(*prepare(tmp_path), *words)
    assert not (tmp_path / "out").exists()


def test_torchrun_and_a_config_with_a_reducer_are_refused(fails, ran, tmp_path, monkeypatch):
    words = prepare(tmp_path)
    config = make_config(tmp_path, "reduced.yaml", reducer={"class_path": "ToMe", "init_args": {"ratio": 0.5}})
    assert f"config {config} has a reducer" in fails("sweep", "--config", config, *words[3:])
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "not started by torchrun" in fails(*words)


def test_help_and_mistakes_need_no_torch():
    program = (
        "import sys, time; start = time.process_time(); from lightning_expedite.cli import main\n"
        "try: status = main(sys.argv[1:])\n"
        "except SystemExit as stop: status = stop.code\n"
        "print(status, time.process_time() - start, 'torch' in sys.modules, 'optuna' in sys.modules)"
    )
    for words, expected in ((["--help"], "0"), (["--config", "a.yaml", "--grid", "no.yaml"], "2")):
        for command in ("sweep", "search") if words == ["--help"] else ("sweep",):
            done = subprocess.run(
                [sys.executable, "-c", program, command, *words], capture_output=True, text=True, check=True, cwd=ROOT
            )
            status, seconds, *heavy = done.stdout.splitlines()[-1].split()
            assert (status, heavy) == (expected, ["False", "False"])
            assert float(seconds) < 1.5
    assert done.stderr.startswith("error: --grid no.yaml cannot be read")


@pytest.mark.slow
def test_three_workers_one_of_them_killed_finish_every_point_once(tmp_path):
    config, grid = ROOT / "configs/demo_none.yaml", tmp_path / "grid.yaml"
    grid.write_text(yaml.safe_dump([{"class_path": "ToMe", "grid": {"ratio": [0.1, 0.2, 0.3, 0.4, 0.5]}}]))
    words = ["--config", config, "--grid", grid, "--output", tmp_path / "out", "--data.count", "2"]
    words += ["--trainer.accelerator", "cpu", "--benchmark.device", "cpu", "--benchmark.whole_images", "0"]
    words += ["--benchmark.seconds", "1", "--benchmark.iterations", "5"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lightning_expedite", "sweep", *map(str, words)]
    points = tmp_path / "out/points"
    with (tmp_path / "printed").open("w") as printed:
        started = [subprocess.Popen(command, stdout=printed, stderr=printed, env=environment) for _ in range(3)]
        end = time.monotonic() + 300
        while len(list(points.glob("*/test"))) < 3:  # each of them has a point
            assert time.monotonic() < end
            time.sleep(0.02)
        started[0].send_signal(signal.SIGKILL)
        assert [worker.wait(timeout=500) for worker in started] == [-signal.SIGKILL, 0, 0]
    names = {"none", *(f"tome_ratio0.{number}" for number in range(1, 6))}
    assert {path.parents[1].name for path in points.rglob("results.json")} == names
    assert {path.parents[1].name for path in points.rglob("benchmark.json")} == names
    assert not list(points.rglob("failed.json"))
    study = open_study(tmp_path / "out", "test,benchmark", ["maximize", "minimize"])[0]
    assert sorted(trial.user_attrs["attempt"] for trial in study.trials) == [1] * 6 + [2]
    assert {trial.user_attrs["point"] for trial in study.trials if trial.values} == names
    text = (tmp_path / "printed").read_text()
    assert all(text.count(f"{name}: test took") == text.count(f"{name}: benchmark took") == 1 for name in names)


@pytest.mark.slow
def test_tests_on_several_processes_give_what_one_gives(tmp_path, monkeypatch):
    words = [sys.executable, "-m", "lightning_expedite", *prepare(tmp_path, ONE), "--steps", "test"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for more in ([], ["--output", "several", "--trainer.devices", "2", "--trainer.strategy", "ddp"]):
        subprocess.run([*words, *more], check=True, env=environment, cwd=tmp_path)
    assert counts(tmp_path / "several") == counts(tmp_path / "out")
    result = json.loads((tmp_path / "several/points/none/test/results.json").read_text())
    assert result["environment"]["processes"] == 2
