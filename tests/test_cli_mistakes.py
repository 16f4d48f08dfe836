"""Every mistake a user can make with the command line: one clear line, and status 2."""

import shutil

import pytest
import torch
import yaml
from data_files import class_map, picture, save
from reference import DATA
from small_run import SIZES
from torch import nn

from lightning_expedite import ACT, EViT, TokenClustering, ToMe, export, load, segment, token_groups
from lightning_expedite.errors import ExpediteError

pytestmark = pytest.mark.promise("bad-configs")


def test_a_model_of_other_classes_than_the_data(fails, config):
    message = fails("test", "--config", config, "--model.checkpoint", DATA / "parity/mmseg_linear")
    assert "predicts 6 classes, Folder has 5" in message


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--model.stride", "100"), ("stride 100 is above window 64",)),
        (("--model.checkpoint", "no/such/weights"), ("'no/such/weights'", "known names are demo, ade20k/")),
        (("--data.images", "no/such/folder"), ("no/such/folder",)),
        (("--data.labels", "no/such/folder"), ("no/such/folder",)),
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
    ("words", "message"),
    [
        ("--model.windows 64", "unknown option --model.windows (did you mean --model.window?)"),
        ("--trainer.acelerator cpu", "unknown option --trainer.acelerator (did you mean --trainer.accelerator?)"),
        ("--model.window large", "model.window is large: expected an integer"),
        ("--model.window", "argument --model.window: expected one argument"),
        ("--model.convention seed", "model.convention is seed: expected one of official, mmseg"),
        (
            "--model.reducer tome",
            "model.reducer is tome: expected ACT, EViT, ToMe, TokenClustering or the import path of your own "
            "(did you mean ToMe?)",
        ),
        (
            "--model.reducer ours",
            "model.reducer is ours: expected ACT, EViT, ToMe, TokenClustering or the import path of your own "
            "(did you mean TokenClustering?)",
        ),
        ("--model.checkpoint dmo", "checkpoint 'dmo' is neither a path nor a known name (did you mean demo?)"),
        ("--model.reducer NoSuchReducer", "model.reducer is NoSuchReducer: expected ACT, EViT, ToMe, TokenClustering"),
        ("--model.reducer ToMe", "model.reducer: ToMe needs a value for ratio (--model.reducer.ratio)"),
        ("--model.reducer ToMe --model.reducer.ratio x", "model.reducer.ratio is x: expected a number"),
        (
            "--model.reducer EViT --model.reducer.kep_rate 0.5",
            "unknown key model.reducer.kep_rate: EViT has no 'kep_rate' (did you mean keep_rate?)",
        ),
        ("--data NoSuchData", "data is NoSuchData: expected ADE20K, CamVid, Cityscapes, Demo, Folder, PascalContext"),
        ("--data.ignore 4", "data.ignore is 4: expected a list such as [4]"),
        ("--data.scales 1", "data.scales is 1: expected a list such as [1]"),
        ("--data.scales a,b", "data.scales is a,b: expected a list"),
        ("--data.num_worker 4", "unknown key data.num_worker: Folder has no 'num_worker' (did you mean num_workers?)"),
        ("--data Demo --data.ignore 4", "unknown key data.ignore: Demo has no 'ignore'; its settings are "),
        ("--trainer.precision 17", "trainer.precision is 17: expected one of 64, 32, 16,"),
        ("--trainer.callbacks Nothing", "trainer.callbacks is Nothing: expected the name or import path of a class"),
        ("--resume often", "resume is often: expected true or false"),
        ("surplus", "unknown argument surplus; lightning-expedite test --help lists the options"),
    ],
)
def test_a_mistake_in_an_option_names_the_value_and_what_is_expected(fails, config, words, message):
    assert message in fails("test", "--config", config, *words.split())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model: {widow: 64}", "unknown key model.widow: model has no 'widow' (did you mean window?)"),
        (
            "modle: {window: 64}",
            "unknown key modle.window: lightning-expedite test has no",
        ),
        ("model: {window: [64]}", "model.window is [64]: expected an integer"),
        ("data: {class_path: folder}", "expected ADE20K, CamVid, Cityscapes, Demo, Folder, PascalContext"),
        ("data: {init_args: {image: a}}", "unknown key data.image: Folder has no 'image' (did you mean images?)"),
    ],
)
def test_a_mistake_in_a_config_names_the_key(fails, data, config, content, message):
    (data / "more.yaml").write_text(content)
    assert message in fails("test", "--config", config, "--config", data / "more.yaml")


