"""What loggers get of a test run: numbers, the table of classes, pictures; each once, from one process."""

import csv
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from pytorch_lightning.loggers import Logger
from small_run import make_config

from lightning_expedite.cli.loggers import with_place
from lightning_expedite.data import Folder
from lightning_expedite.evaluation.run_logger import markdown_table
from lightning_expedite.visualization.arrays import GAP, LONGEST, mark, strip

EVIT = {"class_path": "EViT", "init_args": {"locations": [2], "keep_rate": 0.6}}
LATENCY = "--trainer.callbacks+=lightning_expedite.benchmarking.LatencyProfiler"
SHORT = ("--data.short_side", 64, "--data.long_side", 100)


def results(folder="out"):
    return json.loads(Path(folder, "results.json").read_text())


def metrics(folder="out"):
    with Path(folder, "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    return {name: float(value) for name, value in row.items()}


def folders():
    return sorted(path.name for path in Path().iterdir() if path.is_dir())


class FakeWandb(Logger):
    """What Lightning's WandbLogger offers to a run, without W&B."""

    made: list["FakeWandb"] = []  # noqa: RUF012

    def __init__(self, project: str = "none", save_dir: str = ".") -> None:
        super().__init__()
        self.save_dir_given = save_dir
        self.metrics, self.tables, self.pictures, self.params = {}, {}, {}, []
        self.made.append(self)

    name = version = "fake"

    def log_metrics(self, metrics, step=None):
        self.metrics.update(metrics)

    def log_hyperparams(self, params):
        self.params.append(params)

    def log_table(self, key, columns=None, data=None):
        assert key not in self.tables
        self.tables[key] = (columns, data)

    def log_image(self, key, images, caption):
        assert key not in self.pictures
        self.pictures[key] = (images, caption)


@pytest.fixture
def wandb_like():
    FakeWandb.made.clear()
    return ("--trainer.logger", "test_run_logger.FakeWandb")


def test_a_run_leaves_its_numbers_in_one_row(run, config):
    status, _, err = run("test", "--config", config, "--output", "out", LATENCY, *SHORT)
    assert status == 0, err
    row, found = metrics(), results()
    for name, value in found["scores"].items():
        assert row[name] == pytest.approx(value, rel=1e-6)
    for one in found["per_class"]:
        assert row.get(f"IoU/{one['name']}") == one["IoU"]
        assert row.get(f"Acc/{one['name']}") == one["Acc"]
    assert row["profile/latency/per_image/median_ms"] == found["profile"]["latency"]["per_image"]["median_ms"]
    assert "epoch" not in row
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "config.yaml",
        "images.jsonl",
        "metrics.csv",
        "results.json",
    ]
    assert "lightning_logs" not in folders()


def test_logging_can_be_switched_off_and_a_failed_run_leaves_no_row(run, config):
    assert run("test", "--config", config, "--output", "out", "--trainer.logger", "false", *SHORT)[0] == 0
    assert not Path("out/metrics.csv").exists()
    assert run("test", "--config", config, "--output", "bad", "--trainer.limit_test_batches", "0.0")[0] == 2
    assert not Path("bad/metrics.csv").exists()


def test_a_logger_with_tables_and_pictures_gets_both(run, data, wandb_like, monkeypatch):
    seen = []
    read = Folder.read_image
    monkeypatch.setattr(Folder, "read_image", lambda self, index: seen.append(index) or read(self, index))
    config = make_config(data, reducer=EVIT)
    words = ("test", "--config", config, "--output", "out", *wandb_like, "--log_images", 3, "--log_changes", *SHORT)
    status, _, err = run(*words)
    assert status == 0, err
    (logger,) = FakeWandb.made
    found = results()
    columns, rows = logger.tables["classes"]
    assert columns == ["class", "IoU %", "Acc %", "labelled pixels"]
    assert rows == [[c["name"], c["IoU"], c["Acc"], n] for c, n in zip(found["per_class"], found["label"], strict=True)]
    assert logger.metrics["mIoU"] == pytest.approx(found["scores"]["mIoU"])
    assert logger.params == [yaml.safe_load(Path("out/config.yaml").read_text())]
    assert list(logger.pictures) == ["images/part0/0", "images/part0/2", "images/part1/1"]
    assert seen == [0, 1, 2]
    (picture,), (caption,) = logger.pictures["images/part0/0"]
    assert picture.shape == (64, 4 * 64 + 3 * GAP, 3)
    assert caption.startswith("part0/0: image, label, prediction, changed by the reducer (")
    assert metrics()["mIoU"] == pytest.approx(found["scores"]["mIoU"])  # the file is there beside it


