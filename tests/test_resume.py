"""Interrupted runs: what is finished is kept, nothing is computed twice, and the integers are those of a whole run."""

import errno
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from data_files import picture, save
from hypothesis import given, settings
from hypothesis import strategies as st
from interrupted_runs import (
    IMAGES,
    finished,
    interrupt,
    kill,
    outcome,
    same_counts,
    slow_config,
    start,
    wait_for_images,
)
from PIL import Image
from small_run import make_config, make_data

from lightning_expedite.errors import OutputError
from lightning_expedite.evaluation import resume
from lightning_expedite.evaluation.module import SegmenterModule
from lightning_expedite.evaluation.notices import Notices
from lightning_expedite.evaluation.resume import LOCK_FILE, lock_folder, read_records

pytestmark = pytest.mark.promise("resume")
RESUME = ("--resume", "true")
TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp")


@pytest.fixture
def config(tmp_path):
    return make_config(make_data(tmp_path, count=IMAGES))


@pytest.fixture
def whole(run, config):
    assert run("test", "--config", config, "--output", "whole")[0] == 0
    return Path("whole").absolute()


# --- Records ----------------------------------------------------------------------------------------------------------


def record(index, **changes):
    counts = [[index * 1000 + value for value in range(7)] for _ in range(3)]
    return {
        **{"index": index, "name": f"part/Straße {index}\n", "size": [700, 900], "counts": counts},
        **{"windows": 4, "windows_unreduced": 0, **changes},
    }


def lines_of(records):
    return b"".join(json.dumps(each).encode() + b"\n" for each in records)


def test_what_several_processes_wrote_is_read_once(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines_of([record(0), record(2)]))
    (tmp_path / "b.jsonl").write_bytes(lines_of([record(1), record(2)]))
    records, damaged = read_records(tmp_path)
    assert sorted(records, key=lambda each: each["index"]) == [record(index) for index in range(3)]
    assert damaged == 0
    assert read_records(tmp_path / "missing") == ([], 0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_file_cut_off_anywhere_keeps_its_whole_lines(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("records") / "a.jsonl"
    content = lines_of([record(index) for index in range(4)])
    kept = content[: data.draw(st.integers(0, len(content)))]
    path.write_bytes(kept)
    assert read_records(path.parent) == ([record(index) for index in range(kept.count(b"\n"))], 0)


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
        {"counts": [[2], [1], [2]]},
        {"counts": [[1], [630001], [1]]},
        {"size": [3]},
        {"windows": None},
        {"notices": "text"},
        {"notices": [1]},
    ],
    ids=str,
)
def test_a_record_that_nobody_wrote_is_damaged(tmp_path, change):
    content = lines_of([record(0), {**record(1), **change}])
    (tmp_path / "a.jsonl").write_bytes(content + b"\0\0\n[1]\n" + b"[" * 9999 + b"\n")
    assert read_records(tmp_path) == ([record(0)], 4)


def test_a_record_of_a_test_has_counts(tmp_path):
    named = {"index": 1, "name": "b"}
    (tmp_path / "a.jsonl").write_bytes(lines_of([record(0), named]))
    assert read_records(tmp_path) == ([record(0), named], 0)
    assert read_records(tmp_path, counts=True) == ([record(0)], 1)


def test_an_image_takes_a_bounded_number_of_bytes():
    counts = [[10**9] * 150] * 3
    assert len(lines_of([record(10**6, counts=counts)])) < 300 + 40 * 150


# --- Within one process -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [1, 4])
def test_a_test_goes_on_where_it_was_interrupted(run, fails, stop, config, whole, images):
    interrupt(run, stop, config, "out", images)
    assert not Path("out/results.json").exists()
    message = fails("test", "--config", config, "--output", "out")
    assert f"holds {images} finished images of an interrupted run; use --resume true to continue it, or" in message
    labelled = stop(None)
    status, out, err = run("test", "--config", config, "--output", "out", *RESUME)
    assert status == 0, err
    assert len(labelled) == IMAGES - images
    results = same_counts(Path("out"), whole)
    assert results["images_resumed"] == images
    assert results["run"] == outcome(whole)[0]["run"]
    assert f"{IMAGES}: {images} of an interrupted run, {IMAGES - images} in" in out
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(path.name for path in whole.iterdir())
    before = Path("out/results.json").read_bytes()
    status, out, _ = run("test", "--config", config, "--output", "out", *RESUME)
    assert status == 0
    assert "nothing was left to do" in out
    assert "mIoU" in out
    assert Path("out/results.json").read_bytes() == before


