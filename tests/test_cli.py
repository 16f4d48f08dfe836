"""The command line from end to end on a small data set."""

import configparser
import glob
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from data_files import picture, save
from PIL import Image
from processes import process_environment
from reference import DATA
from small_run import CLASSES, SIZES, make_config

import lightning_expedite
from lightning_expedite import __version__
from lightning_expedite.cli import SUBCOMMANDS, main
from lightning_expedite.evaluation.metrics import SegmentationScores
from lightning_expedite.reducers import EViT, Reducer, Reduction, ToMe

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lightning_expedite"


class Halving(Reducer):
    """Keeps every other patch for good and copies it to its neighbour after the encoder."""

    def __init__(self, step: int = 2) -> None:
        self.step = step

    def start(self, layout):
        return HalvingReduction(self, layout)


class HalvingReduction(Reduction):
    def __init__(self, settings, layout):
        super().__init__(layout)
        self.step = settings.step

    def prepare_tokens(self, tokens):
        return torch.cat((tokens[:, :1], tokens[:, 1 :: self.step]), dim=1)

    def restore_tokens(self, tokens):
        place = torch.arange(self.layout.patches) // self.step
        return torch.cat((tokens[:, :1], tokens[:, 1:][:, place]), dim=1)

    def is_identity(self):
        return False


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def rows_of(folder):
    return [json.loads(line) for line in (folder / "images.jsonl").read_text().splitlines()]


# --- Help, and what the package offers ---------------------------------------------------------------

LIGHT = """
import sys
import lightning_expedite
from lightning_expedite.cli import main
main(["--help"])
assert "jsonargparse" not in sys.modules
main(["tset"])
main(["convert", "--checkpont", "x"])
for name in ("sweep", "search", "report", "recommend", "convert", "completion"):
    try:
        main([name, "--help"])
    except SystemExit as stop:
        assert stop.code == 0
print("heavy:", sorted({"torch", "pytorch_lightning", "timm", "cv2", "pandas", "matplotlib"} & set(sys.modules)))
"""


def test_help_and_mistakes_do_not_wait_for_torch():
    answer = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, cwd=ROOT)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[-1] == "heavy: []"
    assert "did you mean --checkpoint?" in answer.stderr


def test_version_and_help(run):
    assert run("--version") == (0, f"{__version__}\n", "")
    status, out, _ = run("--help")
    assert (status, out.splitlines()[0]) == (0, "usage: lightning-expedite COMMAND [options]")
    for name in SUBCOMMANDS:
        assert re.search(rf"^  {name} +\w", out, re.MULTILINE)
    assert run()[0] == 2
    for name in ("convert", "report", "prepare", "completion"):
        status, out, _ = run(name, "--help")
        assert status == 0
        assert out.startswith(f"usage: lightning-expedite {name} ")


def test_help_of_test_begins_with_its_own_options_and_has_none_of_training(run):
    status, out, _ = run("test", "--help")
    assert status == 0
    places = [
        out.index(option) for option in ("--config", "--output", "--resume", "--model.checkpoint", "--trainer.dev")
    ]
    assert places == sorted(places)
    assert not re.search(r"--trainer\.(max_epochs|gradient_clip_val|limit_train_batches|accumulate_grad_batches)", out)
    assert len(out.splitlines()) < 400


def test_an_unknown_command(run):
    names = ", ".join(SUBCOMMANDS)
    assert run("tset") == (2, "", f"error: 'tset' is not a command (did you mean test?); the commands are {names}\n")
    assert "'--verison' is not a command (did you mean --version?)" in run("--verison")[2]
    assert run("qqq") == (2, "", f"error: 'qqq' is not a command; the commands are {names}\n")


def test_an_interrupted_command_ends_in_one_line(run, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_expedite.cli.convert.run", interrupted)
    assert run("convert", "--checkpoint", "demo", "--output", "out") == (130, "", "error: interrupted\n")


def test_the_console_script_is_the_command_line():
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="lightning-expedite")
    assert script.load() is main