@pytest.mark.parametrize("words", ["--model.reducer.clusters 4,4", "--model.reducer.clusters=4,4"])
def test_numbers_with_commas_are_a_list(run, config, words):
    words = ("--model.reducer", "TokenClustering", "--model.reducer.location", "2", *words.split(), "--print_config")
    status, out, _ = run("test", "--config", config, *words)
    assert status == 0
    assert yaml.safe_load(out)["model"]["reducer"]["init_args"]["clusters"] == [4, 4]


def test_a_config_that_is_missing(fails, tmp_path):
    assert "no_such.yaml cannot be read" in fails("test", "--config", tmp_path / "no_such.yaml")
    assert "cannot be read" in fails("test", "--config")
    assert "(did you mean demo_ours?)" in fails("test", "--config", "configs/demo_our.yaml")


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
    assert "/file is a file: name a folder" in fails("test", "--config", config, "--output", tmp_path / "file")
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
        assert "labels/part1/3.png: label values 5, 6 are not classes" in message


def test_predict_on_a_folder_without_images(fails, config, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty" in fails("predict", "--config", config, "--images", tmp_path / "empty")
    assert "nowhere" in fails("predict", "--config", config, "--images", tmp_path / "nowhere")


def test_prepare_without_a_known_data_set(fails):
    assert "the following arguments are required: root, data_set" in fails("prepare")
    assert "data_set is coco: expected one of pascal_context" in fails("prepare", "coco", "--root", "x")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: load("demo", reducr=None),
            r"load has no argument 'reducr' \(did you mean reducer\?\); it has name_or",
        ),
        (lambda: ToMe(ratoi=0.3), r"ToMe has no argument 'ratoi' \(did you mean ratio\?\)"),
        (lambda: ToMe("x"), "ToMe: ratio='x' must be a number"),
        (lambda: ACT(2.5), "ACT: query_hashes=2.5 must be an integer"),
        (lambda: ToMe(True), "ToMe: ratio=True must be a number"),
        (lambda: ToMe(), "ToMe: missing a required argument: 'ratio'"),
        (lambda: EViT(4, 0.5), "locations=4 must be a list of layers"),
        (lambda: EViT([4.5], 0.5), r"locations=\[4.5\] must be a list of layers"),
        (lambda: EViT([4], 0.5, fuse_token="no"), "EViT: fuse_token='no' must be True or False"),
        (lambda: TokenClustering(4.5, (8, 8)), "TokenClustering: location=4.5 must be an integer"),
        (lambda: TokenClustering(4, (8, 8), iterations=2.5), "TokenClustering: iterations=2.5 must be an integer"),
        (lambda: TokenClustering(1, 3.5), "clusters=3.5 must be one or two integers"),
        (lambda: TokenClustering(1, True), "clusters=True must be one or two integers"),
        (lambda: load(3), "checkpoint is 3: it must be a path or a known name"),
        (lambda: load(None), "checkpoint is None: it must be a path or a known name"),
        (lambda: load(""), "checkpoint is '': it must be a path or a known name"),
        (lambda: load("dmeo"), r"checkpoint 'dmeo' is neither a path nor a known name \(did you mean demo\?\)"),
        (lambda: segment("demo", "scene.png"), "model is 'demo'; load it first"),
        (lambda: segment("scene.png", load("demo")), "model is 'scene.png'; load it first"),
        (lambda: segment(nn.Linear(2, 2), "scene.png"), r"model is Linear\(in_.*; load it first"),
        (lambda: token_groups("demo", "scene.png"), "model is 'demo'; load it first"),
        (lambda: export("demo", "out", None), "model is 'demo'; load it first"),
        (lambda: export("demo", "out"), "export: missing a required argument: 'crops'"),
        (lambda: export(load("demo"), "out", "scene.png"), "crops are 'scene.png': they must be a tensor"),
        (lambda: export(load("demo"), "out", torch.zeros(1, 3, 8, 8), batch="x"), "batch is 'x': it must be dynamic"),
    ],
)
def test_a_mistake_in_an_argument_names_it_and_what_is_expected(call, message, tmp_path, monkeypatch):
    save(tmp_path / "scene.png", picture(33, 71))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExpediteError, match=message):
        call()
