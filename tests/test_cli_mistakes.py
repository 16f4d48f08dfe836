"""Every mistake a user can make with the command line: one clear line, and status 2."""

import shutil

import pytest
from data_files import class_map, save
from reference import DATA
from small_run import SIZES

pytestmark = pytest.mark.promise("bad-configs")


def test_a_model_of_other_classes_than_the_data(fails, config):
    message = fails("test", "--config", config, "--model.checkpoint", DATA / "parity/mmseg_linear")
    assert "predicts 6 classes, Folder has 5" in message


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--model.stride", "100"), ("stride 100 is above window 64",)),
        (("--model.window", "0"), ("window is 0", "1 or more")),
        (("--model.stride", "-3"), ("stride is -3",)),
        (("--model.window_batch_size", "0"), ("window_batch_size is 0",)),
        (("--model.checkpoint", "no/such/weights"), ("'no/such/weights'", "known names are demo, ade20k/")),
        (("--data.images", "no/such/folder"), ("no/such/folder",)),
        (("--data.labels", "no/such/folder"), ("no/such/folder",)),
        (("--data.classes", "[]"), ("classes has 0 names",)),
        (("--data.batch_size", "0"), ("batch_size is 0",)),
        (("--data.long_side", "100"), ("long_side 100 is below short_side 128",)),
        (
            ("--model.reducer", "EViT", "--model.reducer.locations", "[9]", "--model.reducer.keep_rate", "0.5"),
            ("location 9 is not a layer of this model: its layers are 1 to 4",),
        ),
        (
            ("--model.reducer", "EViT", "--model.reducer.locations", "[1]", "--model.reducer.keep_rate", "1.5"),
            ("keep_rate=1.5 must be above 0 and at most 1",),
        ),
        (("--model.reducer", "ToMe", "--model.reducer.ratio", "2"), ("ratio=2.0 must lie between 0 and 1",)),
        (
            (
                "--model.reducer",
                "TokenClustering",
                "--model.reducer.location",
                "2",
                "--model.reducer.clusters",
                "9",
            ),
            ("clusters=(9, 9) is more than the model's own token grid of (8, 8)",),
        ),
    ],
)
def test_settings_that_cannot_work_end_with_one_line(fails, config, words, parts):
    message = fails("test", "--config", config, *words)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--model.windows", "64"), "windows"),
        (("--model.window", "large"), "window"),
        (("--model.convention", "seed"), "convention"),
        (("--model.reducer", "NoSuchReducer"), "NoSuchReducer"),
        (("--model.reducer", "ToMe", "--model.reducer.share", "0.5"), "share"),
        (("--model.reducer", "ToMe"), "ratio"),
        (("--data", "NoSuchData"), "NoSuchData"),
        (("surplus",), "surplus"),
    ],
)
def test_options_that_do_not_exist_show_the_usage_and_an_error(fails, config, words, part):
    assert part in fails("test", "--config", config, *words, usage=True)


def test_a_config_that_is_missing(fails, tmp_path):
    assert "no_such.yaml cannot be read" in fails("test", "--config", tmp_path / "no_such.yaml")
    assert "cannot be read" in fails("test", "--config")


@pytest.mark.parametrize("content", ["model: [1", "a: b: c", "\x00"])
def test_a_config_that_is_no_yaml(fails, tmp_path, content):
    (tmp_path / "bad.yaml").write_text(content)
    assert "bad.yaml cannot be read" in fails("test", "--config", tmp_path / "bad.yaml")


@pytest.mark.parametrize("content", ["- a", "word", "base: other.yaml", "base: [3]", "base: {a: b}"])
def test_a_config_of_another_shape(fails, tmp_path, content):
    (tmp_path / "bad.yaml").write_text(content)
    assert "bad.yaml" in fails("test", "--config", tmp_path / "bad.yaml")


def test_a_config_with_an_unknown_key(fails, data, config):
    (data / "more.yaml").write_text("model: {widow: 64}")
    assert "widow" in fails("test", "--config", config, "--config", data / "more.yaml", usage=True)


def test_a_config_whose_base_is_missing(fails, data):
    (data / "top.yaml").write_text("base: [gone.yaml]")
    assert "gone.yaml cannot be read" in fails("test", "--config", data / "top.yaml")


def test_a_config_that_builds_on_itself(fails, data):
    (data / "one.yaml").write_text("base: [two.yaml]")
    (data / "two.yaml").write_text("base: [one.yaml]")
    assert "one.yaml builds on itself: one.yaml -> two.yaml" in fails("test", "--config", data / "one.yaml")
    (data / "self.yaml").write_text("base: [self.yaml]")
    assert "self.yaml builds on itself" in fails("test", "--config", data / "self.yaml")


def test_an_output_that_cannot_be_a_folder(fails, config, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file" in fails("test", "--config", config, "--output", tmp_path / "file")
    assert "file/out" in fails("predict", "--config", config, "--output", tmp_path / "file/out")


def test_damaged_weights(fails, config, tmp_path):
    shutil.copytree(DATA / "parity/official_mask", tmp_path / "weights")
    path = tmp_path / "weights/checkpoint.pth"
    path.write_bytes(path.read_bytes()[:9999])
    for name in ("test", "predict"):
        words = (name, "--config", config, "--model.checkpoint", tmp_path / "weights")
        assert f"{path} is damaged" in fails(*words)
    message = fails("convert", "--checkpoint", tmp_path / "weights", "--output", tmp_path / "out")
    assert f"{path} is damaged" in message
    assert not (tmp_path / "out").exists()


def test_damaged_data(fails, data, config):
    for workers in (0, 1):
        save(data / "labels/part1/3.png", class_map(*SIZES[3], classes=7))
        message = fails("test", "--config", config, "--data.num_workers", workers, "--output", f"out{workers}")
        assert "labels/part1/3.png: label values 5, 6 are no class" in message


def test_predict_on_a_folder_without_images(fails, config, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty" in fails("predict", "--config", config, "--images", tmp_path / "empty")
    assert "nowhere" in fails("predict", "--config", config, "--images", tmp_path / "nowhere")


def test_prepare_without_a_known_data_set(fails):
    assert "prepare needs the name of a data set: pascal_context" in fails("prepare")
    assert "pascal_context" in fails("prepare", "coco")