def test_interruptions_may_repeat(run, stop, config, whole):
    words = ("test", "--config", config, "--output", "out", *RESUME, "--trainer.enable_progress_bar")
    for done, bar in enumerate(("false", "true", "false", "true"), start=1):  # how a run is shown does not matter
        stop(1)
        assert run(*words, bar)[0] == 1
        assert len(finished("out")) == done
    labelled = stop(None)
    assert run(*words, "true", "--model.window_batch_size", "1")[0] == 0  # nor how the work is divided
    assert len(labelled) == IMAGES - 4
    same_counts(Path("out"), whole)


def test_all_images_may_be_finished_already(run, stop, config, whole, monkeypatch):
    monkeypatch.setattr(SegmenterModule, "on_test_epoch_end", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run("test", "--config", config, "--output", whole.parent / "out")[0] == 1
    monkeypatch.undo()
    labelled = stop(None)
    assert run("test", "--config", config, "--output", whole.parent / "out", *RESUME)[0] == 0
    assert labelled == []
    same_counts(whole.parent / "out", whole)


def change_label(config):
    path = config.parent / "labels" / "part0" / "0.png"
    with Image.open(path) as label:
        changed = label.point(lambda value: 0 if value == 1 else value)
    changed.save(path)


def change_image(config):
    save(config.parent / "images" / "part0" / "0.png", picture(64, 64, seed=99) // 2)


def take_image_away(config):
    for folder in ("images", "labels"):
        (config.parent / folder / "part0" / "4.png").unlink()


def change_weights(config):
    path = config.parent / "weights" / "checkpoint.pth"
    content = torch.load(path, weights_only=True)
    next(value for value in content["model"].values() if value.is_floating_point()).mul_(1.001)
    torch.save(content, path)


@pytest.mark.parametrize(
    ("change", "words", "part"),
    [
        (None, ("--model.stride", "56"), "settings.model.stride 48 instead of 56"),
        (None, ("--model.reducer", "ToMe", "--model.reducer.ratio", "0.3"), "settings.model.reducer null instead"),
        (None, ("--trainer.precision", "bf16-true"), 'trainer.precision null instead of "bf16-true"'),
        (None, ("--data.short_side", "70"), "settings.data.init_args.short_side null instead of 70"),
        (change_label, (), "the files of image part0/0 have changed"),
        (change_image, (), "the files of image part0/0 have changed"),
        (take_image_away, (), "data.images 5 instead of 4"),
        (change_weights, (), "weights.checkpoint.pth"),
    ],
)
def test_what_has_changed_is_refused_by_name(run, fails, stop, config, model_folder, change, words, part):
    settings = ("--model.checkpoint", str(model_folder))
    stop(2)
    assert run("test", "--config", config, "--output", "out", *settings)[0] == 1
    stop(None)
    if change:
        change(config)
    command = ("test", "--config", config, "--output", "out", *settings, *RESUME, *words)
    message = fails(*command)
    assert "2 finished images of an interrupted run that was another" in message
    assert part in message
    assert len(finished("out")) == 2
    assert run(*command, "--overwrite")[0] == 0
    assert outcome(Path("out"))[0]["images_resumed"] == 0


def test_results_of_another_run_are_not_taken_for_this_ones(run, fails, config):
    assert run("test", "--config", config, "--output", "out")[0] == 0
    before = outcome(Path("out"))[0]["run"]["data"]
    words = ("test", "--config", config, "--output", "out", *RESUME)
    assert "is of another run (settings.model.stride 48 instead of 56)" in fails(*words, "--model.stride", "56")
    change_image(config)
    assert "results.json is of another run (data.files" in fails(*words)
    assert run(*words, "--overwrite")[0] == 0
    content = outcome(Path("out"))[0]
    assert (content["run"]["data"]["sha256"] != before["sha256"], content["images_resumed"]) == (True, 0)
    del content["run"]
    Path("out/results.json").write_text(json.dumps(content))
    assert "does not say what it depends on" in fails(*words)


def test_digests_tell_which_images_and_labels_were_read(run, config, whole):
    rows = [json.loads(line) for line in (whole / "images.jsonl").read_text().splitlines()]
    change_label(config)
    assert run("test", "--config", config, "--output", "out")[0] == 0
    changed = [json.loads(line) for line in Path("out/images.jsonl").read_text().splitlines()]
    assert [one["digest"] == other["digest"] for one, other in zip(rows, changed, strict=True)] == [False] + [True] * 4


@pytest.mark.parametrize("key", ["scores", "per_class", "images", "label", "seconds"])
def test_results_that_lack_something_are_not_shown(run, fails, config, key):
    words = ("test", "--config", config, "--output", "out")
    assert run(*words)[0] == 0
    path = Path("out/results.json")
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != key}))
    assert f"results.json is damaged or not a result of test or benchmark: {key}" in fails(*words, *RESUME)