def test_the_package_lists_its_public_names():
    names = dir(lightning_expedite)
    assert {"load", "with_reducer", "segment", "export", "visualization", "ToMe", "TokenClustering"} <= set(names)
    assert lightning_expedite.ToMe is ToMe
    for name in lightning_expedite.__all__:
        assert name in names
        if name != "pictures":
            assert getattr(lightning_expedite, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        lightning_expedite.lod  # noqa: B018


# --- Configs of the package --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["configs/demo_ours.yaml", "demo_ours", "configs/demo_ours"])
def test_configs_of_the_package_are_found_outside_the_checkout(run, tmp_path, name):
    status, out, _ = run("test", "--config", name, "--print_config")
    assert status == 0
    assert yaml.safe_load(out)["model"]["reducer"]["init_args"]["clusters"] == [8, 8]
    assert yaml.safe_load(out)["data"]["class_path"].endswith("Demo")  # from parts/demo.yaml, its base


def test_a_file_in_the_current_folder_comes_before_the_package(run, tmp_path):
    (tmp_path / "demo_none").write_text("{model: {checkpoint: demo, stride: 16}, data: {class_path: Demo}}")
    status, out, _ = run("test", "--config", "demo_none", "--print_config")
    assert status == 0
    assert yaml.safe_load(out)["model"]["stride"] == 16


def test_the_configs_are_package_data():
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    data = setup["options.package_data"]["lightning_expedite"].split()
    # As setuptools looks for them; unlike pathlib it follows links.
    paths = (path for pattern in data for path in glob.glob(str(PACKAGE / pattern), recursive=True))  # noqa: PTH207
    found = {Path(path).name for path in paths}
    assert {path.name for path in (ROOT / "configs").rglob("*.yaml")} <= found


# --- Terminals and limits ----------------------------------------------------------------------------


def test_too_few_open_files_are_named(config, tmp_path):
    command = f"ulimit -n 10; exec {sys.executable} -m lightning_expedite test --config {config} --data.num_workers 2"
    answer = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, env=process_environment()
    )
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr
    assert answer.stderr.splitlines()[-1].startswith("error: too many open files: raise the limit (ulimit -n 1024)")


# --- test --------------------------------------------------------------------------------------------


def test_results_of_a_run(run, config, tmp_path):
    status, out, _ = run("test", "--config", config, "--output", tmp_path / "out")
    assert status == 0
    assert "mIoU" in out
    assert "door" in out
    results, rows = results_of(tmp_path / "out"), rows_of(tmp_path / "out")
    assert (results["images"], results["images_total"], results["complete"]) == (4, 4, True)
    assert [row["name"] for row in results["per_class"]] == CLASSES
    assert set(results["scores"]) == {"mIoU", "aAcc", "mAcc"}
    intersection, union = np.array(results["intersection"]), np.array(results["union"])
    label = np.array(results["label"])
    assert label.tolist()[4] == 0
    assert label.sum() == sum((height - 5) * width for height, width in SIZES[:4])
    seen = union > 0
    assert results["scores"]["mIoU"] == pytest.approx(100 * np.mean(intersection[seen] / union[seen]))
    assert results["scores"]["aAcc"] == pytest.approx(100 * intersection.sum() / label.sum())
    assert results["scores"]["mAcc"] == pytest.approx(100 * np.mean(intersection[:4] / label[:4]))
    assert results["per_class"][4]["Acc"] is None
    for kind in ("intersection", "prediction", "label"):
        total = np.zeros(5, int)
        for row in rows:
            total[row["classes"]] += row[kind]
        assert total.tolist() == results[kind]
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    assert [row["name"] for row in rows] == ["part0/0", "part0/2", "part1/1", "part1/3"]
    assert [(row["height"], row["width"]) for row in rows] == [SIZES[at] for at in (0, 2, 1, 3)]
    assert sum(row["windows"] for row in rows) == results["windows"]
    assert results["windows_unreduced"] == 0
    assert results["config"]["model"]["window"] == 64
    assert results["config"]["data"]["class_path"].endswith("Folder")
    assert "base" not in results["config"]
    environment = results["environment"]
    assert environment["torch"] == importlib.metadata.version("torch")
    assert environment["processes"] == 1
    assert environment["device_type"] == "cpu"
    assert environment["lightning_expedite"] == __version__
    assert results["seconds"] > 0
    resolved = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert resolved == results["config"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.yaml",
        "images.jsonl",
        "metrics.csv",
        "results.json",
    ]


