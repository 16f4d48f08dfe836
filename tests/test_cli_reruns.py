"""What a second command may do with what a first one left behind, and options that change how a run is started."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from processes import process_environment
from small_run import command_line, make_config, make_data
from stored_models import OFFICIAL

from lightning_expedite.cli.settings import EvaluationCLI, expand_configs


@pytest.fixture
def config(tmp_path):
    return make_config(make_data(tmp_path, count=2))


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def check(*words, status=0):
        found, out, err = command_line(capsys, *words)
        assert found == status, err
        assert "Traceback" not in out + err
        return out + err

    return check


def test_a_resolved_config_keeps_null_and_leaves_out_where_results_went(run, config, tmp_path):
    run("test", "--config", config, "--model.convention", "null", "--overwrite", "--output", tmp_path / "out")
    resolved = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert resolved["model"]["convention"] is None
    assert resolved["model"]["reducer"] is None
    assert "overwrite" not in resolved
    assert "output" not in resolved
    again = EvaluationCLI(["--config", str(tmp_path / "out" / "config.yaml")])
    assert again.model.convention is None


def test_results_tell_the_protocol_that_was_used(run, config, tmp_path):
    run("test", "--config", config, "--model.convention", "null", "--output", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["protocol"] == {
        "convention": "official",  # the layout's own
        "window": 64,
        "stride": 48,
        "short_side": 128,  # the checkpoint's variant.yml
        "long_side": 512,
        "normalization": "vit",
        "scales": [1.0],
        "mirror": False,
    }


def test_predict_leaves_the_config_of_a_test_as_it_is(run, config, tmp_path):
    run("test", "--config", config, "--output", tmp_path / "out")
    before = (tmp_path / "out" / "config.yaml").read_bytes()
    run("predict", "--config", config, "--overlay", "--output", tmp_path / "out")
    assert (tmp_path / "out" / "config.yaml").read_bytes() == before


def test_an_output_folder_that_takes_no_file(run, config):
    assert "/proc/self cannot be written to" in run("predict", "--config", config, "--output", "/proc/self", status=2)


def test_the_short_option_reads_bases_too(tmp_path):
    (tmp_path / "base.yaml").write_text("seed_everything: 1\n")
    (tmp_path / "own.yaml").write_text("base: [base.yaml]\n")
    words, named = expand_configs(["-c", str(tmp_path / "own.yaml")])
    assert words == ["--config", str(tmp_path / "base.yaml"), "--config", str(tmp_path / "own.yaml")]
    assert named == [tmp_path / "own.yaml"]


def test_a_base_of_two_configs_is_read_once(tmp_path):
    (tmp_path / "base.yaml").write_text("seed_everything: 1\n")
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text("base: [base.yaml]\n")
    words, _ = expand_configs(["--config", str(tmp_path / "one.yaml"), "--config", str(tmp_path / "two.yaml")])
    assert [Path(word).name for word in words[1::2]] == ["base.yaml", "one.yaml", "two.yaml"]


def test_convert_does_not_replace_a_variant(run, tmp_path):
    weights = Path(__file__).parent / "data" / "parity" / "official_mask" / "checkpoint.pth"
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "variant.yml").write_text("{}")
    assert "variant.yml" in run("convert", "--checkpoint", weights, "--output", tmp_path / "model", status=2)
    assert (tmp_path / "model" / "variant.yml").read_text() == "{}"


def test_a_link_back_up_lists_no_image_twice(run, config, tmp_path):
    (tmp_path / "images" / "loop").symlink_to(tmp_path / "images")
    run("predict", "--config", config, "--images", tmp_path / "images", "--output", tmp_path / "out")
    assert len(list((tmp_path / "out" / "labels").rglob("*.png"))) == 2


def test_images_that_were_counted_for_other_classes_are_refused(run, stop, config, tmp_path):
    words = ("test", "--config", config, "--output", "out")
    stop(1)
    run(*words, status=1)
    stop(None)
    (path,) = (tmp_path / "out" / "unfinished_test").glob("*.jsonl")
    record = json.loads(path.read_text())
    record["counts"] = [counts[:1] for counts in record["counts"]]
    path.write_text(json.dumps(record) + "\n")
    message = run(*words, "--resume", "true", status=2)
    assert f"has counted {record['name']} for 1 classes, but the model has 5: use --overwrite to start again" in message
    run(*words, "--overwrite")


def test_a_model_with_one_class(run, tmp_path):
    """Case 11: everything is that class, so every score is 100 wherever pixels are labelled."""
    config = make_config(make_data(tmp_path, count=2))
    content = yaml.safe_load(config.read_text())
    content["data"]["init_args"] |= {"classes": ["thing"], "ignore": [1, 2, 3]}
    config.write_text(yaml.safe_dump(content))
    state = torch.load(OFFICIAL / "checkpoint.pth", weights_only=True)["model"]
    state["decoder.cls_emb"] = state["decoder.cls_emb"][:, :1]
    for name in ("weight", "bias"):
        state[f"decoder.mask_norm.{name}"] = state[f"decoder.mask_norm.{name}"][:1]
    variant = yaml.safe_load((OFFICIAL / "variant.yml").read_text())
    variant["net_kwargs"]["n_cls"] = 1
    (tmp_path / "model").mkdir()
    torch.save({"model": state}, tmp_path / "model" / "checkpoint.pth")
    (tmp_path / "model" / "variant.yml").write_text(yaml.safe_dump(variant))
    run("test", "--config", config, "--model.checkpoint", tmp_path / "model", "--output", "out")
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["scores"] == {"mIoU": 100.0, "aAcc": 100.0, "mAcc": 100.0}
    assert found["intersection"] == found["union"] == found["label"] != [0]


def test_names_that_are_no_utf8(run, config, tmp_path):
    """Case 12."""
    for folder in ("images", "labels"):
        path = next((tmp_path / folder).rglob("0.png"))
        path.rename(path.with_name(os.fsdecode(b"stra\xdfe.png")))
    run("test", "--config", config, "--output", "out")
    names = [json.loads(line)["name"] for line in (tmp_path / "out" / "images.jsonl").read_text().splitlines()]
    assert [name for name in names if "stra" in name] == ["part0/stra\\xdfe"]
    run("predict", "--config", config, "--output", "maps", "--overlay")
    assert len(list((tmp_path / "maps").rglob("*stra*.png"))) == 2


def test_class_names_outside_the_terminals_encoding(config, tmp_path):
    """Case 13."""
    content = yaml.safe_load(config.read_text())
    content["data"]["init_args"]["classes"][0] = "straße 道路"
    config.write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "lightning_expedite", "test", "--config", str(config), "--output", "out"]
    environment = process_environment(PYTHONIOENCODING="ascii")
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert rb"stra\xdfe \u9053\u8def" in done.stdout
    assert json.loads((tmp_path / "out" / "results.json").read_text())["per_class"][0]["name"] == "straße 道路"
