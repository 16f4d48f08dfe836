"""Labels from Python in three lines: those of ``predict``, without Lightning."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import picture, save
from PIL import Image
from reference import DATA
from tiny import tiny_model

from lightning_expedite import load, segment, with_reducer
from lightning_expedite.data.reading import read_image, rgb_pixels
from lightning_expedite.data.scenes import CLASSES, PALETTE, draw_scene
from lightning_expedite.errors import ConfigError, DataError, ReducerError
from lightning_expedite.protocol import Protocol
from lightning_expedite.reducers import ACT, EViT, TokenClustering, ToMe

ROOT = Path(__file__).parents[1]
PROGRAM = """
import sys

from lightning_expedite import load, segment, with_reducer
from lightning_expedite.reducers import ToMe

model = load("demo")
reduced = with_reducer(model, ToMe(0.3))
result = segment(reduced, {path!r})
print(result, result._repr_png_()[1:4])
from lightning_expedite import token_groups
token_groups(reduced, {path!r}, layers=[4])
names = ("pytorch_lightning", "lightning", "torchmetrics", "jsonargparse", "matplotlib.pyplot")
print([name for name in names if name in sys.modules])
"""


@pytest.fixture(scope="module")
def demo():
    return load("demo")


@pytest.fixture(scope="module")
def scene():
    return draw_scene(3)[0]


def test_neither_lightning_nor_pyplot_is_imported(tmp_path, scene):
    path = save(tmp_path / "scene.png", scene)
    program = PROGRAM.format(path=str(path))
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert answer.stderr == ""
    height, width = scene.shape[:2]
    result, imported = answer.stdout.splitlines()
    assert result.startswith(f"SegmentedImage({height} x {width} pixels, ")
    assert result.endswith(" of 11 classes) b'PNG'")
    assert imported == "[]"


# --- The same as on the command line -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "reducer"),
    [
        ("demo_none", None),
        ("demo_ours", TokenClustering(4, (8, 8))),
        ("demo_evit", EViT([4, 7, 10], 0.8)),
        ("demo_tome", ToMe(0.5)),
        ("demo_act", ACT(24)),
    ],
)
def test_labels_are_those_of_predict(run, tmp_path, demo, scene, config, reducer):
    save(tmp_path / "images/a.png", scene[:150])
    save(tmp_path / "images/b.png", picture(100, 210), orientation=None)
    status, _, err = run(
        *("predict", "--config", ROOT / f"configs/{config}.yaml", "--images", tmp_path / "images", "--output", "out"),
        *("--trainer.accelerator", "cpu", "--trainer.devices", "1", "--data.num_workers", "0"),
    )
    assert status == 0, err
    reduced = with_reducer(demo, reducer)
    for name in "ab":
        expected = np.asarray(Image.open(tmp_path / f"out/labels/{name}.png"))
        found = segment(reduced, tmp_path / f"images/{name}.png")
        assert found.labels.dtype == expected.dtype
        assert np.array_equal(found.labels, expected)
        assert len(np.unique(expected)) > 1


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ((), {}),
        (
            ("--model.window", "64", "--model.stride", "48", "--data.short_side", "80", "--data.normalization", "deit"),
            {"window": 64, "stride": 48, "short_side": 80, "normalization": "deit"},
        ),
        (
            ("--data.scales", "[0.75, 1.0]", "--data.mirror", "true", "--model.window_batch_size", "3"),
            {"scales": np.array([0.75, 1.0]), "mirror": True, "window_batch_size": np.int64(3)},
        ),
    ],
)
def test_sizes_windows_and_views_are_those_of_predict(run, tmp_path, words, settings):
    checkpoint = DATA / "parity" / "official_mask"
    path = save(tmp_path / "images/a.png", picture(90, 150))
    status, _, err = run(
        *("predict", "--data", "Folder", "--data.images", tmp_path / "images", "--data.classes", "[a, b, c, d, e]"),
        *("--model.checkpoint", checkpoint, "--model.convention", "null", "--output", "out", "--data.num_workers", "0"),
        *("--trainer.accelerator", "cpu", "--trainer.devices", "1", *words),
    )
    assert status == 0, err
    model = load(checkpoint)
    assert model.protocol == Protocol(short_side=128, window=128, stride=96)  # as the official evaluation
    found = segment(model, path, **settings)
    assert np.array_equal(found.labels, np.asarray(Image.open(tmp_path / "out/labels/a.png")))
    assert len(np.unique(found.labels)) > 1


# --- The model ---------------------------------------------------------------------------------------


def test_another_reducer_makes_a_new_model_on_the_same_weights(demo):
    images = torch.rand(1, 3, 128, 128)
    with torch.inference_mode():
        before = demo(images)
        reduced = with_reducer(demo, ToMe(0.4))
        assert not torch.equal(reduced(images), before)
        assert torch.equal(demo(images), before)
        assert torch.equal(with_reducer(reduced, None)(images), before)
    assert demo.reducer is None
    for one, other in zip(demo.parameters(), reduced.parameters(), strict=True):
        assert one.data_ptr() == other.data_ptr()
    with pytest.raises(ReducerError, match="location 13 is not a layer"):
        with_reducer(demo, EViT([13], 0.5))


def test_a_model_knows_how_its_weights_are_evaluated_and_their_classes(demo, scene):
    assert demo.protocol == Protocol(window=128, stride=64)
    result = segment(demo, scene)
    assert result.classes == tuple(CLASSES)
    assert result.palette == tuple(PALETTE)
    assert (result.windows, result.windows_unreduced) == (len_of_windows(scene), 0)
    own = segment(demo, scene, classes=[f"c{number}" for number in range(11)], stride=128)
    assert own.classes[10] == "c10"
    assert own.windows < result.windows
    assert segment(with_reducer(demo, ToMe(0.0)), scene).windows_unreduced == result.windows
    assert segment(tiny_model(), scene[:64, :64]).classes is None


def len_of_windows(image):
    return int(np.prod([1 + -(-(side - 128) // 64) for side in image.shape[:2]]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 0}, "window is 0: it must be 1 or more"),
        ({"stride": 200}, "stride 200 is above window 128"),
        ({"short_side": -1}, "short_side is -1"),
        ({"long_side": 100}, "long_side is 100, but short_side is not known"),
        ({"window": "128"}, "window is '128': it must be a valid integer"),
        ({"window": 128.5}, "window is 128.5: it must be a valid integer"),
        ({"mirror": "no"}, "mirror is 'no': it must be a valid boolean"),
        ({"window_batch_size": None}, "window_batch_size is None: it must be a valid integer"),
        ({"scales": ()}, r"scales is \[\]"),
        ({"scales": 1}, "scales is 1: it must be a list"),
        ({"scales": "1"}, "scales is '1': it must be a list"),
        ({"scales": ["a"]}, r"scales is \['a'\]: it must be a valid number"),
        ({"classes": "sky"}, "classes is 'sky': it must be a list"),
        ({"palette": 3}, "palette is 3: it must be a list"),
        ({"normalization": "imagenet"}, "normalization is 'imagenet'"),
        ({"classes": ["a"]}, "classes has 1 entries; the model has 11 classes"),
        ({"palette": ((0, 0, 0),)}, "palette has 1 entries; the model has 11 classes"),
    ],
)
def test_settings_that_cannot_work_are_named(demo, scene, settings, message):
    with pytest.raises(ConfigError, match=message):
        segment(demo, scene, **settings)


# --- Probabilities and pictures ----------------------------------------------------------------------


@pytest.mark.parametrize("views", [{}, {"scales": (0.75, 1.0), "mirror": True}, {"mirror": True}])
def test_probabilities_sum_to_one_and_their_largest_is_the_label(demo, scene, views):
    result = segment(with_reducer(demo, ToMe(0.3)), scene, **views)
    maps = result.probabilities()
    assert maps.shape == (11, *scene.shape[:2])
    assert maps.dtype == np.float32
    assert np.abs(maps.sum(axis=0) - 1).max() < 1e-5
    assert (maps.argmax(axis=0) == result.labels).mean() > 0.9999
    assert np.array_equal(result.probabilities(["tree", 0]), maps[[CLASSES.index("tree"), 0]])


def test_probabilities_are_the_softmax_of_the_models_logits(demo, scene):
    crop = scene[:128, :128]
    with torch.inference_mode():
        logits = demo((torch.from_numpy(crop).permute(2, 0, 1)[None].float() - 127.5) / 127.5)
    found = torch.from_numpy(segment(demo, crop).probabilities())
    assert (found - logits[0].softmax(dim=0)).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["lawn"], "no class named 'lawn'; known names: sky"),
        ([11], "class 11 does"),
        ([1.5], "class 1.5 does"),
        ("sky", "classes is 'sky': it must be a list"),
    ],
)
def test_probabilities_of_no_class_are_refused(demo, scene, classes, message):
    with pytest.raises(ConfigError, match=message):
        segment(demo, scene).probabilities(classes)


def test_results_draw_themselves(demo, scene):
    unreduced, reduced = (segment(model, scene) for model in (demo, with_reducer(demo, ToMe(0.5))))
    present = [CLASSES[number] for number in np.unique(unreduced.labels)]
    assert [text.get_text() for text in unreduced.figure().legends[0].get_texts()] == present
    assert unreduced._repr_png_().startswith(b"\x89PNG")
    titles = {axes.get_title() for axes in unreduced.compare(reduced).axes}
    assert {"image", "baseline", "reduced", "where they differ"} < titles


# --- Images ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "orientation"),
    [
        (Image.fromarray(picture(20, 30)), 1),
        (Image.fromarray(picture(20, 30)), 6),  # to be turned upright
        (Image.fromarray(picture(20, 30)[..., 0]), 1),
        (Image.fromarray(np.dstack((picture(20, 30), picture(20, 30, seed=1)[..., 0]))), 1),
        (Image.fromarray((picture(20, 30)[..., 0].astype(np.uint16) << 8) + 37), 1),
        (Image.fromarray(picture(20, 30)[..., :2], "LA"), 1),
        (Image.fromarray(picture(20, 30)).quantize(16), 1),
    ],
    ids=["rgb", "upright", "grey", "alpha", "16 bit", "grey with alpha", "palette"],
)
def test_files_and_pillow_images_are_read_alike(tmp_path, stored, orientation):
    path, exif = tmp_path / "a.png", Image.Exif()
    exif[274] = orientation
    stored.save(path, exif=exif)
    expected = read_image(path)
    assert expected.shape == ((30, 20, 3) if orientation == 6 else (20, 30, 3))
    with Image.open(path) as image:
        for form in (path, str(path), image, expected):
            assert np.array_equal(rgb_pixels(form), expected)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"an array of shape \(4, 4\) and type uint8; pass a path"),
        (np.zeros((4, 4, 3), np.float32), r"an array of shape \(4, 4, 3\) and type float32"),
        (np.zeros((0, 4, 3), np.uint8), r"an array of shape \(0, 4, 3\) and type uint8"),
        (torch.zeros(3, 4, 4), "of type Tensor; pass a path"),
        (Image.new("F", (4, 4)), "floating-point samples"),
        ("no/such/photo.jpg", "no/such/photo.jpg: cannot be read"),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(DataError, match=message):
        rgb_pixels(image)


def test_unknown_settings_are_refused_with_the_nearest_name(demo, scene):
    """Case 7."""
    with pytest.raises(ConfigError, match=r"^'stide' is not a setting; did you mean 'stride'\?$"):
        segment(demo, scene, stide=3)
    with pytest.raises(ConfigError, match=r"^'foo' is not a setting; there are window, stride, window_batch_size, sho"):
        segment(demo, scene, foo=1)