def test_a_run_from_its_own_config_gives_the_same_counts(run, config, tmp_path):
    words = ("--data.mirror", "true", "--model.convention", "null")  # null: not the default
    assert run("test", "--config", config, "--output", tmp_path / "one", *words)[0] == 0
    again = tmp_path / "one" / "config.yaml"
    assert run("test", "--config", again, "--output", tmp_path / "two")[0] == 0
    assert (tmp_path / "one/images.jsonl").read_text() == (tmp_path / "two/images.jsonl").read_text()
    one, two = (results_of(tmp_path / name)["config"] for name in ("one", "two"))
    assert one["model"]["convention"] is two["model"]["convention"] is None
    assert one["data"] == two["data"]


def test_labels_of_predict_give_the_counts_of_test(run, config, tmp_path):
    assert run("test", "--config", config, "--output", tmp_path / "out")[0] == 0
    assert run("predict", "--config", config, "--output", tmp_path / "maps", "--overlay")[0] == 0
    metric = SegmentationScores(5)
    for row in rows_of(tmp_path / "out"):
        stored = np.asarray(Image.open(tmp_path / f"maps/labels/{row['name']}.png"))
        assert stored.dtype == np.uint8
        assert stored.shape == (row["height"], row["width"])
        overlay = np.asarray(Image.open(tmp_path / f"maps/overlays/{row['name']}.png"))
        assert overlay.shape == (row["height"], row["width"], 3)
        target = np.asarray(Image.open(tmp_path / f"labels/{row['name']}.png"))
        metric.update(torch.from_numpy(stored.copy())[None], torch.from_numpy(target.copy())[None])
    results = results_of(tmp_path / "out")
    assert metric.compute()["intersection"].tolist() == results["intersection"]
    assert metric.compute()["union"].tolist() == results["union"]


def test_part_of_a_data_set_is_marked_as_incomplete(run, config, tmp_path):
    status, out, _ = run("test", "--config", config, "--output", tmp_path / "out", "--trainer.limit_test_batches", "3")
    assert status == 0
    assert "INCOMPLETE" in out
    results = results_of(tmp_path / "out")
    assert (results["images"], results["images_total"], results["complete"]) == (3, 4, False)


def test_barebones_gives_the_same_counts(run, config, tmp_path):
    assert run("test", "--config", config, "--output", tmp_path / "usual")[0] == 0
    words = ("--trainer.barebones", "true", "--output", tmp_path / "bare")
    assert run("test", "--config", config, *words)[0] == 0
    assert rows_of(tmp_path / "bare") == rows_of(tmp_path / "usual")


def test_results_are_not_replaced_unasked(fails, run, config, tmp_path):
    out = tmp_path / "runs" / "small"  # the default: named after the config
    assert run("test", "--config", config)[0] == 0
    before = (out / "results.json").read_bytes()
    message = fails("test", "--config", config)
    assert "results.json exists" in message
    assert "--overwrite" in message
    assert (out / "results.json").read_bytes() == before
    assert run("test", "--config", config, "--overwrite", "--model.stride", "64")[0] == 0
    assert results_of(out)["config"]["model"]["stride"] == 64


def test_later_configs_and_options_override_earlier_ones(run, data, config, tmp_path):
    more = data / "more.yaml"
    more.write_text("model: {stride: 32, window: 48, reducer: {class_path: ToMe, init_args: {ratio: 0.3}}}")
    words = ("test", "--config", config, f"--config={more}", "--model.window", "40", "--print_config")
    status, out, _ = run(*words)
    assert status == 0
    model = yaml.safe_load(out)["model"]
    assert (model["window"], model["stride"], model["checkpoint"]) == (
        40,
        32,
        str(DATA / "parity/official_mask"),
    )
    assert model["reducer"]["class_path"].endswith("ToMe")
    assert model["reducer"]["init_args"] == {"ratio": 0.3}
    _, out, _ = run("test", "--config", more, "--config", config, "--print_config")
    assert yaml.safe_load(out)["model"]["stride"] == 48
    assert not (tmp_path / "runs").exists()