def test_pictures_show_the_image_its_labels_and_what_the_reducer_changed(run, data, wandb_like, monkeypatch):
    config = make_config(data, reducer=EVIT)
    for name, command in (("with", ()), ("without", ("--model.reducer", "null"))):
        assert run("predict", "--config", config, "--output", name, "--overlay", *command, *SHORT)[0] == 0
    words = ("--output", "out", *wandb_like, "--log_images", 1, "--log_changes", *SHORT)
    assert run("test", "--config", config, *words)[0] == 0
    (picture,), (caption,) = FakeWandb.made[0].pictures["images/part0/0"]
    image, label, prediction, changed = (picture[:, start : start + 64] for start in range(0, 4 * (64 + GAP), 64 + GAP))
    read = lambda path: cv2.imread(str(path), cv2.IMREAD_UNCHANGED)  # noqa: E731
    assert np.array_equal(image, read(data / "images/part0/0.png")[..., ::-1])
    assert np.array_equal(prediction, read("with/overlays/part0/0.png")[..., ::-1])
    assert not np.array_equal(label, prediction)
    differ = read("with/labels/part0/0.png") != read("without/labels/part0/0.png")
    assert differ.any()
    assert np.array_equal((changed == (255, 0, 0)).all(-1), differ)
    assert caption.endswith(f"({differ.mean():.2%})")


def test_pictures_do_not_change_the_results(run, data, wandb_like):
    config = make_config(data, reducer=EVIT)
    assert run("test", "--config", config, "--output", "plain", *SHORT)[0] == 0
    words = (*wandb_like, "--log_images", 4, "--log_changes", "--trainer.precision", "32-true")
    assert run("test", "--config", config, "--output", "shown", *words, *SHORT)[0] == 0
    assert Path("plain/images.jsonl").read_bytes() == Path("shown/images.jsonl").read_bytes()
    plain, shown = (results(name) for name in ("plain", "shown"))
    assert (shown["scores"], shown["windows"]) == (plain["scores"], plain["windows"])
    assert "log_images" not in shown["config"]


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_pictures_are_made_at_the_runs_precision(run, config, wandb_like, precision):
    words = (*wandb_like, "--log_images", 2, "--trainer.precision", precision, *SHORT)
    status, _, err = run("test", "--config", config, "--output", "out", *words)
    assert status == 0, err
    assert len(FakeWandb.made[0].pictures) == 2


def test_pictures_without_a_logger_for_them_are_refused_before_any_work(fails, config):
    message = fails("test", "--config", config, "--output", "out", "--log_images", 2)
    assert "no logger of this run takes pictures; use --trainer.logger TensorBoardLogger or WandbLogger" in message
    assert not Path("out/results.json").exists()
    assert "--log_images is -1" in fails("test", "--config", config, "--output", "out", "--log_images=-1")


