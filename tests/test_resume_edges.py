"""Interrupted runs where little is left behind, or what is left is not as it was."""

import json
import os
import signal
import zlib
from pathlib import Path

import pytest
from interrupted_runs import IMAGES, interrupt, kill, outcome, same_counts, slow_config, start, wait_for_images
from small_run import make_config, make_data

from lightning_expedite.evaluation import locking
from lightning_expedite.evaluation.journal import JournalWriter, read_journal
from lightning_expedite.evaluation.locking import held
from lightning_expedite.evaluation.notices import Notices

pytestmark = pytest.mark.promise("resume")
RESUME = ("--resume", "true")


@pytest.fixture
def config(tmp_path):
    return make_config(make_data(tmp_path, count=IMAGES))


@pytest.mark.parametrize("command", ["test", "predict"])
def test_a_terminated_run_ends_at_once_and_goes_on(tmp_path, figure, command):
    config, environment = slow_config(tmp_path, 1.0)
    output = tmp_path / "out"
    process = start(config, environment, output, command=command)
    wait_for_images(process, output, 2, command=command)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM
    process.communicate()
    done = len(read_journal(output / f"unfinished_{command}").records)
    assert 2 <= done < IMAGES
    process = start(config, {**environment, "SLOW_DATA_SECONDS": "0"}, output, *RESUME, command=command)
    assert process.wait(120) == 0, process.communicate()[0]
    if command == "test":
        assert outcome(output)[0]["images_resumed"] == done
    else:
        assert len(list((output / "labels").rglob("*.png"))) == IMAGES
    figure("kills survived", 1)


def test_one_of_two_processes_that_is_terminated_ends_the_other(tmp_path, figure):
    config, environment = slow_config(tmp_path, 1.0)
    output = tmp_path / "out"
    process = start(config, environment, output, "--trainer.devices", "2", "--trainer.strategy", "ddp")
    try:
        wait_for_images(process, output, 2)
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        assert process.wait(20) == 75
        assert "--resume true" in process.communicate()[0]
    finally:
        if process.poll() is None:
            kill(process)
    figure("kills survived", 1)


def test_predict_goes_on_before_its_first_image_is_finished(run, stop, config):
    stop(0)
    assert run("predict", "--config", config, "--output", "out")[0] == 1
    (folder,) = Path("out").glob("unfinished_predict")
    (path,) = folder.iterdir()
    assert read_journal(folder).records == []
    picture = Path("out/labels/part0/0.png")  # as if it was killed after it was written
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"of unknown content")
    stop(None)
    assert run("predict", "--config", config, "--output", "out", *RESUME)[0] == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not path.exists()


def test_files_that_were_being_written_are_no_result(run, config):
    left = Path("out/labels/.0.png.x1y2")
    left.parent.mkdir(parents=True)
    left.touch()
    assert run("predict", "--config", config, "--output", "out", *RESUME)[0] == 0


def test_pictures_that_a_finished_run_has_lost_are_made_again(run, stop, config):
    assert run("predict", "--config", config, "--output", "out")[0] == 0
    lost = Path("out/labels/part1/3.png")
    content = lost.read_bytes()
    lost.unlink()
    labelled = stop(None)
    assert run("predict", "--config", config, "--output", "out", *RESUME)[0] == 0
    assert labelled == ["part1/3"]
    assert lost.read_bytes() == content


@pytest.mark.parametrize("line", [0, 1])
def test_one_damaged_line_about_the_run_loses_nothing(run, stop, config, line):
    interrupt(run, stop, config, "out", images=3)
    damage(Path("out/unfinished_test"), line)
    labelled = stop(None)
    with pytest.warns(UserWarning, match="1 lines in .* are damaged"):
        assert run("test", "--config", config, "--output", "out", *RESUME)[0] == 0
    assert len(labelled) == IMAGES - 3


def test_a_journal_that_does_not_say_what_it_is_of_is_not_thrown_away_in_silence(run, fails, stop, config):
    interrupt(run, stop, config, "out", images=3)
    damage(Path("out/unfinished_test"), 0, 1)
    stop(None)
    assert "holds 0 finished images of an interrupted run and 5 damaged lines" in fails(
        "test", "--config", config, "--output", "out"
    )
    with pytest.warns(UserWarning, match="5 lines in .* are damaged"):
        assert run("test", "--config", config, "--output", "out", *RESUME)[0] == 0
    assert outcome(Path("out"))[0]["images_resumed"] == 0