def test_a_config_is_read_after_those_it_builds_on(run, data, config):
    (data / "parts").mkdir()
    (data / "parts/reducer.yaml").write_text("model: {reducer: {class_path: EViT, init_args: {locations: [1, 3]}}}")
    top = data / "top.yaml"
    top.write_text(
        "base: [small.yaml, parts/reducer.yaml]\n"
        "model: {stride: 16, reducer: {class_path: EViT, init_args: {keep_rate: 0.7}}}"
    )
    status, out, _ = run("test", "--config", top, "--print_config")
    assert status == 0
    model = yaml.safe_load(out)["model"]
    assert (model["window"], model["stride"]) == (64, 16)
    assert model["reducer"]["init_args"]["locations"] == [1, 3]
    assert model["reducer"]["init_args"]["keep_rate"] == 0.7


def test_a_reducer_is_taken_away_with_null(run, data, config, tmp_path):
    reduced = make_config(
        data, "reduced.yaml", reducer={"class_path": "EViT", "init_args": {"locations": [1], "keep_rate": 0.3}}
    )
    assert run("test", "--config", config, "--output", tmp_path / "plain")[0] == 0
    assert run("test", "--config", reduced, "--output", tmp_path / "reduced")[0] == 0
    words = ("test", "--config", reduced, "--model.reducer", "null", "--output", tmp_path / "null")
    assert run(*words)[0] == 0
    plain, other, null = (rows_of(tmp_path / name) for name in ("plain", "reduced", "null"))
    assert null == plain
    assert other != plain
    assert results_of(tmp_path / "null")["config"]["model"]["reducer"] is None


def test_a_reducer_is_chosen_by_its_name_on_the_command_line(run, config, tmp_path):
    words = ("--model.reducer", "EViT", "--model.reducer.locations", "[1]", "--model.reducer.keep_rate", "1.0")
    assert run("test", "--config", config, "--output", tmp_path / "out", *words)[0] == 0
    results = results_of(tmp_path / "out")
    assert results["config"]["model"]["reducer"]["class_path"] == f"{EViT.__module__.rpartition('.')[0]}.EViT"
    assert results["windows_unreduced"] == results["windows"] > 0


def test_a_reducer_of_ones_own_is_named_by_its_class_path(run, config, tmp_path):
    assert run("test", "--config", config, "--output", tmp_path / "plain")[0] == 0
    words = ("--model.reducer", "test_cli.Halving", "--model.reducer.step", "3", "--output", tmp_path / "out")
    assert run("test", "--config", config, *words)[0] == 0
    results = results_of(tmp_path / "out")
    assert results["config"]["model"]["reducer"] == {"class_path": "test_cli.Halving", "init_args": {"step": 3}}
    assert results["windows_unreduced"] == 0
    assert results["intersection"] != results_of(tmp_path / "plain")["intersection"]


# --- predict, convert --------------------------------------------------------------------------------


def test_predict_on_a_folder_of_images(run, fails, config, tmp_path):
    save(tmp_path / "mine/a/one.jpg", picture(33, 71))
    save(tmp_path / "mine/two.png", picture(90, 64))
    out = tmp_path / "out"
    status, printed, _ = run("predict", "--config", config, "--images", tmp_path / "mine", "--output", out)
    assert status == 0
    assert str(out / "labels") in printed
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert found == ["labels/a/one.png", "labels/two.png"]
    labels = np.asarray(Image.open(out / "labels/a/one.png"))
    assert labels.shape == (33, 71)
    assert labels.max() < 5
    message = fails("predict", "--config", config, "--images", tmp_path / "mine", "--output", out)
    assert "--overwrite" in message
    words = ("predict", "--config", config, "--images", tmp_path / "mine", "--output", out, "--overwrite")
    assert run(*words, "--overlay")[0] == 0
    assert np.asarray(Image.open(out / "overlays/two.png")).shape == (90, 64, 3)


def test_a_converted_checkpoint_gives_the_same_counts(run, fails, config, tmp_path):
    source = DATA / "parity/official_mask"
    words = ("convert", "--checkpoint", source, "--output", tmp_path / "new")
    assert run(*words)[0] == 0
    assert "exists" in fails(*words)
    assert run(*words, "--overwrite", "--dtype", "float32")[0] == 0
    assert run("test", "--config", config, "--output", tmp_path / "one")[0] == 0
    words = ("test", "--config", config, "--model.checkpoint", tmp_path / "new", "--output", tmp_path / "two")
    assert run(*words)[0] == 0
    assert rows_of(tmp_path / "one") == rows_of(tmp_path / "two")