def test_a_missing_package_is_named(fails, config, monkeypatch):
    monkeypatch.setattr("lightning_fabric.loggers.tensorboard._TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr("lightning_fabric.loggers.tensorboard._TENSORBOARDX_AVAILABLE", False)
    message = fails("test", "--config", config, "--output", "out", "--trainer.logger", "TensorBoardLogger")
    assert "lightning-expedite[tensorboard]" in message


def test_a_logger_of_lightnings_without_tables_gets_numbers(run, config):
    words = ("--trainer.logger", "CSVLogger")
    status, _, err = run("test", "--config", config, "--output", "out", *words, *SHORT)
    assert status == 0, err
    with Path("out/csv/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert any(row.get("IoU/sky") for row in rows)
    assert "lightning_logs" not in folders()
    assert (
        yaml.safe_load(Path("out/config.yaml").read_text())["trainer"]["logger"]["init_args"]["save_dir"] == "<output>"
    )


def events(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = accumulator.EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    read.Reload()
    return read


@pytest.fixture
def tensorboard():
    pytest.importorskip("tensorboard")
    return ("--trainer.logger", "TensorBoardLogger")


def text(read, tag):
    (event,) = read.Tensors(tag)
    return event.tensor_proto.string_val[0].decode()


def test_tensorboards_file_holds_scores_times_table_and_pictures(run, data, tensorboard):
    config = make_config(data, reducer=EVIT)
    words = (*tensorboard, LATENCY, "--log_images", 2, "--log_changes", *SHORT)
    status, _, err = run("test", "--config", config, "--output", "out", *words)
    assert status == 0, err
    (file,) = Path("out/tensorboard").glob("events.out.tfevents.*")
    read, found = events(file.parent), results()
    for name, value in found["scores"].items():
        (event,) = read.Scalars(name)
        assert event.value == pytest.approx(value, rel=1e-6)
    (event,) = read.Scalars("profile/latency/per_image/median_ms")
    assert event.value == pytest.approx(found["profile"]["latency"]["per_image"]["median_ms"], rel=1e-6)
    table = text(read, "classes/text_summary")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert [line[0] for line in lines[2:]] == [one["name"] for one in found["per_class"]]
    assert lines[2][1] == f"{found['per_class'][0]['IoU']:.2f}"
    assert lines[-1][2:] == ["-", "0"]  # nothing is labelled door
    assert sorted(read.Tags()["images"]) == ["images/part0/0", "images/part0/2"]
    (event,) = read.Images("images/part0/0")
    picture = cv2.imdecode(np.frombuffer(event.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (event.height, event.width, 3) == (64, 4 * 64 + 3 * GAP, 3)
    assert np.array_equal(picture[:, :64], cv2.imread(str(data / "images/part0/0.png")))
    assert "changed by the reducer" in text(read, "images/part0/0/caption/text_summary")
    assert folders() == ["images", "labels", "out"]


@pytest.mark.slow
def test_two_processes_log_everything_once(run, data, tensorboard, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())  # Lightning leaves there how it started processes
    words = (*tensorboard, "--log_images", 2, "--trainer.devices", 2, "--trainer.strategy", "ddp_fork", *SHORT)
    assert run("test", "--config", make_config(data), "--output", "out", *words)[0] == 0
    assert results()["environment"]["processes"] == 2
    assert len([path for path in Path("out").rglob("*") if "tfevents" in path.name]) == 1
    read = events("out/tensorboard")
    for tag in ("mIoU", "aAcc", "mAcc"):
        assert len(read.Scalars(tag)) == 1
    assert [len(read.Images(tag)) for tag in sorted(read.Tags()["images"])] == [1, 1]
    assert metrics()["mIoU"] == pytest.approx(read.Scalars("mIoU")[0].value)


def test_wandbs_own_logger_takes_everything(run, data, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = make_config(data, reducer=EVIT)
    words = ("--trainer.logger", "WandbLogger", "--trainer.logger.offline", "true", "--log_images", 2, *SHORT)
    try:
        status, _, err = run("test", "--config", config, "--output", "out", *words)
        assert status == 0, err
        summary = dict(wandb.run.summary)
    finally:
        wandb.finish()
    assert summary["mIoU"] == pytest.approx(results()["scores"]["mIoU"])
    assert summary["classes"]["nrows"] == 5
    assert summary["images/part0/0"]["count"] == 1
    files = {path.name for path in Path("out/wandb").rglob("*") if path.is_file()}
    assert any(name.endswith(".wandb") for name in files)
    assert len([name for name in files if name.endswith(".png")]) == 2
    assert "wandb" not in folders()


def test_a_place_is_put_behind_a_file_logger_named_alone():
    placed = ["--trainer.logger.save_dir=<output>", "--trainer.logger.name=", "--trainer.logger.version=tensorboard"]
    assert with_place(["--trainer.logger", "TensorBoardLogger", "-x"]) == [
        "--trainer.logger",
        "TensorBoardLogger",
        *placed,
        "-x",
    ]
    one = "--trainer.logger=pytorch_lightning.loggers.TensorBoardLogger"
    assert with_place([one]) == [one, *placed]
    for words in (
        ["--trainer.logger", "WandbLogger"],
        ["--output", "TensorBoardLogger"],
        ["--trainer.logger", "TensorBoardLogger", "--trainer.logger.save_dir", "here"],
        ["--trainer.logger", "TensorBoardLogger", "--trainer.logger.init_args.save_dir=here"],
    ):
        assert with_place(words) == words


def test_large_pictures_are_shrunk_and_masks_marked():
    image = np.full((2000, 4000, 3), 100, np.uint8)
    picture = strip([image, image])
    assert picture.shape == (LONGEST // 2, 2 * LONGEST + GAP, 3)
    assert (picture[:, :LONGEST] == 100).all()
    assert (picture[:, LONGEST : LONGEST + GAP] == 255).all()
    mask = np.zeros((2000, 4000), bool)
    mask[5, 7] = True
    marked = mark(image, mask)
    assert marked.dtype == np.uint8
    assert tuple(marked[5, 7]) == (255, 0, 0)
    assert np.unique(marked[0]).tolist() == [177]


def test_the_table_as_text_has_a_line_for_each_class():
    rows = [["sky", 50.0, 75.125, 12], ["door", None, None, 0]]
    assert markdown_table(rows) == (
        "| class | IoU % | Acc % | labelled pixels |\n| --- | ---: | ---: | ---: |\n"
        "| sky | 50.00 | 75.12 | 12 |\n| door | - | - | 0 |"
    )
