"""Interrupted runs: what is finished is kept, nothing is computed twice, and the integers are those of a whole run."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from data_files import save
from interrupted_runs import (
    IMAGES,
    interrupt,
    kill,
    outcome,
    same_counts,
    slow_config,
    start,
    wait_for_images,
)
from small_run import make_config, make_data

from lightning_expedite.evaluation.journal import HEADERS, read_journal
from lightning_expedite.evaluation.module import SegmenterModule

pytestmark = pytest.mark.promise("resume")


@pytest.fixture
def config(tmp_path):
    return make_config(make_data(tmp_path, count=IMAGES))


@pytest.mark.parametrize("images", [1, 4])
def test_a_test_goes_on_where_it_was_interrupted(run, stop, config, images):
    assert run("test", "--config", config, "--output", "whole")[0] == 0
    interrupt(run, stop, config, "out", images)
    assert not Path("out/results.json").exists()
    labelled = stop(None)
    status, out, err = run("test", "--config", config, "--output", "out", "--resume", "true")
    assert status == 0, err
    assert len(labelled) == IMAGES - images
    results = same_counts(Path("out"), Path("whole"))
    assert results["images_resumed"] == images
    assert f"{IMAGES}: {images} of an interrupted run, {IMAGES - images} in" in out
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(path.name for path in Path("whole").iterdir())


def test_interruptions_may_repeat(run, stop, config, figure):
    assert run("test", "--config", config, "--output", "whole")[0] == 0
    words = ("test", "--config", config, "--output", "out", "--resume", "true", "--trainer.enable_progress_bar")
    labelled = []
    for bar in ("false", "true", "false", "true"):  # how a run is shown is not part of what it is
        labelled += stop(1)
        assert run(*words, bar)[0] == 1
        labelled += ["image"]
        assert len(read_journal(Path("out/unfinished_test")).records) == len(labelled)
    stop(None)
    assert run(*words, "true")[0] == 0
    same_counts(Path("out"), Path("whole"))
    figure("interruptions survived", 4)


def test_all_images_may_be_finished_already(run, stop, config, monkeypatch):
    assert run("test", "--config", config, "--output", "whole")[0] == 0
    monkeypatch.setattr(SegmenterModule, "on_test_epoch_end", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run("test", "--config", config, "--output", "out")[0] == 1
    monkeypatch.undo()
    labelled = stop(None)
    assert run("test", "--config", config, "--output", Path(config).parent / "out", "--resume", "true")[0] == 0
    assert labelled == []
    same_counts(Path(config).parent / "out", Path(config).parent / "whole")


def test_resuming_without_an_interrupted_run_is_a_run(run, config):
    words = ("test", "--config", config, "--output", "out", "--resume", "true")
    assert run(*words)[0] == 0
    before = Path("out/results.json").read_bytes()
    status, out, _ = run(*words)
    assert status == 0
    assert "nothing was left to do" in out
    assert "mIoU" in out
    assert Path("out/results.json").read_bytes() == before


def test_a_sweep_resumes_tests(tmp_path):
    from lightning_expedite.search.folders import PointFolder

    assert PointFolder(tmp_path, "none").words("test")[-2:] == ["--resume", "true"]


def test_finished_images_are_not_lost_by_accident(run, fails, stop, config):
    interrupt(run, stop, config, "out")
    message = fails("test", "--config", config, "--output", "out")
    assert "holds 2 finished images of an interrupted run; give --resume true to go on with it, or --overw" in message
    stop(None)
    assert run("test", "--config", config, "--output", "out", "--overwrite")[0] == 0
    assert outcome(Path("out"))[0]["images_resumed"] == 0
    assert not Path("out/unfinished_test").exists()


def change_label(config):
    path = config.parent / "labels" / "part0" / "0.png"
    content = path.read_bytes()
    from PIL import Image

    with Image.open(path) as label:
        changed = label.point(lambda value: 0 if value == 1 else value)
    changed.save(path)
    assert path.read_bytes() != content


def change_image(config):
    from data_files import picture

    save(config.parent / "images" / "part0" / "0.png", picture(64, 64, seed=99))


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
def test_what_has_changed_is_refused_by_name(run, fails, stop, config, model_folder, figure, change, words, part):
    settings = ("--model.checkpoint", str(model_folder))
    stop(2)
    assert run("test", "--config", config, "--output", "out", *settings)[0] == 1
    stop(None)
    if change:
        change(config)
    command = ("test", "--config", config, "--output", "out", *settings, "--resume", "true", *words)
    message = fails(*command)
    assert "2 finished images of an interrupted run that was another" in message
    assert part in message
    assert len(read_journal(Path("out/unfinished_test")).records) == 2
    assert run(*command, "--overwrite")[0] == 0
    assert outcome(Path("out"))[0]["images_resumed"] == 0
    figure("changes refused", 1)


def test_a_damaged_image_is_replaced_and_the_run_goes_on(run, fails, stop, config):
    stop(None)
    last = config.parent / "labels" / "part1" / "3.png"
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    assert f"{last.name}" in fails("test", "--config", config, "--output", "out")
    finished = len(read_journal(Path("out/unfinished_test")).records)
    last.write_bytes(whole)
    assert run("test", "--config", config, "--output", "out", "--resume", "true")[0] == 0
    assert outcome(Path("out"))[0]["images_resumed"] == finished > 0
    assert run("test", "--config", config, "--output", "whole")[0] == 0
    same_counts(Path("out"), Path("whole"))


def test_results_of_another_run_are_not_taken_for_this_ones(run, fails, config):
    assert run("test", "--config", config, "--output", "out")[0] == 0
    words = ("test", "--config", config, "--output", "out", "--model.stride", "56", "--resume", "true")
    assert "is of another run (settings.model.stride 48 instead of 56)" in fails(*words)
    assert run(*words, "--overwrite")[0] == 0
    content = json.loads(Path("out/results.json").read_text())
    del content["run"]
    Path("out/results.json").write_text(json.dumps(content))
    assert "does not tell what it is of" in fails(*words)


def test_a_part_of_the_images_cannot_be_resumed(fails, config):
    words = ("test", "--config", config, "--output", "out", "--resume", "true")
    assert "leave trainer.limit_test_batches out" in fails(*words, "--trainer.limit_test_batches", "1")


def test_damaged_lines_are_computed_again(run, stop, config):
    assert run("test", "--config", config, "--output", "whole")[0] == 0
    interrupt(run, stop, config, "out", images=3)
    (path,) = read_journal(Path("out/unfinished_test")).files
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b"1", b"2", 1)
    path.write_bytes(b"\n".join(lines))
    labelled = stop(None)
    with pytest.warns(UserWarning, match="1 lines in .* are damaged"):
        assert run("test", "--config", config, "--output", "out", "--resume", "true")[0] == 0
    assert len(labelled) == IMAGES - 2
    same_counts(Path("out"), Path("whole"))


def test_predict_goes_on_and_makes_pictures_that_are_missing(run, fails, stop, config):
    words = ("predict", "--config", config, "--overlay")
    assert run(*words, "--output", "whole")[0] == 0
    stop(3)
    assert run(*words, "--output", "out")[0] == 1
    assert "3 finished images of an interrupted run; give --resume true" in fails(*words, "--output", "out")
    done = [one["name"] for one in read_journal(Path("out/unfinished_predict")).records]
    Path(f"out/overlays/{done[1]}.png").unlink()
    labelled = stop(None)
    assert run(*words, "--output", "out", "--resume", "true")[0] == 0
    assert done[1] in labelled
    assert len(labelled) == IMAGES - 2
    for path in Path("whole").rglob("*.png"):
        assert (Path("out") / path.relative_to("whole")).read_bytes() == path.read_bytes()
    assert len(list(Path("out").rglob("*.png"))) == 2 * IMAGES
    labelled.clear()
    assert run(*words, "--output", "out", "--resume", "true")[0] == 0
    assert labelled == []
    assert "exists already" in fails(*words, "--output", "out")
    assert "is of another run" in fails("predict", "--config", config, "--output", "out", "--resume", "true")


def test_killed_runs_go_on_with_other_numbers_of_processes(tmp_path, figure):
    config, environment = slow_config(tmp_path, 0.7)
    quick = {**environment, "SLOW_DATA_SECONDS": "0"}
    whole, output = tmp_path / "whole", tmp_path / "out"
    process = start(config, quick, whole)
    assert process.wait(120) == 0, process.communicate()[0]
    resume = ("--resume", "true")
    two = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
    process = start(config, environment, output, "--data.num_workers", "1")
    wait_for_images(process, output, 1)
    kill(process)
    # At once: a killed process holds no lock. Images take longer, so that some are left however slow this machine is.
    slower = {**environment, "SLOW_DATA_SECONDS": "3"}
    process = start(config, slower, output, *resume, *two, "--data.num_workers", "0")
    before = len(read_journal(output / "unfinished_test").records)
    wait_for_images(process, output, before + 1)
    kill(process)
    done = len(read_journal(output / "unfinished_test").records)
    assert before < done < IMAGES
    process = start(config, quick, output, *resume, *two)
    assert process.wait(120) == 0, process.communicate()[0]
    assert same_counts(output, whole)["images_resumed"] == done
    assert not (output / "unfinished_test").exists()
    figure("kills survived", 2)
    figure("processes", 1 + 2 + 2)


@pytest.mark.promise("one-run-per-folder")
def test_a_second_run_on_the_same_folder_is_refused(run, fails, tmp_path, figure):
    config, environment = slow_config(tmp_path, 0.5)
    output = tmp_path / "out"
    process = start(config, environment, output)
    try:
        wait_for_images(process, output, 1)
        for words in ((), ("--resume", "true"), ("--overwrite",)):
            message = fails("test", "--config", config, "--output", output, *words)
            assert f"{output} is in use by process {process.pid} on" in message
            figure("second runs refused", 1)
    finally:
        kill(process)


def test_a_full_disk_ends_in_an_error_and_the_run_goes_on(tmp_path):
    """A limit on the size of files acts as a full disk: a line is written in part, then refused."""
    config, environment = slow_config(tmp_path, 0)
    whole, output = tmp_path / "whole", tmp_path / "out"
    process = start(config, environment, whole)
    assert process.wait(120) == 0, process.communicate()[0]
    command = [sys.executable, "-m", "lightning_expedite", "test", "--config", str(config), "--output", str(output)]
    header = len(json.dumps(outcome(whole)[0]["run"], separators=(",", ":"))) + 10
    limit = HEADERS * header + 500
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 2
    error = next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "File too large; finished images are kept: mend that, then go on with --resume true" in error
    assert "Traceback" not in done.stderr
    kept = len(read_journal(output / "unfinished_test").records)
    assert 0 < kept < IMAGES
    process = start(config, environment, output, "--resume", "true")
    assert process.wait(120) == 0, process.communicate()[0]
    assert same_counts(output, whole)["images_resumed"] == kept
