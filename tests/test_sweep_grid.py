"""Grids: their points, names and mistakes, and the reducers that they stand for."""

import json
import re
import string
from functools import reduce
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_expedite.cli.settings import EvaluationCLI, with_bases
from lightning_expedite.cli.sweep import resolved
from lightning_expedite.errors import ConfigError, ReducerError
from lightning_expedite.reducers import EncoderShape
from lightning_expedite.search.grid import point_name, read_grid
from lightning_expedite.search.points import Point, require_different, resolve_reducer

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
CONFIGS = Path(__file__).parents[1] / "configs"
GRIDS = {
    "published": EncoderShape(24, (40, 40)),
    "published_city": EncoderShape(24, (48, 48)),
    "published_pcontext": EncoderShape(24, (30, 30)),
    "demo": EncoderShape(12, (16, 16)),
    "camvid": EncoderShape(10, (16, 16)),
}


@pytest.fixture
def read(tmp_path):
    """Reads a grid of the given content."""

    def check(content):
        path = tmp_path / "grid.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        return read_grid(path)

    return check


def test_an_entry_stands_for_the_product_of_its_grid_and_its_points(read):
    entry = {
        "class_path": "TokenClustering",
        "init_args": {"iterations": 3},
        "grid": {"location": [4, 6], "clusters": [[8, 8], [10, 12]]},
        "points": [{"location": 2, "clusters": 9}],
    }
    points = read([entry, {"class_path": "one.Pooling"}, {"class_path": "two.Pooling", "name": "pooling2"}])[1]
    assert [point.name for point in points] == [
        "none",
        "tokenclustering_iterations3_location4_clusters8x8",
        "tokenclustering_iterations3_location4_clusters10x12",
        "tokenclustering_iterations3_location6_clusters8x8",
        "tokenclustering_iterations3_location6_clusters10x12",
        "tokenclustering_iterations3_location2_clusters9",
        "pooling",
        "pooling2",
    ]
    assert points[0].reducer is None
    assert points[2].reducer == {
        "class_path": "TokenClustering",
        "init_args": {"iterations": 3, "location": 4, "clusters": [10, 12]},
    }
    assert points[-1].reducer == {"class_path": "two.Pooling", "init_args": {}}


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"ratio": 0.3}, "tome_ratio0.3"),
        ({"locations": [4, 7, 10], "keep_rate": 0.5}, "tome_locations4-7-10_keep_rate0.5"),
        ({"fuse": True, "seed": None}, "tome_fusetrue_seednull"),
        ({"file": "../a b/c"}, "tome_file..-a-b-c"),
        ({"rate": 1e-05}, "tome_rate1e-05"),
    ],
)
def test_names_hold_the_settings(settings, name):
    assert point_name("tome", settings) == name
    long, other = ({"locations": [*range(60), last]} for last in (60, 61))
    assert point_name("evit", long) != point_name("evit", other)


VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(string.printable + "äß→")
    | st.lists(st.integers(), max_size=40)
)


@settings(deadline=None)
@given(st.dictionaries(st.text(string.ascii_lowercase + "_", min_size=1), VALUES))
def test_every_name_is_short_and_can_be_a_file_name(given_settings):
    assert NAME.fullmatch(point_name("pooling", given_settings))


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("- [", ("cannot be read",)),
        ("a: 1", ("must be a list of entries",)),
        ("", ("must be a list of entries",)),
        (["ToMe"], ("entry 1", "'ToMe'")),
        ([{"class": "ToMe"}], ("entry 1", "class")),
        ([{"class_path": "ToMe", "ratios": 1}], ("entry 1 (ToMe)", "unknown key ratios")),
        ([{"grid": {"ratio": [0.1]}}], ("entry 1", "class_path")),
        ([{"class_path": 3}], ("entry 1", "class_path is 3")),
        ([{"class_path": "ACT"}, {"class_path": "ToMe", "grid": {"ratio": 0.1}}], ("entry 2 (ToMe)", "ratio is 0.1")),
        ([{"class_path": "ToMe", "grid": {"ratio": []}}], ("entry 1 (ToMe)", "grid.ratio", "at least 1")),
        ([{"class_path": "ToMe", "grid": {}}], ("entry 1 (ToMe)", "grid is {}", "at least 1")),
        ([{"class_path": "ToMe", "grid": [1]}], ("entry 1 (ToMe)", "grid is [1]", "dictionary")),
        ([{"class_path": "ToMe", "init_args": [1]}], ("entry 1 (ToMe)", "init_args is [1]", "dictionary")),
        ([{"class_path": "ToMe", "points": {"ratio": 1}}], ("entry 1 (ToMe)", "points is {'ratio': 1}", "list")),
        ([{"class_path": "ToMe", "points": [3]}], ("entry 1 (ToMe)", "points.0 is 3")),
        (
            [{"class_path": "ToMe", "init_args": {"ratio": 0.1}, "grid": {"ratio": [0.1]}}],
            ("entry 1 (ToMe)", "ratio is in init_args and again in grid or points"),
        ),
        ([{"class_path": "ToMe", "name": "a/b"}], ("entry 1 (ToMe)", "name is 'a/b'")),
        ([{"class_path": "ToMe", "grid": {f"a{n}": list(range(10)) for n in range(9)}}], ("1,000,000,000 points",)),
        (
            [{"class_path": "ToMe", "grid": {"ratio": [0.1]}}, {"class_path": "ToMe", "init_args": {"ratio": 0.1}}],
            ("entry 2 (ToMe) and entry 1 (ToMe) both have a point tome_ratio0.1",),
        ),
        ([{"class_path": "ToMe", "name": "None"}], ("the baseline both have a point None",)),
    ],
)
def test_mistakes_in_a_grid_are_named(read, tmp_path, content, parts):
    with pytest.raises(ConfigError) as caught:
        read(content)
    message = str(caught.value)
    assert message.startswith(f"--grid {tmp_path / 'grid.yaml'}")
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_grid_that_is_missing_is_named_with_the_nearest_beside_it():
    with pytest.raises(ConfigError, match=r"dmeo\.yaml cannot be read: .*\(did you mean demo\.yaml\?\)"):
        read_grid(CONFIGS / "grids/dmeo.yaml")