def test_a_damaged_image_is_replaced_and_the_run_goes_on(run, fails, stop, config, whole):
    last = config.parent / "labels" / "part1" / "3.png"
    content = last.read_bytes()
    last.write_bytes(content[: len(content) // 2])
    assert f"{last.name}" in fails("test", "--config", config, "--output", "out")
    done = len(finished("out"))
    last.write_bytes(content)
    assert run("test", "--config", config, "--output", "out", *RESUME)[0] == 0
    assert same_counts(Path("out"), whole)["images_resumed"] == done > 0


def test_some_of_the_images_cannot_be_resumed(run, fails, stop, config):
    words = ("test", "--config", config, "--output", "out", "--trainer.limit_test_batches")
    assert "leave trainer.limit_test_batches out" in fails(*words, "1", *RESUME)
    stop(1)
    assert run(*words, "3")[0] == 1
    assert not Path("out/unfinished_test").exists()
    stop(None)
    assert run(*words, "3")[0] == 0
    assert run(*words, "1.0", "--overwrite", *RESUME)[0] == 0  # a share of 1.0 is all


def test_damaged_lines_are_computed_again(run, stop, config, whole):
    interrupt(run, stop, config, "out", images=3)
    (path,) = Path("out/unfinished_test").glob("*.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"windows"', b'"windowz"', 1))
    labelled = stop(None)
    with pytest.warns(UserWarning, match="1 lines in .* are damaged"):
        assert run("test", "--config", config, "--output", "out", *RESUME)[0] == 0
    assert len(labelled) == IMAGES - 2
    same_counts(Path("out"), whole)


def test_records_of_an_unknown_run_are_refused(run, fails, stop, config):
    interrupt(run, stop, config, "out", images=3)
    Path("out/unfinished_test/run.json").write_text("{")
    stop(None)
    words = ("test", "--config", config, "--output", "out", *RESUME)
    assert "3 finished images of an interrupted run that was another (run.json is missing or damaged)" in fails(*words)
    assert run(*words, "--overwrite")[0] == 0


def test_records_that_a_killed_run_did_not_remove(run, stop, config, whole):
    interrupt(run, stop, config, "other")
    Path("other/unfinished_test").rename(whole / "unfinished_test")
    stop(None)
    assert run("test", "--config", config, "--output", whole, *RESUME)[0] == 0
    assert not (whole / "unfinished_test").exists()


def test_what_the_interrupted_run_warned_of_is_in_the_results(run, stop, config, monkeypatch):
    check = "lightning_expedite.evaluation.module.FirstImages.check"
    monkeypatch.setattr(check, lambda *_: ["the images look odd"])
    interrupt(run, stop, config, "out")
    monkeypatch.setattr(check, lambda *_: [])
    stop(None)
    assert run("test", "--config", config, "--output", "out", *RESUME)[0] == 0
    assert "the images look odd" in outcome(Path("out"))[0]["warnings"]
    notices = Notices()
    notices.recall(["one", "one", "two"])
    assert notices.texts == ["one", "two"]


def test_predict_goes_on_and_makes_pictures_that_are_missing(run, fails, stop, config):
    words = ("predict", "--config", config, "--overlay")
    assert run(*words, "--output", "whole")[0] == 0
    stop(3)
    assert run(*words, "--output", "out")[0] == 1
    assert "3 finished images of an interrupted run; use --resume true" in fails(*words, "--output", "out")
    done = [each["name"] for each in finished("out", "predict")]
    Path(f"out/overlays/{done[1]}.png").unlink()
    labelled = stop(None)
    assert run(*words, "--output", "out", *RESUME)[0] == 0
    assert done[1] in labelled
    assert len(labelled) == IMAGES - 2
    for path in Path("whole").rglob("*.png"):
        assert (Path("out") / path.relative_to("whole")).read_bytes() == path.read_bytes()
    assert len(list(Path("out").rglob("*.png"))) == 2 * IMAGES
    for lost in ([], [f"out/labels/{done[0]}.png"]):
        labelled.clear()
        for name in lost:
            Path(name).unlink()
        assert run(*words, "--output", "out", *RESUME)[0] == 0
        assert labelled == ([done[0]] if lost else [])
    assert "exists already" in fails(*words, "--output", "out")
    assert "is of another run" in fails("predict", "--config", config, "--output", "out", *RESUME)


def test_predict_goes_on_before_its_first_image_is_finished(run, stop, config):
    stop(0)
    assert run("predict", "--config", config, "--output", "out")[0] == 1
    assert finished("out", "predict") == []
    written = Path("out/labels/part0/0.png")  # as if the run was killed after it was written
    written.parent.mkdir(parents=True)
    written.write_bytes(b"of unknown content")
    written.with_name(".0.png.x1y2").touch()
    stop(None)
    assert run("predict", "--config", config, "--output", "out", *RESUME)[0] == 0
    assert written.read_bytes().startswith(b"\x89PNG")
    assert not Path("out/unfinished_predict").exists()


def test_predict_replaces_only_what_it_wrote(run, fails, config):
    """Case 21 and 22: maps of other images do not stay, and files of others are never touched."""
    for name in ("first", "second"):
        save(Path(name) / f"{name}.png", picture(64, 64))
    words = ("predict", "--config", config, "--output", "out", "--images")
    assert run(*words, "first", "--overlay")[0] == 0
    assert run(*words, "second", "--overwrite")[0] == 0
    assert [str(path) for path in Path("out").rglob("*.png")] == ["out/labels/second.png"]
    assert "--images is empty" in fails(*words, "")


@pytest.mark.parametrize(
    "prepare",
    [
        lambda labels: save(labels / "first.png", picture(64, 64)[..., 0]),
        lambda labels: save(labels / "first.tif", picture(64, 64)[..., 0]),
        lambda labels: (save(labels / "first.png", picture(64, 64)), (labels.parent / "predict.json").write_text("{}")),
        lambda labels: (save(labels / "first.png", picture(64, 64)), (labels.parent / "predict.json").write_text("[")),
        lambda labels: (labels / "city").symlink_to(save(Path("truth/first.png"), picture(64, 64)).parent.absolute()),
    ],
)
def test_predict_never_touches_files_of_others(fails, config, prepare):
    """Case 22: ground truth in the folder that predict would write to."""
    save(Path("first/first.png"), picture(64, 64))
    Path("mine/labels").mkdir(parents=True)
    prepare(Path("mine/labels"))
    before = {
        path: path.read_bytes() for path in [*Path("mine").rglob("*"), *Path().rglob("truth/*")] if path.is_file()
    }
    for more in ((), ("--overwrite",), RESUME):
        message = fails("predict", "--config", config, "--output", "mine", "--images", "first", *more)
        assert "mine/labels holds 1 files that predict did not write" in message
    assert all(path.read_bytes() == content for path, content in before.items())


def test_predict_does_not_take_its_own_maps_for_images(run, fails, config):
    """Case 20: an output folder inside the folder of images."""
    save(Path("photos/a.png"), picture(64, 64))
    words = ("predict", "--config", config, "--images", "photos", "--output", "photos/maps")
    assert run(*words)[0] == 0
    assert "1 of the images are in photos/maps/labels, where predict writes (a.png)" in fails(*words, "--overwrite")


@pytest.mark.promise("one-run-per-folder")
def test_a_lock_that_was_left_behind_blocks_nobody(tmp_path):
    (tmp_path / LOCK_FILE).write_text("process 1 on nowhere")
    second = pytest.raises(OutputError, match=f"in use by process {os.getpid()} on")
    with lock_folder(tmp_path), second, lock_folder(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


# --- Killed processes -------------------------------------------------------------------------------------------------


@pytest.mark.promise("one-run-per-folder")
def test_killed_runs_go_on_with_other_numbers_of_processes(run, fails, tmp_path):
    config, environment = slow_config(tmp_path, 0.7)
    quick = {**environment, "SLOW_DATA_SECONDS": "0"}
    output = tmp_path / "out"
    assert run("test", "--config", config, "--output", "whole")[0] == 0
    process = start(config, environment, output, "--data.num_workers", "1")
    wait_for_images(process, output, 1)
    for words in ((), RESUME, ("--overwrite",)):
        message = fails("test", "--config", config, "--output", output, *words)
        assert f"{output} is in use by process {process.pid} on" in message
    kill(process)
    # At once: a killed process holds no lock. Images take longer, so that some are left however slow this machine is.
    slower = {**environment, "SLOW_DATA_SECONDS": "3"}
    before = len(finished(output))
    process = start(config, slower, output, *RESUME, *TWO, "--data.num_workers", "0")
    wait_for_images(process, output, before + 1)
    kill(process)
    done = len(finished(output))
    assert before < done < IMAGES
    process = start(config, quick, output, *RESUME, *TWO)
    assert process.wait(300) == 0, process.communicate()[0]
    assert same_counts(output, Path("whole"))["images_resumed"] == done
    assert not (output / "unfinished_test").exists()


@pytest.mark.parametrize("command", ["test", "predict"])
def test_a_terminated_run_ends_at_once_and_goes_on(run, tmp_path, command):
    config, environment = slow_config(tmp_path, 1.0)
    output = tmp_path / "out"
    process = start(config, environment, output, command=command)
    wait_for_images(process, output, 2, command=command)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM
    process.communicate()
    done = len(finished(output, command))
    assert 2 <= done < IMAGES
    assert run(command, "--config", config, "--output", output, *RESUME)[0] == 0
    if command == "test":
        assert outcome(output)[0]["images_resumed"] == done
    else:
        assert len(list((output / "labels").rglob("*.png"))) == IMAGES


def test_a_killed_process_ends_the_one_that_started_it(tmp_path):
    config, environment = slow_config(tmp_path, 1.5)
    process = start(config, environment, tmp_path / "out", *TWO)
    try:
        wait_for_images(process, tmp_path / "out", 1)
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        assert process.wait(120) != 0
    finally:
        if process.poll() is None:
            kill(process)
    assert not (tmp_path / "out/results.json").exists()


def test_a_full_disk_ends_in_an_error_and_the_run_goes_on(run, fails, config, whole, monkeypatch):
    lines = []

    def append(file, record):
        if len(lines) == 2:
            file.write(b'{"index": ')  # a line is written in part, then refused
            raise OSError(errno.ENOSPC, "No space left on device")
        lines.append(record)
        write(file, record)

    write = resume.append
    monkeypatch.setattr(resume, "append", append)
    message = fails("test", "--config", config, "--output", "out")
    assert "No space left on device; finished images are kept: fix that, then continue with --resume true" in message
    monkeypatch.undo()
    assert run("test", "--config", config, "--output", whole.parent / "out", *RESUME)[0] == 0
    assert same_counts(whole.parent / "out", whole)["images_resumed"] == 2
