"""Configs of every mistake: unknown keys, wrong types, contradictions, and files that are no configs."""

import json

import pytest
import yaml
from fuzzing import BOMB, NOTHING, PLACES, UNREADABLE_YAML, examples
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_expedite.errors import ConfigError, ReducerError
from lightning_expedite.files import parse_yaml
from lightning_expedite.reducers import ACT, EViT, TokenClustering, ToMe
from lightning_expedite.search.grid import read_grid

pytestmark = pytest.mark.promise("bad-configs")
few_examples = examples(50)


@pytest.fixture
def refuses(fails, config, tmp_path):
    """Puts a second config over one that works, and checks that it is refused, in an error with these words."""

    def check(content, *words):
        path = tmp_path / "more.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        message = fails("test", "--config", config, "--config", path, "--output", tmp_path / "out")
        for word in words:
            assert word in message
        assert len(message) < 2100
        assert not (tmp_path / "out/results.json").exists()
        return message

    return check


def nested(path, value):
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


MAY_BE_NULL = [
    *("model.convention", "model.window", "model.stride", "model.weights_folder", "model.reducer"),
    *("data.init_args.short_side", "data.init_args.long_side", "data.init_args.normalization", "output"),
]


@pytest.mark.parametrize("path", MAY_BE_NULL)
def test_null_is_taken_where_it_means_something(config, tmp_path, path):
    from lightning_expedite.cli.test import ScoringCLI

    (tmp_path / "more.yaml").write_text(yaml.safe_dump(nested(path, None)))
    assert ScoringCLI(["--config", str(config), "--config", str(tmp_path / "more.yaml")]).config is not None


UNKNOWN = [
    *("modle", "Model", "model.widow", "model.Window", "model.window ", "model.checkpoints", "model.init_args"),
    *("data.init_args.root", "data.init_args.image", "data.batch", "trainer.gpus", "trainer.acelerator"),
    *("trainer.plugins.unknown", "optimizer", "seed", "model.reducer.init_args.ratio2", "overwite", "test", "predict"),
]


@pytest.mark.parametrize("path", UNKNOWN)
def test_an_unknown_key_is_named(refuses, path):
    content = nested(path, 3)
    if ".reducer." in path:
        content["model"]["reducer"]["class_path"] = "ToMe"
    refuses(content, path.rpartition(".")[2].strip())


WRONG_TYPES = {
    "model.window": ["large", 1.5, [64], {"a": 1}, True, "64px", float("nan"), float("inf")],
    "model.stride": ["wide", 0.5, [48], False],
    "model.window_batch_size": [None, "4x", 2.5, []],
    "model.convention": ["seed", 3, ["mmseg"], True, ""],
    "model.checkpoint": [None, 3, ["a"], {"a": 1}],
    "model.pack_weights": ["perhaps", 3, []],
    "model.compile": ["fastest", 3, []],
    "model.reducer": [
        "Nothing",
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        3,
        [1],
        {"class_path": 3},
        "torch.nn.Linear",
    ],
    "data.init_args.images": [3, None, ["a"]],
    "data.init_args.classes": [3, [3.5, []], {"a": 1}, None],
    "data.init_args.ignore": [3, ["a"], [1.5], "a"],
    "data.init_args.reduce_zero_label": ["maybe", 3],
    "data.init_args.scales": [[], ["a"], 1.0, [None], "wide"],
    "data.init_args.mirror": ["left", 2],
    "data.init_args.normalization": ["imagenet", 3, ["vit"]],
    "data.init_args.num_workers": ["all", 1.5, None],
    "data.class_path": ["Nothing", "os.system", 3, "lightning_expedite.errors.DataError", ""],
    "trainer.accelerator": ["quantum"],
    "trainer.precision": ["17", "double-double"],
    "trainer.limit_test_batches": ["all", 1.5, -1],
    "trainer.devices": [-2, 0, "some"],
    "trainer.logger": ["Nothing"],
    "trainer.callbacks": ["Nothing", [3]],
    "seed_everything": ["often", -1, 1.5],
    "log_images": ["all", -1, 1.5],
    "output": [["a"], {"a": 1}],
    "resume": ["perhaps", 3],
}


@pytest.mark.parametrize(
    ("path", "value"), [(path, value) for path in WRONG_TYPES for value in WRONG_TYPES[path]], ids=str
)
def test_a_value_of_the_wrong_kind(refuses, path, value):
    refuses(nested(path, value))


OUT_OF_RANGE = {
    "model.window": [0, -64, 10**7, 10**30],
    "model.stride": [0, -1, 65, 10**30],
    "model.window_batch_size": [0, -1, 10**9],
    "data.init_args.short_side": [0, -5, 10**9],
    "data.init_args.batch_size": [0, -1, 10**9],
    "data.init_args.num_workers": [-1, 10**6],
    "data.init_args.scales": [[0.0], [-1.0], [float("nan")], [float("inf")], [1e9], [1.0, 0.0]],
    "data.init_args.ignore": [[-1], [256], [10**30]],
    "data.init_args.classes": [[], ["a", "a"], [""] * 2, [str(number) for number in range(255)], ["a\nb"], ["a" * 500]],
}


