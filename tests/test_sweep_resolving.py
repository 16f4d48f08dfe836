"""What grids and options come to: the reducers of the published rows, and settings as the steps store them."""

import io
import json
from functools import reduce
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from lightning_expedite.cli.settings import EvaluationCLI, with_bases
from lightning_expedite.errors import ConfigError, ReducerError
from lightning_expedite.reducers import EncoderShape
from lightning_expedite.search.grid import read_grid
from lightning_expedite.search.resolving import changes, resolve_reducer, resolved

CONFIGS = Path(__file__).parents[1] / "configs"
GRIDS = {
    "published": EncoderShape(24, (40, 40)),
    "published_city": EncoderShape(24, (48, 48)),
    "published_pcontext": EncoderShape(24, (30, 30)),
    "demo": EncoderShape(12, (16, 16)),
    "camvid": EncoderShape(10, (16, 16)),
}


def merged(one, other):
    both = {**one, **other}
    for key in one.keys() & other.keys():
        if isinstance(one[key], dict) and isinstance(other[key], dict):
            both[key] = merged(one[key], other[key])
    return both


def reducer_of(config):
    files = [yaml.safe_load(file.read_text()) for file in with_bases(config)]
    return reduce(merged, files)["model"]["reducer"]


def grid_reducers(name):
    points = read_grid(CONFIGS / "grids" / f"{name}.yaml").points
    return {point.name: resolve_reducer(point.reducer, GRIDS[name]) for point in points if point.reducer}


@pytest.mark.parametrize(
    ("grid", "data_set"), [("published", "ade"), ("published_city", "city"), ("published_pcontext", "pcontext")]
)
def test_a_grid_of_published_rows_has_exactly_the_reducers_of_their_configs(grid, data_set):
    found = [json.dumps(reducer, sort_keys=True) for reducer in grid_reducers(grid).values()]
    files = [path for path in CONFIGS.glob(f"{data_set}_*.yaml") if path.stem != f"{data_set}_none"]
    wanted = [json.dumps(resolve_reducer(reducer_of(path), GRIDS[grid]), sort_keys=True) for path in files]
    assert len(files) == 12
    assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize("name", ["demo", "camvid"])
def test_grids_of_the_small_models_have_enough_points_of_every_method(name):
    reducers = grid_reducers(name)
    methods = [reducer["class_path"].rpartition(".")[2] for reducer in reducers.values()]
    assert len(reducers) + 1 == 23
    assert {method: methods.count(method) >= 4 for method in methods} == dict.fromkeys(
        ("TokenClustering", "EViT", "ToMe", "ACT"), True
    )


def test_there_is_a_test_for_every_grid():
    assert {path.stem for path in (CONFIGS / "grids").glob("*.yaml")} == set(GRIDS)


@pytest.mark.parametrize("method", ["ours", "evit", "tome", "act"])
def test_reducers_resolve_as_on_the_command_line(method):
    config = CONFIGS / f"demo_{method}.yaml"
    expected = resolved(EvaluationCLI(["--config", str(config), "--trainer.accelerator", "cpu"]))["model"]["reducer"]
    spec = reducer_of(config)
    whole = {**spec, "class_path": expected["class_path"]}
    assert resolve_reducer(spec, GRIDS["demo"]) == resolve_reducer(whole, GRIDS["demo"]) == expected


@pytest.mark.parametrize(
    ("spec", "error", "parts"),
    [
        (("Tome", {}), ConfigError, ("'Tome' is no reducer; there are ACT, ", "EViT", "TokenClustering")),
        (("no.such.Thing", {}), ConfigError, ("'no.such.Thing' cannot be imported",)),
        (("pathlib.Path", {}), ConfigError, ("'pathlib.Path' is no reducer",)),
        (("ToMe", {"share": 0.1}), ConfigError, ("share is no setting of ToMe", "ratio")),
        (("TokenClustering", {"location": 4}), ConfigError, ("TokenClustering needs clusters",)),
        (("ToMe", {"ratio": "much"}), ConfigError, ("ratio: ", "much")),
        (("ToMe", {"ratio": 1.5}), ReducerError, ("ratio=1.5 must lie between 0 and 1",)),
        (("TokenClustering", {"location": 13, "clusters": 8}), ReducerError, ("location 13", "1 to 12")),
        (("TokenClustering", {"location": 3, "clusters": [17, 8]}), ReducerError, ("clusters=(17, 8)", "(16, 16)")),
    ],
)
def test_reducers_that_cannot_be_used_are_named(spec, error, parts):
    with pytest.raises(error) as caught:
        resolve_reducer({"class_path": spec[0], "init_args": spec[1]}, GRIDS["demo"])
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_changes_are_what_a_later_config_has_to_say():
    plain = {
        "seed_everything": 0,
        "data": {"class_path": "Demo", "init_args": {"count": None, "scales": [1.0]}},
        "model": {"window": None, "stride": 2},
        "trainer": {"callbacks": None},
    }
    assert changes(plain, plain) == {}
    full = {
        "seed_everything": 1,
        "data": {"class_path": "Demo", "init_args": {"count": 4, "scales": [1.0]}},
        "model": {"window": 64, "stride": 2},
        "trainer": {"callbacks": [{"class_path": "A"}]},
    }
    assert changes(plain, full) == {
        "seed_everything": 1,
        "data": {"class_path": "Demo", "init_args": {"count": 4}},
        "model": {"window": 64},
        "trainer": {"callbacks": [{"class_path": "A"}]},
    }
    other = {**plain, "data": {"class_path": "Folder", "init_args": {"images": "a"}}}
    assert changes(plain, other) == {"data": other["data"]}
    assert changes({}, plain) == plain


def test_progress_on_a_terminal_counts_points_and_tells_the_time_left():
    from lightning_expedite.search.folders import Failure
    from lightning_expedite.search.progress import SweepProgress

    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=150, color_system=None)
    with SweepProgress(console, 4, 1, ["test", "test", "test"]) as progress:
        progress.begin("one", "test")
        progress.end()
        progress.finish_point()
        progress.begin("two", "test")
        progress.fail_point(Failure("test", "[broken]"), ["test"], ["last [line]"], "log.txt")
    shown = text.getvalue()
    assert "1 of 4 points are done already" in shown
    assert "two: test failed: [broken]" in shown
    assert "last [line]" in shown
    assert "2 done, 1 failed, 1 left" in shown
    assert "2/3" in shown
    assert "1 step left, about 0 s" in shown
    assert "no steps left" not in shown