def test_points_with_the_same_settings_are_refused():
    points = [Point(Path(), name, {"class_path": "ToMe", "init_args": {}}, {}) for name in ("tome", "again")]
    with pytest.raises(ConfigError, match=r"--grid a\.yaml: again has the same settings as tome"):
        require_different(points, "a.yaml")


def reducer_of(config):
    """Return the reducer of a config; a later file replaces its settings one by one."""
    reducers = [yaml.safe_load(file.read_text()).get("model", {}).get("reducer") for file in with_bases(config)]
    both = reduce(lambda base, more: {**base, **more}, filter(None, reducers))
    settings = [each.get("init_args", {}) for each in reducers if each]
    return {**both, "init_args": reduce(lambda base, more: {**base, **more}, settings)}


def grid_reducers(name):
    points = read_grid(CONFIGS / "grids" / f"{name}.yaml")[1]
    return [resolve_reducer(point.reducer, GRIDS[name]) for point in points if point.reducer]


@pytest.mark.parametrize(
    ("grid", "data_set"), [("published", "ade"), ("published_city", "city"), ("published_pcontext", "pcontext")]
)
def test_a_grid_of_published_rows_has_exactly_the_reducers_of_their_configs(grid, data_set):
    found = [json.dumps(reducer, sort_keys=True) for reducer in grid_reducers(grid)]
    files = [path for path in CONFIGS.glob(f"{data_set}_*.yaml") if path.stem != f"{data_set}_none"]
    wanted = [json.dumps(resolve_reducer(reducer_of(path), GRIDS[grid]), sort_keys=True) for path in files]
    assert len(files) == 12
    assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize("name", ["demo", "camvid"])
def test_grids_of_the_small_models_have_enough_points_of_every_method(name):
    methods = [reducer["class_path"].rpartition(".")[2] for reducer in grid_reducers(name)]
    assert len(methods) + 1 == 23
    assert all(methods.count(method) >= 4 for method in ("TokenClustering", "EViT", "ToMe", "ACT"))
    assert {path.stem for path in (CONFIGS / "grids").glob("*.yaml")} == set(GRIDS)  # each has a test


@pytest.mark.parametrize("method", ["ours", "evit", "tome", "act"])
def test_reducers_resolve_as_on_the_command_line(method):
    config = CONFIGS / f"demo_{method}.yaml"
    expected = resolved(EvaluationCLI(["--config", str(config), "--trainer.accelerator", "cpu"]))["model"]["reducer"]
    spec = reducer_of(config)
    full = {**spec, "class_path": expected["class_path"]}
    assert resolve_reducer(spec, GRIDS["demo"]) == resolve_reducer(full, GRIDS["demo"]) == expected


@pytest.mark.parametrize(
    ("spec", "error", "parts"),
    [
        (("Tome", {}), ConfigError, ("'Tome' is not a reducer (did you mean ToMe?): choose ACT, ", "EViT")),
        (("no.such.Thing", {}), ConfigError, ("'no.such.Thing' cannot be imported",)),
        (("pathlib.Path", {}), ConfigError, ("'pathlib.Path' is not a reducer",)),
        (("lightning_expedite.reducers.Reducer", {}), ConfigError, ("Reducer' is not a reducer",)),
        (("ToMe", {"ratio": 0.2, "share": 0.1}), ConfigError, ("ToMe: ", "'share'", "ratio")),
        (("TokenClustering", {"location": 4}), ConfigError, ("TokenClustering: ", "'clusters'")),
        (("ToMe", {"ratio": "much"}), ConfigError, ("ratio: ", "much")),
        (("ToMe", {"ratio": 1.5}), ReducerError, ("ratio=1.5",)),
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
