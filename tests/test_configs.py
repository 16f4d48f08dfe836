"""The configs of the published rows, of the demo and of CamVid: what they say and that they say it once."""

import itertools
import json
from functools import lru_cache
from pathlib import Path

import pytest
import yaml
from reference import DATA

from lightning_expedite.cli.settings import EvaluationCLI, with_bases
from lightning_expedite.data import ADE20K, CamVid, Cityscapes, Demo, PascalContext
from lightning_expedite.reducers import ACT, EViT, TokenClustering, ToMe

CONFIGS = Path(__file__).parents[1] / "configs"
PROTOCOLS = {
    "ade20k": ("ade", ADE20K, 640, 2560, 640, 640, "ade20k/seg_large_mask_640", 150),
    "cityscapes": ("city", Cityscapes, None, None, 768, 512, "cityscapes/seg_large_mask", 19),
    "pascal_context": ("pcontext", PascalContext, 520, 4160, 480, 320, "pascal_context/seg_large_mask", 60),
}


def published_rows():
    """Data set and row of every config, by the config's name."""
    rows = {}
    for data_set, table in json.loads((DATA / "published.json").read_text())["rows"].items():
        for row in table:
            setting = row["setting"]
            name = {
                "none": lambda s: "none",
                "ours": lambda s: f"ours_h{s['alpha']}",
                "evit": lambda s: f"evit_k{100 * s['keep_rate']:.0f}",
                "tome": lambda s: f"tome_r{100 * s['ratio']:.0f}",
                "act": lambda s: f"act_q{s['query_hashes']}",
            }[row["method"]](setting)
            rows[f"{PROTOCOLS[data_set][0]}_{name}"] = (data_set, row)
    return rows


ROWS = published_rows()
OTHERS = [f"{data}_{method}" for data in ("demo", "camvid") for method in ("none", "ours", "evit", "tome", "act")]


@lru_cache(maxsize=1)
def parsed(name):
    return EvaluationCLI(["--config", str(CONFIGS / f"{name}.yaml"), "--trainer.accelerator", "cpu"])


def test_there_is_one_config_for_every_published_row_and_no_other():
    assert len(ROWS) == 39
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {*ROWS, *OTHERS}


@pytest.mark.parametrize("name", ROWS)
def test_a_config_says_what_its_published_row_says(name):
    data_set, row = ROWS[name]
    _, kind, short_side, long_side, window, stride, checkpoint, classes = PROTOCOLS[data_set]
    cli = parsed(name)
    data, model, setting = cli.datamodule, cli.model, row["setting"]
    assert type(data) is kind
    assert data.num_classes == classes
    assert (data.short_side, data.long_side) == (short_side, long_side)
    assert data.split in ("val", "validation")
    assert data.scales == (1.0,)
    assert not data.mirror
    assert (model.window, model.stride) == (window, stride)
    assert model.convention == "mmseg"
    assert model.checkpoint == checkpoint
    reducer = model.reducer
    if row["method"] == "none":
        assert reducer is None
    elif row["method"] == "ours":
        assert type(reducer) is TokenClustering
        assert vars(reducer) == {
            "location": setting["alpha"],
            "clusters": tuple(setting["clusters"]),
            "window_size": 5,
            "iterations": 5,
            "temperature": 0.02,
            "neighbours": 20,
            "reconstruction_temperature": 0.02,
        }
    elif row["method"] == "evit":
        assert type(reducer) is EViT
        assert vars(reducer) == {
            "locations": (8, 14, 20),
            "keep_rate": setting["keep_rate"],
            "fuse_token": True,
            "neighbours": 1,
            "reconstruction_temperature": 0.005,
        }
    elif row["method"] == "tome":
        assert type(reducer) is ToMe
        assert reducer.ratio == setting["ratio"]
    else:
        assert row["method"] == "act"
        assert type(reducer) is ACT
        assert (reducer.query_hashes, reducer.seed) == (setting["query_hashes"], 0)
    assert cli.output == Path("runs") / name


@pytest.mark.parametrize("name", OTHERS)
def test_the_demo_and_camvid_configs_parse(name):
    data, method = name.split("_")
    cli = parsed(name)
    assert type(cli.datamodule) is {"demo": Demo, "camvid": CamVid}[data]
    expected = {"none": type(None), "ours": TokenClustering, "evit": EViT, "tome": ToMe, "act": ACT}[method]
    assert type(cli.model.reducer) is expected
    assert cli.model.convention == "mmseg"
    assert (cli.model.window, cli.model.stride) == (None, None)  # the checkpoint's own


def paths_of(content, above=()):
    """Key paths of all values of a nested mapping."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from paths_of(value, (*above, key))
        else:
            yield ".".join((*above, key))


@pytest.mark.parametrize("name", [*ROWS, *OTHERS])
def test_no_value_is_given_by_two_files_of_one_config(name):
    files = with_bases(CONFIGS / f"{name}.yaml")
    assert files[-1] == CONFIGS / f"{name}.yaml"
    keys = {file: set(paths_of(yaml.safe_load(file.read_text()))) for file in files}
    for one, other in itertools.combinations(files, 2):
        assert keys[one] & keys[other] <= {"base", "model.reducer.class_path"}


def test_every_part_is_used():
    used = {file.resolve() for name in (*ROWS, *OTHERS) for file in with_bases(CONFIGS / f"{name}.yaml")}
    grids = set((CONFIGS / "grids").glob("*.yaml"))  # no configs; see test_sweep_resolving.py
    assert {path.resolve() for path in {*CONFIGS.rglob("*.yaml")} - grids} == used
