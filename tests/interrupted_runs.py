"""What tests of interrupted runs share."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml
from processes import process_environment
from small_run import make_config, make_data

from lightning_expedite.evaluation.resume import read_records

TESTS = Path(__file__).parent
COUNTS = ("images", "images_total", "complete", "windows", "windows_unreduced", "scores", "per_class")
COUNTS += ("intersection", "union", "prediction", "label")
IMAGES = 5


def outcome(output):
    return json.loads((output / "results.json").read_text()), (output / "images.jsonl").read_text()


def finished(output, command="test"):
    """Records of the finished images in the folder of an interrupted run."""
    return read_records(Path(output) / f"unfinished_{command}")[0]


def same_counts(output, whole):
    (results, rows), (expected, expected_rows) = outcome(output), outcome(whole)
    assert rows == expected_rows
    for name in COUNTS:
        assert results[name] == expected[name]
    return results


def interrupt(run, stop, config, output, images=2, command="test"):
    stop(images)
    status, _, err = run(command, "--config", config, "--output", output)
    assert status == 1
    assert "--resume true continues" in err
    assert len(finished(output, command)) == images


def slow_config(folder, seconds):
    """A config whose images take so long, and the environment for a process that reads it."""
    content = yaml.safe_load(make_config(make_data(folder, count=IMAGES)).read_text())
    content["data"]["class_path"] = "slow_data.SlowFolder"
    config = folder / "slow.yaml"
    config.write_text(yaml.safe_dump(content))
    return config, process_environment(TESTS, SLOW_DATA_SECONDS=str(seconds))


def start(config, environment, output, *words, command="test"):
    words = [sys.executable, "-m", "lightning_expedite", command, "--config", config, "--output", output, *words]
    return subprocess.Popen(
        [str(word) for word in words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for_images(process, output, count, seconds=300, command="test"):
    """Wait until so many images are finished."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if len(finished(output, command)) >= count:
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    raise AssertionError(f"no {count} images within {seconds} s")


def kill(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
