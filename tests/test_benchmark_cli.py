"""``benchmark`` from the command line to its files."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console
from small_run import make_config

from lightning_expedite.benchmarking.tables import benchmark_table, caption
from lightning_expedite.errors import DataError

CONFIGS = Path(__file__).parents[1] / "configs"
QUICK = ("--device", "cpu", "--iterations", 5, "--seconds", 0.5, "--warmup", 1, "--batch_size", 2, "--whole_images", 1)


def demo(*names):
    return [word for name in names for word in ("--config", CONFIGS / f"demo_{name}.yaml")]


def rows_of(folder):
    return json.loads((folder / "benchmark.json").read_text())


def no_data(*_):
    raise DataError("no data")


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory):
    from lightning_expedite.cli import main

    output = tmp_path_factory.mktemp("benchmark") / "out"
    words = [*demo("ours", "none", "act"), *QUICK, "--output", output]
    assert main(["benchmark", *map(str, words)]) == 0
    return output


def test_every_config_makes_a_row_with_what_follows_from_its_parts(demo_run):
    content = rows_of(demo_run)
    assert content["kind"] == "benchmark"
    assert (content["notes"], content["failed"]) == ([], [])
    assert [row["config"] for row in content["rows"]] == ["demo_ours", "demo_none", "demo_act"]
    ours, none, act = content["rows"]
    for row in (ours, act):
        latency = row["latency"]
        assert latency["speedup"]["pairs"] == len(latency["seconds"]["unreduced"]) == 5
        ratios = torch.tensor(latency["seconds"]["unreduced"]) / torch.tensor(latency["seconds"]["reduced"])
        assert latency["speedup"]["median"] == pytest.approx(ratios.median().item())
        assert row["gflops"]["ratio"] == row["gflops"]["unreduced"] / row["gflops"]["reduced"]
        assert row["efficiency"] == latency["speedup"]["median"] / row["gflops"]["ratio"]
        assert row["throughput"]["batch_size"] == 2
        assert 1.8 < row["true_gflops"]["unreduced"] / row["gflops"]["unreduced"] < 2.5  # 2 per multiply-add
    assert ours["reducer"]["class_path"].endswith("TokenClustering")
    assert ours["reducer"]["init_args"]["clusters"] == [8, 8]
    assert ours["tokens"] == {
        "unreduced": 257,
        "attention": [257] * 4 + [65] * 8,
        "mlp": [257] * 4 + [65] * 8,
        "decoder": 64,
    }
    assert none["reducer"] is None
    assert none["latency"]["reduced"] is None
    assert (none["efficiency"], none["gflops"]["ratio"]) == (None, None)
    assert max(act["tokens"]["attention"]) < 257
    assert act["counted_on"] == "the first crop"
    assert none["gflops"]["unreduced"] == act["gflops"]["unreduced"] == ours["gflops"]["unreduced"]


def test_the_input_is_different_real_crops_and_the_parts_of_an_image_add_up(demo_run):
    for row in rows_of(demo_run)["rows"]:
        assert row["input"]["source"] == "Demo"
        assert row["input"]["size"] == [128, 128]
        assert row["input"]["crops"] >= 5
        assert row["model"] == {"checkpoint": "demo", "untrained": False}
        share = row["test_share"]
        whole = share["load_ms"] + share["transfer_ms"] + share["image_ms"]
        assert share["model_share"] == pytest.approx(share["window_ms"] * share["windows_per_image"] / whole)
        assert 0 < share["model_share"] < 1
        assert share["windows_per_image"] > 1


def test_the_environment_says_what_computed(demo_run):
    environment = rows_of(demo_run)["environment"]
    assert environment["device_type"] == "cpu"
    assert environment["precision"] == "32-true"
    assert environment["kernels"]["cpu_capability"] == torch.backends.cpu.get_cpu_capability()


def test_the_main_figures_are_a_line_per_config(demo_run):
    content = rows_of(demo_run)
    with (demo_run / "benchmark.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["config"] for line in lines] == ["demo_ours", "demo_none", "demo_act"]
    for line, row in zip(lines, content["rows"], strict=True):
        assert float(line["speedup"]) == row["latency"]["speedup"]["median"]
        assert float(line["latency_ms_unreduced"]) == row["latency"]["unreduced"]["median_ms"]
    assert lines[1]["latency_ms_reduced"] == ""
    assert lines[0]["reducer"] == "TokenClustering(location=4, clusters=[8, 8])"


def test_the_caption_names_the_pass_whose_peak_memory_is_measured(demo_run):
    content = rows_of(demo_run)
    assert {row["peak_memory_pass"] for row in content["rows"]} == {"timed"}
    assert "before it is compiled" not in caption(content)
    content["rows"][0]["peak_memory_pass"] = "uncompiled"
    assert "MiB: peak memory at batch 1 of the pass before it is compiled" in caption(content)


@pytest.mark.parametrize(("compiled", "each"), [("true", ["reset", "free"]), ("false", ["free"])])
def test_nothing_compiled_outlives_its_config(run, monkeypatch, compiled, each):
    done = []
    monkeypatch.setattr(torch._dynamo, "reset", lambda: done.append("reset"))
    monkeypatch.setattr("lightning_expedite.cli.benchmark.measure", no_data)
    monkeypatch.setattr("lightning_expedite.cli.benchmark.free_cached_memory", lambda: done.append("free"))
    assert run("benchmark", *demo("none", "ours"), *QUICK, "--compile", compiled, "--output", "out")[0] == 2
    assert done == 2 * each


def test_results_are_not_replaced_unasked(demo_run, fails):
    before = (demo_run / "benchmark.json").read_bytes()
    message = fails("benchmark", *demo("none"), *QUICK, "--output", demo_run)
    assert "benchmark.json exists already" in message
    assert (demo_run / "benchmark.json").read_bytes() == before


def test_results_of_an_earlier_call_do_not_outlive_one_that_failed(run, fails, demo_run, tmp_path, monkeypatch):
    output = tmp_path / "out"
    shutil.copytree(demo_run, output)
    words = ("benchmark", *demo("none"), *QUICK, "--output", output)
    with monkeypatch.context() as failing:
        failing.setattr("lightning_expedite.cli.benchmark.measure", no_data)
        assert run(*words, "--overwrite")[0] == 2
        content = rows_of(output)
        assert (content["rows"], content["failed"]) == ([], [{"config": "demo_none", "error": "no data"}])
        assert (output / "benchmark.csv").read_bytes() == b""
    assert run(*words)[0] == 0  # a file without results is in nobody's way
    assert len(rows_of(output)["rows"]) == 1
    assert "exists already" in fails(*words)


def test_names_are_shown_as_they_are(demo_run, capsys):
    content = rows_of(demo_run)
    content["rows"] = content["rows"][1:2]
    content["rows"][0]["config"] = "[red]one[/]\\"
    content["notes"] = ["[/blue]"]
    Console(width=150).print(benchmark_table(content))
    shown = capsys.readouterr().out
    assert "[red]one[/]\\ " in shown
    assert "note: [/blue]" in shown


def test_random_weights_demo_scenes_and_the_notes_about_both(run, tmp_path):
    path = tmp_path / "away.yaml"
    data = {"class_path": "ADE20K", "init_args": {"root": "no/such/folder"}}
    reducer = {"class_path": "ACT", "init_args": {"query_hashes": 16}}
    model = {"checkpoint": "demo", "window": 160, "stride": 128, "reducer": reducer}
    path.write_text(yaml.safe_dump({"data": data, "model": model}))
    words = ("--untrained", "true", "--batch_size", 1, "--whole_images", 0)
    status, out, _ = run("benchmark", "--config", path, *QUICK, *words)
    assert status == 0
    content = rows_of(tmp_path / "runs" / "benchmark_away")
    (row,) = content["rows"]
    assert row["input"] == {"source": "Demo", "size": [160, 160], "crops": 5}
    assert row["model"] == {"checkpoint": "demo", "untrained": True}
    assert row["throughput"]["batch_size"] == 1
    assert row["throughput"]["speedup"] == row["latency"]["speedup"]
    assert row["test_share"] is None
    notes = " ".join(content["notes"])
    for part in ("weights are untrained", "scores would be meaningless", "ACT", "ADE20K is not at no/such/folder"):
        assert part in notes
        assert part in " ".join(out.split())


def test_the_users_own_images_and_a_size_of_ones_own(run, config, tmp_path):
    options = ("--input_size", "64,96", "--model.reducer", "ToMe", "--model.reducer.ratio", "0.3")
    status, out, err = run("benchmark", "--config", config, *QUICK, *options, "--output", tmp_path / "out")
    assert (status, "Traceback" in err) == (0, False)
    (row,) = rows_of(tmp_path / "out")["rows"]
    assert (row["input"]["source"], row["input"]["size"]) == ("Folder", [64, 96])
    assert "published convention" in " ".join(out.split())
    assert "[1/1] small: latency" in err


def test_a_config_that_fails_is_told_of_after_the_others(run, config, data, tmp_path):
    bad = make_config(data, "bad.yaml", checkpoint="no/such/weights")
    output = tmp_path / "out"
    status, out, err = run("benchmark", "--config", bad, "--config", config, *QUICK, "--output", output)
    assert status == 2
    assert "Traceback" not in err
    (error,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert error.startswith("error: bad: checkpoint 'no/such/weights' is neither")
    assert err.splitlines()[-1] == error
    assert "small" in out
    content = rows_of(output)
    assert [row["config"] for row in content["rows"]] == ["small"]
    assert [failure["config"] for failure in content["failed"]] == ["bad"]


def test_weights_that_are_not_here_say_how_to_do_without(run, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no network")

    monkeypatch.setattr("lightning_expedite.models.zoo.download", refuse)
    monkeypatch.setenv("LIGHTNING_EXPEDITE_WEIGHTS", str(tmp_path))
    status, _, err = run("benchmark", "--config", CONFIGS / "ade_none.yaml", *QUICK)
    assert status == 2
    assert "are not on this machine" in err
    assert "--untrained true" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--iterations", 2), "iterations is 2: it must be 5 or more"),
        (("--warmup", 0), "warmup is 0"),
        (("--threads", 0), "--threads is 0"),
        (("--whole_images", -1), "--whole_images is -1"),
        (("--batch_size", 0), "batch_size is 0: it must be auto, or 1 or more"),
        (("--seconds", -1), "seconds is -1"),
        (("--query_scale", 2), "--query_scale is now in benchmarks/scaled_queries.py"),
        (("--act_gflops=3",), "--act_gflops is now in benchmarks/scaled_queries.py"),
        (("--input_size", "wide"), "--input_size is 'wide'"),
        (("--input_size", "64,64,64"), "--input_size is '64,64,64'"),
        (("--model.compile", "true"), "use --compile instead of --model.compile"),
        (("--trainer.devices", 2), "without Lightning's trainer"),
        (("--data", "CamVid", "--data.root", "no/such/folder"), "no/such/folder"),
        (("--precision", "8-true"), "precision is 8-true: expected one of 32-true"),
        (("--compile", "fast"), "compile is fast"),
        (("--device", "tpu"), "device is tpu: expected one of auto, cpu, cuda"),
        (("--batch_size", "many"), "batch_size is many"),
        (("--model.reducers", "ToMe"), "(did you mean --model.reducer?)"),
    ],
)
def test_mistakes_end_with_one_line(fails, words, part):
    assert part in fails("benchmark", *demo("none"), *words)


def with_options(folder, name, **options):
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"base": [str(CONFIGS / "demo_none.yaml")], **options}))
    return ("--config", path)


@pytest.mark.parametrize(
    ("option", "one", "other"),
    [("threads", 1, 2), ("precision", "bf16-mixed", "32-true"), ("iterations", 30, None), ("output", "a", "b")],
)
def test_options_of_all_configs_that_differ_between_them(run, fails, tmp_path, option, one, other, monkeypatch):
    configs = with_options(tmp_path, "one", **{option: one})
    configs += with_options(tmp_path, "other", **({option: other} if other else {}))
    message = fails("benchmark", *configs)
    assert f"--{option} is {other or 20} in config other and {one} in one" in message
    monkeypatch.setattr("lightning_expedite.cli.benchmark.measure", no_data)
    assert "no data" in run("benchmark", *configs, f"--{option}", one, "--output", "out")[2]


@pytest.mark.parametrize(("asked", "used"), [("bf16-mixed", "32-true"), ("16", "16-true"), (32, "bf16-true")])
def test_a_trainers_precision_that_would_not_be_used(fails, tmp_path, asked, used):
    words = (*demo("none"), *with_options(tmp_path, "half", trainer={"precision": asked}), "--precision", used)
    assert f"config half has trainer.precision {asked}" in fails("benchmark", *words)


@pytest.mark.parametrize(("asked", "used"), [("bf16-mixed", "bf16-mixed"), ("16", "16-mixed"), (32, "32-true")])
def test_a_trainers_precision_that_is_used(run, tmp_path, monkeypatch, asked, used):
    monkeypatch.setattr("lightning_expedite.cli.benchmark.measure", no_data)
    words = with_options(tmp_path, "half", trainer={"precision": asked})
    assert "no data" in run("benchmark", *words, "--precision", used)[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_here(fails):
    assert "use --device cpu" in fails("benchmark", *demo("none"), "--device", "cuda")


@pytest.mark.gpu
def test_a_gpu_is_timed_by_events_and_its_memory_read(run, tmp_path):
    words = (*demo("ours"), "--device", "cuda", *QUICK[2:], "--precision", "bf16-mixed", "--output", tmp_path / "out")
    status, _, _ = run("benchmark", *words)
    assert status == 0
    content = rows_of(tmp_path / "out")
    (row,) = content["rows"]
    assert row["peak_memory_mib"]["reduced"] > 1
    assert row["attention_kernels"]["unreduced"]
    assert content["environment"]["kernels"]["attention_enabled"]["math"] is True


@pytest.mark.slow
def test_compiled_sides_are_timed(run, tmp_path):
    words = (*demo("tome"), *QUICK, "--whole_images", 0, "--batch_size", 1, "--compile", "true", "--output", tmp_path)
    status, _, _ = run("benchmark", *words)
    assert status == 0
    content = rows_of(tmp_path)
    assert content["settings"]["compile"] is True
    assert content["rows"][0]["latency"]["speedup"]["pairs"] == 5