@pytest.mark.parametrize(
    ("path", "value"), [(path, value) for path in OUT_OF_RANGE for value in OUT_OF_RANGE[path]], ids=str
)
def test_a_value_out_of_its_range_is_named(refuses, path, value):
    refuses(nested(path, value), path.rpartition(".")[2])


def reducer(name, **arguments):
    return {"model": {"reducer": {"class_path": name, "init_args": arguments}}}


EVIT = {"locations": [1], "keep_rate": 0.5}
CLUSTERING = {"location": 2, "clusters": 4}
CONTRADICTIONS = {
    "a location before the first": reducer("EViT", **EVIT | {"locations": [0]}),
    "a location below 0": reducer("EViT", **EVIT | {"locations": [-1]}),
    "a location twice": reducer("EViT", **EVIT | {"locations": [2, 2]}),
    "no location": reducer("EViT", **EVIT | {"locations": []}),
    "no neighbours": reducer("EViT", **EVIT | {"neighbours": 0}),
    "a temperature of 0": reducer("EViT", **EVIT | {"reconstruction_temperature": 0}),
    "an infinite temperature": reducer("EViT", **EVIT | {"reconstruction_temperature": float("inf")}),
    "clusters beyond the depth": reducer("TokenClustering", **CLUSTERING | {"location": 9}),
    "clusters before the first layer": reducer("TokenClustering", **CLUSTERING | {"location": 0}),
    "more rows than tokens": reducer("TokenClustering", **CLUSTERING | {"clusters": [9, 4]}),
    "three sides": reducer("TokenClustering", **CLUSTERING | {"clusters": [4, 4, 4]}),
    "no iterations": reducer("TokenClustering", **CLUSTERING | {"iterations": 0}),
    "no window": reducer("TokenClustering", **CLUSTERING | {"window_size": 0}),
    "a temperature below 0": reducer("TokenClustering", **CLUSTERING | {"temperature": -1}),
    "a seed below 0": reducer("ACT", query_hashes=8, seed=-1),
    "a seed too large": reducer("ACT", query_hashes=8, seed=1 << 63),
    "a reducer without its setting": reducer("ToMe"),
    "the setting of another reducer": reducer("ToMe", keep_rate=0.5),
    "an abstract reducer": reducer("Reducer"),
    "a long side alone": {"data": {"init_args": {"long_side": 64}}, "model": {"checkpoint": "no-such"}},
    "classes that the model has not": {"data": {"init_args": {"classes": ["a", "b"]}}},
    "a class more than the model": {"data": {"init_args": {"classes": list("abcdef")}}},
    "an image size without end": {"data": {"init_args": {"short_side": 900_000}}},
    "no images at all": {"trainer": {"limit_test_batches": 0}},
    "another data set's root": {"data": {"class_path": "ADE20K", "init_args": {"root": "nowhere"}}},
    "no labels": {"data": {"init_args": {"labels": None}}},
    "labels that are images": {"data": {"init_args": {"labels": "IMAGES"}}},
    "images that are a file": {"data": {"init_args": {"images": "CONFIG"}}},
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_settings_that_contradict_each_other_or_the_model(refuses, data, config, kind):
    text = yaml.safe_dump(CONTRADICTIONS[kind])
    refuses(text.replace("IMAGES", str(data / "images")).replace("CONFIG", str(config)))


TEXTS = {
    **UNREADABLE_YAML,
    "a list": "- model",
    "a word": "model",
    "a number": "3",
    "a base that is missing": "base: [missing.yaml]",
    "a base that is text": "base: other.yaml",
    "a base that is itself": "base: [more.yaml]",
    "a base of no name": "base: ['']",
    "a base that is a folder": "base: [.]",
    "a base of numbers": "base: [3]",
    "a base that is a device": "base: [/dev/zero]",
    "a base with a zero byte": 'base: ["a\\0b"]',
    "a base of a name too long": f"base: [{'a' * 5000}]",
    "escapes of a terminal": 'model: "\\e[31m"',
    "keys that are no text": "3: 4",
    "a key that is a list": "? [a]\n: 3",
    "an empty key": "'': 3",
}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_text_that_is_no_config(refuses, kind):
    refuses(TEXTS[kind])


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x80abc", b"model: \xe9", bytes(100)], ids=repr)
def test_bytes_that_are_no_config(fails, config, tmp_path, content):
    (tmp_path / "more.yaml").write_bytes(content)
    assert "more.yaml" in fails("test", "--config", config, "--config", tmp_path / "more.yaml")


@pytest.mark.parametrize("place", PLACES | NOTHING)
@pytest.mark.parametrize("option", ["--config", "--grid"])
def test_something_else_in_the_place_of_a_file(fails, config, tmp_path, place, option):
    path = tmp_path / "more.yaml"
    (PLACES | NOTHING)[place](path)
    words = ("test", "--config", config) if option == "--config" else ("sweep", "--config", config, "--output", "out")
    assert "more.yaml" in fails(*words, option, path)


@pytest.mark.parametrize(
    "words",
    [
        *(("--config",), ("--config=",), ("--base", "a.yaml"), ("--base=a.yaml",), ("-c",)),
        *(
            ("--model.window",),
            ("--model.window=",),
            ("--no_such",),
            ("--model.reducer=",),
            ("--model.reducer=null.x",),
        ),
        *(
            ("--model", "{"),
            ("--data", "["),
            ("--trainer", "3"),
            ("--model.window", "1e400"),
            ("--model.window", "\u0664"),
        ),
        *(("--output", ""), ("--output", "a\0b"), ("--output", "/dev/null"), ("--output", "a" * 5000)),
        *(("--print_config=wide",), ("--resume", "often"), ("--log_images", "-1"), ("--", "x"), ("-",)),
    ],
    ids=str,
)
def test_words_that_make_no_sense(fails, config, words):
    fails("test", "--config", config, *words)


GRIDS = {
    "nothing": "",
    "a mapping": "class_path: ToMe",
    "an empty list": "[]",
    "a list of words": "[ToMe]",
    "no class": "- {grid: {ratio: [0.1]}}",
    "a class of numbers": "- {class_path: 3}",
    "an unknown key": "- {class_path: ToMe, ratios: [0.1]}",
    "values that are no list": "- {class_path: ToMe, grid: {ratio: 0.1}}",
    "no values": "- {class_path: ToMe, grid: {ratio: []}}",
    "a value twice": "- {class_path: ToMe, grid: {ratio: [0.1, 0.1]}}",
    "a point twice": "- {class_path: ToMe, points: [{ratio: 0.1}, {ratio: 0.1}]}",
    "points that are no list": "- {class_path: ToMe, points: {ratio: 0.1}}",
    "points of numbers": "- {class_path: ToMe, points: [0.1]}",
    "fixed and varied": "- {class_path: ToMe, init_args: {ratio: 0.2}, grid: {ratio: [0.1]}}",
    "two entries alike": "- {class_path: ToMe, init_args: {ratio: 0.2}}\n- {class_path: ToMe, init_args: {ratio: 0.2}}",
    "a name with a slash": "- {class_path: ToMe, name: ../a, init_args: {ratio: 0.2}}",
    "a name of numbers": "- {class_path: ToMe, name: 3, init_args: {ratio: 0.2}}",
    "a billion points": f"- {{class_path: ToMe, grid: {json.dumps({f'a{n}': list(range(10)) for n in range(9)})}}}",
    "a key twice": "- {class_path: ToMe, class_path: EViT}",
    "settings that are no mapping": "- {class_path: ToMe, init_args: [0.2]}",
    "aliases without end": BOMB,
    "an alias to itself": "&a [*a]",
    "levels without end": "[" * 800,
}


@pytest.mark.parametrize("kind", GRIDS)
def test_a_grid_that_cannot_be(fails, config, tmp_path, kind):
    path = tmp_path / "grid.yaml"
    path.write_text(GRIDS[kind])
    assert str(path) in fails("sweep", "--config", config, "--grid", path, "--output", tmp_path / "out")
    with pytest.raises(ConfigError):
        read_grid(path)
    assert not (tmp_path / "out").exists()


REDUCERS = {
    ToMe: {"ratio": (0, 1)},
    EViT: {"keep_rate": (0, 1)},
    ACT: {"query_hashes": (1, 32)},
    TokenClustering: {"clusters": (1, float("inf"))},
}


@given(data=st.data())
@few_examples
def test_a_reducer_takes_its_range_alone(data):
    kind = data.draw(st.sampled_from(list(REDUCERS)))
    ((name, (low, high)),) = REDUCERS[kind].items()
    whole = kind in (ACT, TokenClustering)
    value = data.draw(
        st.integers(-100, 100) if whole else st.floats(-2, 2) | st.sampled_from([float("nan"), float("inf")])
    )
    given_too = {EViT: {"locations": [1]}, TokenClustering: {"location": 1}}.get(kind, {})
    if low <= value <= high and not (kind is EViT and value == 0):
        assert getattr(kind(**{name: value}, **given_too), name) in (value, (value, value))
        return
    with pytest.raises(ReducerError, match=name):
        kind(**{name: value}, **given_too)


@given(text=st.text(max_size=60) | st.text("[]{}:,-&*!<> \n\tab01'\"", max_size=60))
@settings(few_examples, max_examples=150)
def test_any_text_is_read_as_yaml_reads_it_or_refused(text):
    try:
        found = parse_yaml(text)
    except yaml.YAMLError:
        return
    assert repr(found) == repr(yaml.safe_load(text))
