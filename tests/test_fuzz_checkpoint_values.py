"""Checkpoints whose tensors, variant or config are wrong, through the command line: one line names the file."""

import json

import pytest
import torch
import yaml
from fuzzing import examples, one
from hypothesis import given
from hypothesis import strategies as st
from stored_models import OFFICIAL, SOME_KEYS, STATE, changed

from lightning_expedite import load_segmenter

pytestmark = pytest.mark.promise("bad-checkpoints")
few_examples = examples(25)


@pytest.fixture
def stored(model_folder):
    """A function that stores another state in the folder's checkpoint, and gives its path."""

    def store(state):
        torch.save({"model": state}, model_folder / "checkpoint.pth")
        return model_folder / "checkpoint.pth"

    return store


def test_every_tensor_is_missed(stored, refuses_weights, bad_inputs):
    for key in STATE:
        refuses_weights(stored({other: value for other, value in STATE.items() if other != key}))
        bad_inputs.add(key)
    assert len(bad_inputs) == len(STATE) == 87


@one
@pytest.mark.parametrize(
    "key",
    [
        "encoder.blocks.4.norm1.weight",
        "encoder.blocks.6.norm1.weight",
        "encoder.blocks.04.norm1.weight",
        "encoder.blocks.-1.norm1.weight",
        "encoder.blocks.99999999999999999999.norm1.weight",
        "encoder.blocks.\u0661.norm1.weight",
        "encoder.Norm.weight",
        "encoder.norm.weight\n",
        "decoder.blocks.2.norm1.weight",
        "decoder.head.weight",
        "module.encoder.norm.weight",
        "backbone.cls_token",
        "encoder.reg_token",
        "",
        "\0",
        "\x1b[31mred",
        "a" * 10_000,
    ],
)
def test_a_key_that_does_not_belong(stored, refuses_weights, key):
    path = stored(changed(key, torch.zeros(64)))
    refuses_weights(
        path, path.parent
    )  # a key that makes for another size may be told as a contradiction to variant.yml


@one
@pytest.mark.parametrize("key", SOME_KEYS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_one_weight_that_is_no_number(stored, refuses_weights, key, dtype, wrong):
    value = STATE[key].to(dtype, copy=True)
    value.view(-1)[-1] = wrong
    refuses_weights(
        stored(changed(key, value)), None, key, f"has 1 of {value.numel():,} weights that are NaN or infinite"
    )


@one
def test_a_weight_beyond_float32(stored, refuses_weights):
    value = STATE["encoder.norm.bias"].double()
    value[0] = 1e300
    refuses_weights(stored(changed("encoder.norm.bias", value)), None, "encoder.norm.bias", "NaN or infinite")


def test_finite_weights_whose_sum_is_not_are_fine(stored):
    value = torch.full((64,), 3e38)
    assert load_segmenter(stored(changed("encoder.norm.bias", value))).encoder.norm.bias.equal(value)


UNSOUND = {
    "int64": lambda value: value.long(),
    "int8": lambda value: value.to(torch.int8),
    "bool": lambda value: value > 0,
    "complex": lambda value: value.to(torch.complex64),
    "sparse": lambda value: value.to_sparse(),
    "meta": lambda value: value.to("meta"),
    "repeated": lambda value: value.flatten()[:1].clone().expand(value.numel()).view(value.shape),
    "none": lambda value: None,
    "number": lambda value: 1.0,
    "list": lambda value: value.tolist(),
    "empty": lambda value: value[:0],
    "scalar": lambda value: value.flatten()[0].clone(),
    "one more dimension": lambda value: value[None],
    "one row more": lambda value: torch.cat([value, value[:1]]),
    "one column fewer": lambda value: value[..., :-1].contiguous(),
}


@one
@pytest.mark.parametrize("key", SOME_KEYS)
@pytest.mark.parametrize("damage", UNSOUND)
def test_a_value_that_is_no_tensor_of_this_place(stored, refuses_weights, key, damage):
    path = stored(changed(key, UNSOUND[damage](STATE[key])))
    refuses_weights(path, path.parent)  # a tensor that makes for another size may contradict variant.yml


@given(data=st.data())
@few_examples
def test_any_other_shape_is_refused(stored, refuses_weights, bad_inputs, data):
    key = data.draw(st.sampled_from(list(STATE)))
    right = tuple(STATE[key].shape)
    shape = data.draw(st.lists(st.sampled_from([0, 1, 2, 5, 16, 64, 65, 192]), max_size=4).map(tuple))
    if shape != right:
        path = stored(changed(key, torch.zeros(shape)))
        refuses_weights(path, path.parent)
        bad_inputs.add((key, shape))


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
)
TEXTS = {
    "aliases without end": BOMB,
    "an alias to itself": "net_kwargs: &a {decoder: *a}",
    "a key twice": "net_kwargs: {n_heads: 1}\nnet_kwargs: {n_heads: 2}",
    "a key twice below": "net_kwargs: {n_heads: 1, n_heads: 2}",
    "an impossible date": "net_kwargs: {n_heads: 2001-99-99}",
    "levels without end": "[" * 5000,
    "balanced levels": "a: " + "[" * 400 + "]" * 400,
    "code": "net_kwargs: !!python/object/apply:os.system ['true']",
    "an unknown tag": "net_kwargs: !unknown {n_heads: 1}",
    "a list": "- net_kwargs",
    "a number": "3",
    "too long": "# " + "a" * (2 << 20),
    "two documents": "a: 1\n---\nb: 2",
    "tabs": "net_kwargs:\n\tn_heads: 1",
    "unhashable key": "? [a, {b: c}]\n: 1\n? {a: b}\n: 2",
    "bad binary": "net_kwargs: !!binary a",
    "a merge of nothing": "net_kwargs:\n  <<: 3",
}