def damage(folder, *lines):
    (path,) = read_journal(folder).files
    content = path.read_bytes().split(b"\n")
    for line in lines:
        content[line] = content[line].replace(b'"command"', b'"commanx"')
    path.write_bytes(b"\n".join(content))


@pytest.mark.parametrize(
    "change",
    [
        {"index": "0"},
        {"index": [0]},
        {"index": -1},
        {"index": True},
        {"name": 3},
        {"counts": None},
        {"counts": [[1], [1]]},
        {"counts": [[1.5], [1], [1]]},
        {"counts": [[-1], [1], [1]]},
        {"counts": [[1, 2], [1], [1]]},
        {"size": [3]},
        {"windows": None},
        {"notices": "text"},
        {"notices": [1]},
    ],
    ids=str,
)
def test_a_record_that_nobody_wrote_is_computed_again(run, stop, config, change):
    assert run("test", "--config", config, "--output", "whole")[0] == 0
    interrupt(run, stop, config, "out")
    journal = read_journal(Path("out/unfinished_test"))
    path, kept = journal.files[0], len(journal.records)
    path.write_bytes(path.read_bytes() + line_of({**journal.records[0], "index": IMAGES - 1, **change}))
    stop(None)
    with pytest.warns(UserWarning, match="1 lines in .* are damaged"):
        assert run("test", "--config", config, "--output", "out", *RESUME)[0] == 0
    assert same_counts(Path("out"), Path("whole"))["images_resumed"] == kept


def line_of(record):
    text = json.dumps(record).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


@pytest.mark.parametrize("key", ["scores", "per_class", "images", "label", "seconds"])
def test_results_that_lack_something_are_not_shown(run, fails, config, key):
    words = ("test", "--config", config, "--output", "out")
    assert run(*words)[0] == 0
    path = Path("out/results.json")
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != key}))
    assert f"results.json is damaged or no result of test or benchmark: {key}" in fails(*words, *RESUME)
    assert run(*words, "--overwrite")[0] == 0


def test_parts_of_different_runs_may_be_replaced(run, fails, stop, config):
    interrupt(run, stop, config, "out")
    stop(None)
    JournalWriter(Path("out/unfinished_test"), {"command": "another"}).close()
    words = ("test", "--config", config, "--output", "out", *RESUME)
    assert "holds parts of different runs; give --overwrite to begin anew" in fails(*words)
    assert run(*words, "--overwrite")[0] == 0


def test_a_run_of_a_part_keeps_no_journal(run, stop, config):
    words = ("test", "--config", config, "--output", "out", "--trainer.limit_test_batches")
    stop(1)
    assert run(*words, "3")[0] == 1
    assert not Path("out/unfinished_test").exists()
    stop(None)
    assert run(*words, "3")[0] == 0
    assert run(*words, "1.0", "--overwrite", *RESUME)[0] == 0  # a share of 1.0 is all


def test_fewer_windows_at_once_may_go_on(run, stop, config):
    assert run("test", "--config", config, "--output", "whole")[0] == 0
    interrupt(run, stop, config, "out")
    stop(None)
    words = ("--model.window_batch_size", "1")
    assert run("test", "--config", config, "--output", "out", *RESUME, *words)[0] == 0
    assert same_counts(Path("out"), Path("whole"))["images_resumed"] == 2


def test_a_journal_that_was_not_put_away_is_after_the_results(run, stop, config):
    assert run("test", "--config", config, "--output", "out")[0] == 0
    interrupt(run, stop, config, "other")
    Path("other/unfinished_test").rename("out/unfinished_test")
    stop(None)
    assert run("test", "--config", config, "--output", "out", *RESUME)[0] == 0
    assert not Path("out/unfinished_test").exists()


def test_what_the_interrupted_part_warned_of_is_in_the_results(run, stop, config, monkeypatch):
    look = "lightning_expedite.evaluation.module.InputRange.look"
    monkeypatch.setattr(look, lambda *_: "the images look odd")
    interrupt(run, stop, config, "out")
    monkeypatch.setattr(look, lambda *_: None)
    stop(None)
    assert run("test", "--config", config, "--output", "out", *RESUME)[0] == 0
    assert "the images look odd" in json.loads(Path("out/results.json").read_text())["warnings"]
    notices = Notices()
    notices.recall(["one", "one", "two"])
    assert notices.texts == ["one", "two"]


def test_a_folder_is_held_on_a_full_disk(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(locking.os, "truncate", full)
    with held(tmp_path):
        assert (tmp_path / locking.LOCK_FILE).read_text() == ""
    assert not list(tmp_path.iterdir())
