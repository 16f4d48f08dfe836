"""Several processes give, whole number for whole number, what one gives."""

import json
import subprocess
import sys

import pytest
import torch
from processes import process_environment
from small_run import make_config, make_data

from lightning_expedite.cli import main

EVIT = {"class_path": "EViT", "init_args": {"locations": [2], "keep_rate": 0.6}}
COUNTS = ("images", "images_total", "complete", "windows", "windows_unreduced", "scores", "per_class")
COUNTS += ("intersection", "union", "prediction", "label", "warnings")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
DDP = ("--trainer.strategy", "ddp")
SLURM = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "job", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}


def read(output):
    return json.loads((output / "results.json").read_text()), (output / "images.jsonl").read_text()


def call(folder, words, launcher=(), **environment):
    command = [sys.executable, *launcher, "-m", "lightning_expedite", "test", *words]
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=180,
        cwd=folder,
        env=process_environment(**environment),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ddp")


@pytest.fixture(scope="module")
def one_process(folder):
    expected, threads = {}, torch.get_num_threads()
    torch.set_num_threads(1)  # as in the other processes
    for images in (4, 2):
        config = make_config(make_data(folder / f"data{images}", images), reducer=EVIT)
        config.write_text(config.read_text().replace("  devices: 1\n", ""))
        assert main(["test", "--config", str(config), "--output", str(folder / f"out{images}")]) == 0
        expected[images] = read(folder / f"out{images}")
    torch.set_num_threads(threads)
    return expected


@pytest.mark.parametrize(
    ("images", "processes", "words", "launcher"),
    [
        (4, 3, ("--trainer.devices", 3, *DDP), ()),
        (2, 3, ("--trainer.devices", 3, *DDP), ()),
        (4, 2, (), TORCHRUN),  # case 14
        (4, 2, ("--trainer.devices", 2, "--trainer.strategy", "ddp_fork"), ()),
    ],
    ids=["remainder", "fewer_images_than_processes", "torchrun", "fork"],
)
def test_processes_give_the_results_of_one(folder, one_process, images, processes, words, launcher):
    output = folder / "_".join(("out", *map(str, (images, processes, len(launcher), *words[-1:]))))
    done = call(folder, ["--config", folder / f"data{images}/small.yaml", "--output", output, *words], launcher)
    assert done.returncode == 0, done.stdout + done.stderr
    (results, rows), (expected, expected_rows) = read(output), one_process[images]
    assert (results["environment"]["processes"], results["environment"]["threads"]) == (processes, 1)
    assert rows == expected_rows
    assert len(rows.splitlines()) == images
    for name in COUNTS:
        assert results[name] == expected[name]
    assert results["run"]["data"] == expected["run"]["data"]


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
