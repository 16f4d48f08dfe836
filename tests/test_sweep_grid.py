"""Grids, shards and the options of sweeps: all that needs no torch."""

import itertools
import re
import string

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_expedite.errors import ConfigError
from lightning_expedite.evaluation.resume import difference
from lightning_expedite.search.grid import point_name, read_grid
from lightning_expedite.search.progress import Estimate
from lightning_expedite.search.sharding import Shard, read_shard
from lightning_expedite.search.sweep_options import read_options, split_words

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")


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
    points = read([entry, {"class_path": "my.own.Pooling"}]).points
    assert [point.name for point in points] == [
        "none",
        "tokenclustering_iterations3_location4_clusters8x8",
        "tokenclustering_iterations3_location4_clusters10x12",
        "tokenclustering_iterations3_location6_clusters8x8",
        "tokenclustering_iterations3_location6_clusters10x12",
        "tokenclustering_iterations3_location2_clusters9",
        "pooling",
    ]
    assert points[0].reducer is None
    assert points[2].reducer == {
        "class_path": "TokenClustering",
        "init_args": {"iterations": 3, "location": 4, "clusters": [10, 12]},
    }
    assert points[-1].reducer == {"class_path": "my.own.Pooling", "init_args": {}}


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"ratio": 0.3}, "tome_ratio0.3"),
        ({"locations": [4, 7, 10], "keep_rate": 0.5}, "tome_locations4-7-10_keep_rate0.5"),
        ({"fuse": True, "seed": None}, "tome_fusetrue_seednull"),
        ({"file": "../a b/c"}, "tome_file..-a-b-c"),
        ({"rate": 1e-05}, "tome_rate1e-05"),
        ({"shift": -2}, "tome_shift-2"),
    ],
)
def test_names_tell_the_settings_and_can_be_file_names(settings, name):
    assert point_name("tome", settings) == name
    assert NAME.fullmatch(name)


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


def test_long_settings_that_begin_alike_have_names_of_their_own():
    one, other = ({"locations": [*range(60), last]} for last in (60, 61))
    assert point_name("evit", one) != point_name("evit", other)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("- [", ("cannot be read",)),
        ("a: 1", ("must be a list of entries",)),
        ("", ("must be a list of entries",)),
        (["ToMe"], ("entry 1", "'ToMe' must be a mapping")),
        ([{"class": "ToMe"}], ("entry 1", "class is no key of an entry")),
        ([{"grid": {"ratio": [0.1]}}], ("entry 1", "class_path must name")),
        ([{"class_path": "ACT"}, {"class_path": "ToMe", "grid": {"ratio": 0.1}}], ("entry 2 (ToMe)", "grid.ratio")),
        ([{"class_path": "ToMe", "grid": {"ratio": []}}], ("entry 1 (ToMe)", "grid.ratio", "at least one")),
        ([{"class_path": "ToMe", "grid": {}}], ("entry 1 (ToMe)", "grid is empty")),
        ([{"class_path": "ToMe", "grid": [1]}], ("entry 1 (ToMe)", "grid must be a mapping")),
        ([{"class_path": "ToMe", "init_args": [1]}], ("entry 1 (ToMe)", "init_args must be a mapping")),
        ([{"class_path": "ToMe", "points": {"ratio": 1}}], ("entry 1 (ToMe)", "points must be a list")),
        ([{"class_path": "ToMe", "points": [3]}], ("entry 1 (ToMe)", "points, number 1")),
        (
            [{"class_path": "ToMe", "init_args": {"ratio": 0.1}, "grid": {"ratio": [0.1]}}],
            ("entry 1 (ToMe)", "ratio stands in both init_args and grid"),
        ),
        ([{"class_path": "ToMe", "name": "a/b"}], ("entry 1 (ToMe)", "name is 'a/b'")),
        (
            [{"class_path": "ToMe", "grid": {"ratio": [0.1]}}, {"class_path": "ToMe", "init_args": {"ratio": 0.1}}],
            ("entry 2 (ToMe) has the point tome_ratio0.1, which entry 1 (ToMe) has already",),
        ),
        ([{"class_path": "ToMe", "name": "None"}], ("None, which the unreduced model has already",)),
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


def test_classes_of_one_name_are_told_apart_by_a_name_of_the_entry(read):
    entries = [{"class_path": "one.Pooling"}, {"class_path": "two.Pooling", "name": "pooling2"}]
    assert [point.name for point in read(entries).points] == ["none", "pooling", "pooling2"]


@settings(deadline=None)
@given(st.lists(st.integers(), unique=True), st.integers(1, 60))
def test_every_item_is_in_one_shard(items, count):
    parts = [Shard(number, count).take(items) for number in range(1, count + 1)]
    assert sorted(itertools.chain(*parts)) == sorted(items)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_shards_are_read():
    assert read_shard("2/4") == Shard(2, 4)
    for text in ("0/4", "5/4", "1", "a/b", "1/0", "-1/2", "1/2/3", ""):
        with pytest.raises(ConfigError, match="--shard"):
            read_shard(text)


def test_options_go_to_the_steps_that_they_are_for():
    words = ["--data.count", "2", "--benchmark.seconds", "3", "--trainer.callbacks+=X", "--benchmark.precision=16-true"]
    assert split_words([*words, "--model.window", "64", "--data", "Demo", "--seed_everything=4"]) == (
        [
            "--data.count",
            "2",
            "--trainer.callbacks+=X",
            "--model.window",
            "64",
            "--data",
            "Demo",
            "--seed_everything=4",
        ],
        ["--seconds", "3", "--precision=16-true"],
    )


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("--datas.count", "--datas.count is no option of sweep"),
        ("--benchmark", "--benchmark is no option of sweep"),
        ("--benchmark.output", "--benchmark.output is no option"),
        ("--benchmark.data.root", "--benchmark.data.root is no option"),
        ("--seconds=3", "--seconds is no option"),
        ("--model.reducer=ToMe", "the grid gives the reducers"),
        ("--model.reducer.ratio", "the grid gives the reducers"),
        ("surplus", "'surplus' belongs to no option"),
    ],
)
def test_options_that_are_not_handed_on_are_named(word, part):
    with pytest.raises(ConfigError, match=re.escape(part)):
        split_words([word])


def test_options_have_defaults_and_a_place_of_the_data(monkeypatch):
    options = read_options(["--config", "a/b.yaml", "--grid", "g.yaml", "--data.root", "here", "--data.count", "3"])
    assert (str(options.output), options.steps) == ("runs/sweep_b", ("test", "benchmark"))
    assert options.place_words == ["--data.root", "here"]
    with pytest.raises(ConfigError, match="--steps has 'tests'"):
        read_options(["--config", "a", "--grid", "g", "--steps", "tests"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="not by torchrun"):
        read_options(["--config", "a", "--grid", "g"])


def test_the_first_difference_of_settings_is_named():
    settings = {"data": {"count": 2, "root": "a"}, "model": {"window": None}}
    assert difference(settings, settings) is None
    assert difference(settings, {"data": {"count": 4, "root": "b"}, "model": {}}) == "data.count 2 instead of 4"
    assert difference({**settings, "more": 1}, settings) == "more 1 instead of null"


def test_time_left_follows_from_the_steps_that_ended():
    estimate = Estimate()
    assert estimate.left({"test": 1}) is None
    for seconds in (2, 4):
        estimate.add("test", seconds)
    assert estimate.left({"test": 5, "benchmark": 1}) is None
    estimate.add("benchmark", 10)
    assert estimate.left({"test": 5, "benchmark": 1}) == 25
