"""The command line from end to end on a small data set."""

import importlib.metadata
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from data_files import picture, save
from PIL import Image
from reference import DATA
from small_run import CLASSES, SIZES, make_config

from lightning_expedite import __version__
from lightning_expedite.cli import SUBCOMMANDS
from lightning_expedite.evaluation.metrics import SegmentationScores
from lightning_expedite.reducers import EViT, Reducer, Reduction

ROOT = Path(__file__).parents[1]


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


# --- Without torch -----------------------------------------------------------------------------------


def test_help_is_there_at_once_and_does_not_import_torch():
    command = [sys.executable, "-m", "lightning_expedite", "--help"]
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        seconds.append(time.perf_counter() - start)
    for name in SUBCOMMANDS:
        assert re.search(rf"^  {name} +\w", answer.stdout, re.MULTILINE)
    assert statistics.median(seconds) < 1.5
    program = (
        "import sys; from lightning_expedite.cli import main; main(['--help']);"
        "heavy = {'torch', 'pytorch_lightning', 'timm', 'numpy', 'jsonargparse', 'cv2'} & set(sys.modules);"
        "print('heavy:', sorted(heavy))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.splitlines()[-1] == "heavy: []"


def test_version_and_help(run):
    assert run("--version") == (0, f"{__version__}\n", "")
    status, out, _ = run("--help")
    assert (status, out.splitlines()[0]) == (0, "usage: python -m lightning_expedite SUBCOMMAND [options]")
    assert run()[0] == 2
    for name in ("test", "predict", "convert", "report", "prepare"):
        status, out, _ = run(name, "--help")
        assert status == 0
        assert out.startswith(f"usage: python -m lightning_expedite {name} ")


def test_an_unknown_subcommand(run):
    assert run("evaluate") == (
        2,
        "",
        f"error: 'evaluate' is no subcommand; there are {', '.join(SUBCOMMANDS)}\n",
    )


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
