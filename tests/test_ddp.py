"""Several processes give, whole number for whole number, what one gives."""

import json
import os
import subprocess
import sys

import pytest
import torch
from processes import TESTS, process_environment
from small_run import make_config, make_data

from lightning_expedite.cli import main

EVIT = {"class_path": "EViT", "init_args": {"locations": [2], "keep_rate": 0.6}}
COUNTS = ("images", "images_total", "complete", "windows", "windows_unreduced", "scores", "per_class")
COUNTS += ("intersection", "union", "prediction", "label", "warnings")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
DDP = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
PATIENT = ("--trainer.devices", "2", "--trainer.strategy", "DDPStrategy", "--trainer.strategy.timeout", "12:00:00")
SLURM = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "job", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}


def read(output):
    return json.loads((output / "results.json").read_text()), (output / "images.jsonl").read_text()


def call(folder, words, launcher=()):
    command = [sys.executable, *launcher, "-m", "lightning_expedite", "test", *words]
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env=process_environment(TESTS),
    )


@pytest.fixture(scope="module", autouse=True)
def _as_in_other_processes():
    threads, variables = torch.get_num_threads(), dict(os.environ)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    os.environ.clear()  # Lightning leaves there how it started processes from this one
    os.environ.update(variables)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ddp")


@pytest.fixture(scope="module")
def one_process(folder):
    expected = {}
    for images in (4, 2):
        config = make_config(make_data(folder / f"data{images}", images), reducer=EVIT)
        config.write_text(config.read_text().replace("  devices: 1\n", ""))
        assert main(["test", "--config", str(config), "--output", str(folder / f"out{images}")]) == 0
        expected[images] = read(folder / f"out{images}")
    return expected


@pytest.mark.parametrize(
    ("name", "images", "processes", "words", "launcher"),
    [
        ("even", 4, 2, PATIENT, ()),
        ("torchrun", 4, 2, (), TORCHRUN),  # case 14
        ("remainder", 4, 3, ("--trainer.devices", "3", "--trainer.strategy", "ddp_fork"), None),
        ("fewer_images_than_processes", 2, 3, ("--trainer.devices", "3", "--trainer.strategy", "ddp_fork"), None),
        ("spawn", 4, 2, ("--trainer.devices", "2", "--trainer.strategy", "ddp_spawn"), None),
    ],
)
def test_processes_give_the_results_of_one(folder, one_process, name, images, processes, words, launcher):
    output = folder / name
    words = ["--config", str(folder / f"data{images}/small.yaml"), "--output", str(output), *words]
    if launcher is None:
        assert main(["test", *words]) == 0
    else:
        done = call(folder, words, launcher)
        assert done.returncode == 0, done.stdout + done.stderr
    (results, rows), (expected, expected_rows) = read(output), one_process[images]
    assert (results["environment"]["processes"], results["environment"]["threads"]) == (processes, 1)
    assert rows == expected_rows
    assert len(rows.splitlines()) == images
    for key in COUNTS:
        assert results[key] == expected[key]
    assert results["run"]["data"] == expected["run"]["data"]


@pytest.mark.promise("out-of-memory")
def test_memory_that_runs_out_in_one_process_is_in_the_results(folder, one_process):
    words = ("--trainer.devices", "2", "--trainer.strategy", "ddp_fork")
    words += ("--trainer.callbacks+=one_process_fails.OutOfMemory", "--output", str(folder / "narrow"))
    assert main(["test", "--config", str(folder / "data4/small.yaml"), *words]) == 0
    results, expected = read(folder / "narrow")[0], one_process[4][0]
    assert results["intersection"] == expected["intersection"]
    (notice,) = (text for text in results["warnings"] if text not in expected["warnings"])
    assert notice.startswith("memory ran out with 4 windows at once, so 2 went through the model from then on")


@pytest.mark.promise("finite")
def test_nan_in_one_process_ends_all(folder, one_process):
    words = ["--config", folder / "data4/small.yaml", "--output", folder / "nan", *DDP]
    done = call(folder, [*words, "--trainer.callbacks+=one_process_fails.NaN"])
    assert done.returncode != 0
    assert "error: part0/2: the model's logits are NaN or infinite at precision 32-true" in done.stderr
    assert not (folder / "nan/results.json").exists()


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"SLURM_NTASKS": "4"}, "`--ntasks=4`"),
        ({"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_STEP_NUM_TASKS": "4"}, "set --trainer.devices"),
    ],
)
def test_slurm_tasks_that_do_not_fit_are_one_line(fails, config, monkeypatch, variables, says):
    """Case 14."""
    for name, value in {**SLURM, **variables}.items():
        monkeypatch.setenv(name, value)
    assert says in fails("test", "--config", config)