@one
@pytest.mark.parametrize("text", TEXTS)
def test_a_variant_that_cannot_be_read(model_folder, refuses_weights, text):
    (model_folder / "variant.yml").write_text(TEXTS[text])
    refuses_weights(model_folder, model_folder / "variant.yml")


@one
@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x80abc", b"a: \x00", b"a: \x1b[31m"], ids=repr)
def test_a_variant_of_strange_bytes(model_folder, refuses_weights, content):
    (model_folder / "variant.yml").write_bytes(content)
    refuses_weights(model_folder, model_folder / "variant.yml")


WRONG_SIZES = [0, -1, 1.5, True, "12", [1], {"a": 1}, 10**30, float("nan"), float("inf")]


@one
@pytest.mark.parametrize("key", ["n_heads", "window_size", "window_stride", "im_size", "im_size_max"])
@pytest.mark.parametrize("value", WRONG_SIZES, ids=repr)
def test_a_variant_with_a_size_that_is_none(variant, model_folder, refuses_weights, key, value):
    place = "net_kwargs" if key == "n_heads" else "inference_kwargs"
    path = variant(lambda content: content[place].update({key: value}))
    refuses_weights(model_folder, path, f"{key} is")


@one
@pytest.mark.parametrize("size", [0, -128, [128], [128, 128, 128], [128, 0], [128, "a"], [64, 128], "128", 10**9, {}])
def test_a_variant_with_an_image_size_that_is_none(variant, model_folder, refuses_weights, size):
    path = variant(lambda content: content["net_kwargs"].update(image_size=size))
    refuses_weights(model_folder, path, "image_size")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    load_segmenter(OFFICIAL).save_pretrained(folder)
    return {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}


def nested(part, **changes):
    return lambda content: {**content, part: {**content[part], **changes}}


CONFIGS = {
    **{
        f"{name} {value!r}": nested("architecture", **{name: value})
        for name in ("depth", "width", "num_classes", "decoder_depth")
        for value in (0, -4, 7, "4", None, True, 10**12)
    },
    "patch size 8": nested("architecture", patch_size=8),
    "heads that divide nothing": nested("architecture", heads=7),
    "another decoder": nested("architecture", decoder="linear"),
    "an unknown decoder": nested("architecture", decoder="conv"),
    "another image size": nested("architecture", image_size=[64, 64]),
    "no image size": nested("architecture", image_size=None),
    "a ratio below 0": nested("architecture", mlp_ratio=-1),
    "a ratio that is NaN": nested("architecture", mlp_ratio=float("nan")),
    "a ratio of the wrong size": nested("architecture", mlp_ratio=2.0),
    "distilled": nested("architecture", distilled=True),
    "distilled as text": nested("architecture", distilled="no"),
    "an unknown size": nested("architecture", colour="red"),
    "a window of 0": nested("protocol", window=0),
    "a window of text": nested("protocol", window="large"),
    "a stride below 0": nested("protocol", stride=-1),
    "a stride with a fraction": nested("protocol", stride=0.5),
    "unknown statistics": nested("protocol", normalization="imagenet"),
    "no protocol": lambda content: {**content, "protocol": 3},
    "an unknown convention": lambda content: {**content, "convention": "seed"},
    "a newer format": lambda content: {**content, "format": 99},
    "another library": lambda content: {**content, "library_name": "timm"},
    "too few names": lambda content: {**content, "classes": ["a"]},
    "names of numbers": lambda content: {**content, "classes": [1, 2, 3, 4, 5]},
    "names of text": lambda content: {**content, "classes": "abcde"},
    "a reducer of text": lambda content: {**content, "reducer": "ToMe"},
}


@one
@pytest.mark.parametrize("change", CONFIGS)
def test_a_config_that_contradicts_the_tensors_or_itself(tmp_path, pretrained, refuses_weights, change):
    folder = tmp_path / "stored"
    folder.mkdir()
    for name, content in pretrained.items():
        (folder / name).write_bytes(content)
    content = CONFIGS[change](json.loads(pretrained["config.json"]))
    (folder / "config.json").write_text(json.dumps(content))
    refuses_weights(folder, folder / ("model.safetensors" if change == "a ratio of the wrong size" else "config.json"))


@one
@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", "null", '{"format": 1, "format": 2}', "[" * 100_000, "\ufeff{}", '{"a": 1' + "0" * 5000 + "}"],
)
def test_a_config_that_cannot_be_read(tmp_path, pretrained, refuses_weights, text):
    folder = tmp_path / "stored"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(pretrained["model.safetensors"])
    (folder / "config.json").write_text(text)
    refuses_weights(folder, folder / "config.json")


@one
@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "no\nsuch",
        "no\0such",
        "a" * 5000,
        "../../../nowhere",
        "hf://",
        "hf://a",
        "hf://a/b/c/d",
        "\udcff",
        "~nosuchuser/weights",
    ],
)
def test_a_name_that_is_nothing(refuses_weights, name):
    refuses_weights(name, "error: ")


def test_the_undamaged_checkpoint_is_converted(run, tmp_path, model_folder):
    """The other tests would pass as well if nothing could be converted."""
    variant = yaml.safe_load((model_folder / "variant.yml").read_text())
    status, _, err = run("convert", "--checkpoint", model_folder, "--output", tmp_path / "out")
    assert (status, err) == (0, "")
    assert load_segmenter(tmp_path / "out").num_classes == variant["net_kwargs"]["n_cls"]
