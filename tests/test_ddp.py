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


def read(output):
    return json.loads((output / "results.json").read_text()), (output / "images.jsonl").read_text()


def evaluate(folder, images, processes, *launcher):
    """Evaluate the first images with some processes; returns results.json and images.jsonl."""
    config = folder / f"data{images}" / "small.yaml"
    output = folder / f"out{images}_{processes}_{len(launcher)}"
    command = [*(launcher or (sys.executable,)), "-m", "lightning_expedite", "test", "--config", config]
    command += ["--output", output, "--trainer.devices", processes, "--trainer.strategy", "ddp"]
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=180,
        cwd=folder,
        env=process_environment(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results, rows = read(output)
    assert results["environment"]["processes"] == processes
    assert results["environment"]["threads"] == 1
    return results, rows


COUNTS = ("images", "images_total", "complete", "windows", "windows_unreduced", "scores", "per_class")
COUNTS += ("intersection", "union", "prediction", "label")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ddp")


@pytest.fixture(scope="module")
def one_process(folder):
    expected, threads = {}, torch.get_num_threads()
    torch.set_num_threads(1)  # as in the other processes
    for images in (4, 2):
        config = make_config(make_data(folder / f"data{images}", images), reducer=EVIT)
        assert main(["test", "--config", str(config), "--output", str(folder / f"out{images}")]) == 0
        expected[images] = read(folder / f"out{images}")
    torch.set_num_threads(threads)
    return expected


@pytest.mark.parametrize(
    ("images", "processes"), [(4, 2), (4, 3), (2, 3)], ids=["even", "remainder", "fewer_images_than_processes"]
)
def test_processes_give_the_results_of_one(folder, one_process, images, processes):
    results, rows = evaluate(folder, images, processes)
    expected, expected_rows = one_process[images]
    assert rows == expected_rows
    assert len(rows.splitlines()) == results["images"] == images
    for name in COUNTS:
        assert results[name] == expected[name]
    assert results["complete"] is True


def test_torchrun_gives_the_results_of_one_process(folder, one_process):
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    results, rows = evaluate(folder, 4, 2, *torchrun)
    expected, expected_rows = one_process[4]
    assert rows == expected_rows
    for name in COUNTS:
        assert results[name] == expected[name]
