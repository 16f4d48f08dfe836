"""What a run warns of: each once, on screen and in its results, and never without reason."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from data_files import save
from reference import DATA
from small_run import SIZES, make_config

from lightning_expedite.data.demo import Demo
from lightning_expedite.data.transforms import normalize
from lightning_expedite.evaluation.module import ImageResult
from lightning_expedite.evaluation.notices import CHECKED_IMAGES, FirstImages, label_warnings

pytestmark = pytest.mark.promise("warnings")

CLASSES = ("sky", "wall", "tree")


def image(label, prediction=(5, 5, 5), size=(10, 10), name="a"):
    return ImageResult(0, name, size, 1, 0, [[0, 0, 0], list(prediction), list(label)])


@pytest.fixture
def config(data):
    """Windows of the size that the position embeddings are for, so that nothing is said of them."""
    return make_config(data, window=128, stride=96)


# --- Labels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([], []),
        ([image((50, 30, 20))] * 2, []),
        ([image((6, 2, 2))] * 2, []),  # 90 % ignored, and not more
        ([image((6, 2, 1))] * 2, ["91.00 % of all pixels are ignored"]),
        ([image((0, 0, 0))] * 2, ["100 % of all pixels are ignored"]),
        ([image((1, 1, 0), size=(1000, 1000))] * 2, ["99.99 % of all pixels are ignored"]),
        (
            [image((50, 30, 0)), image((0, 0, 0), name="b/c"), image((0, 9, 0), name="d")],
            ["1 of 3 images have no labelled pixel and count nowhere (the first is b/c)"],
        ),
        ([image((0, 50, 0))] * 2, ["all labels are of one class, wall"]),
        ([image((0, 5, 0))] * 2, ["95.00 % of all pixels", "all labels are of one class, wall"]),
        ([image((0, 50, 0))], []),  # one image may well be all wall
        ([image((50, 30, 20), (0, 0, 100))] * 2, ["all pixels were predicted to be of one class, tree"]),
        ([image((50, 30, 20), (0, 0, 100))], []),
    ],
)
def test_counts_of_labels(images, words):
    found = list(label_warnings(images, CLASSES))
    assert len(found) == len(words)
    for text, word in zip(found, words, strict=True):
        assert text.startswith(word)


def test_a_single_class_is_no_warning_where_there_is_no_other():
    images = [ImageResult(0, "a", (10, 10), 1, 0, [[9], [100], [100]])] * 2
    assert list(label_warnings(images, ["sky"])) == []


def labels(data, change):
    for number, size in enumerate(SIZES[:4]):
        save(data / f"labels/part{number % 2}/{number}.png", change(number, np.zeros(size, np.uint8)))


def evaluated(run, config, *words):
    status, out, err = run("test", "--config", config, "--output", "out", "--overwrite", *words)
    assert status == 0, err
    found = json.loads(Path("out/results.json").read_text())["warnings"]
    shown = [line.removeprefix("warning: ") for line in out.splitlines() if line.startswith("warning: ")]
    assert shown == found
    assert all(out.index(f"warning: {text}") > out.index("results.json") for text in found)  # below the summary
    return found


def test_a_usual_run_warns_of_nothing(run, config):
    assert evaluated(run, config) == []


def test_labels_that_are_read_by_a_wrong_table(run, data, config):
    def one_object(number, label):
        label[:4, :4] = 1
        return label

    labels(data, one_object)
    first, second = evaluated(run, config, "--data.reduce_zero_label", "true")
    assert first.startswith("99.7")
    assert "reduce_zero_label" in first
    assert second.startswith("all labels are of one class, sky: check")


def test_images_without_labels_are_counted(run, data, config):
    def half(number, label):
        label[:, ::2] = 1
        return label if number % 2 else label * 0 + 255

    labels(data, half)
    (text,) = evaluated(run, config)
    assert text.startswith("2 of 4 images have no labelled pixel and count nowhere (the first is part0/0): check the")


# --- Classes -----------------------------------------------------------------------------------------


def test_classes_of_other_weights(run, fails, config):
    other = ("--model.checkpoint", DATA / "parity/mmseg_linear")
    assert "predicts 6 classes, Folder has 5" in fails("test", "--config", config, *other)
    with pytest.warns(UserWarning, match="predicts 6 classes, Folder has 5: label maps hold the model's") as shown:
        assert run("predict", "--config", config, "--output", "maps", *other)[0] == 0
    assert sum("classes" in str(one.message) for one in shown) == 1
    assert len(list(Path("maps").rglob("*.png"))) == 4


def test_predict_with_its_own_classes_does_not_warn(run, config):
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert run("predict", "--config", config, "--output", "maps")[0] == 0
    assert not [str(one.message) for one in shown if "lightning_expedite" in one.filename]


# --- Values of the input -----------------------------------------------------------------------------


def judged(*images):
    first, labels = FirstImages(), torch.zeros(1, 1)
    return [next(first.check(torch.as_tensor(image), labels, None, 255), None) for image in images]


def values(low, high, seed=0):
    """An image that reaches from one value to another."""
    random = np.random.default_rng(seed).random((3, 8, 9), np.float32)
    return low + (high - low) * (random - random.min()) / (random.max() - random.min())


def test_values_of_hundreds_are_noticed_at_the_first_image():
    for low, high in ((0, 255), (-123.7, 151), (30, 90)):
        first, *others = judged(*[values(low, high)] * 6)
        assert first.startswith(f"the images reach the model with values from {low:.4g} to {high:.4g}, as if")
        assert others == [None] * 5


def test_values_from_0_to_1_are_noticed_at_the_fourth_image():
    for low, high in ((0, 1), (-0.02, 1.04), (0.01, 0.8)):
        found = judged(*[values(low, high, seed) for seed in range(6)])
        assert [text is not None for text in found] == [False] * 3 + [True] + [False] * 2
    assert judged(*[values(0, 1)] * (CHECKED_IMAGES - 1)) == [None] * 3


@pytest.mark.parametrize("normalization", ["vit", "deit"])
@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 255), (0, 40), (0, 0), (255, 255), (140, 255), (127, 128), (0, 160), (200, 255), (60, 255), (128, 128)],
    ids=str,
)
def test_normalised_images_are_never_suspected(normalization, low, high):
    pixels = [values(low, high, seed).round().astype(np.uint8).transpose(1, 2, 0) for seed in range(6)]
    assert judged(*[normalize(one, normalization).transpose(2, 0, 1) for one in pixels]) == [None] * 6


def test_a_data_module_that_does_not_normalise(run, config, monkeypatch):
    monkeypatch.setattr(
        "lightning_expedite.data.dataset.view_image",
        lambda image, *_: torch.from_numpy(image.transpose(2, 0, 1) / np.float32(255)),
    )
    with pytest.warns(UserWarning, match="as if they were not normalised") as shown:
        (text,) = evaluated(run, config)
    assert text.startswith("the images reach the model with values from 0 to 1, as if")
    assert sum("not normalised" in str(one.message) for one in shown) == 1
    with pytest.warns(UserWarning, match="as if they were not normalised"):
        assert run("predict", "--config", config, "--output", "maps")[0] == 0


def test_what_a_run_says_of_its_windows_is_kept(run, data):
    with pytest.warns(UserWarning, match="the embeddings are resampled"):
        (text,) = evaluated(run, make_config(data, window=48, stride=32))
    assert "windows are 48 x 48" in text


# --- Mistakes that change the scores -----------------------------------------------------------------


def shifted(shift, labelled=1.0, images=6):
    """Warnings of a run whose labels are the predictions plus a number of classes, where they are labelled."""
    first, generator = FirstImages(), torch.Generator().manual_seed(0)
    texts = []
    for _ in range(images):
        prediction = torch.randint(0, 8, (40, 40), generator=generator)
        target = prediction + shift
        target[(target < 0) | (target > 7) | (torch.rand(40, 40, generator=generator) > labelled)] = 255
        texts += first.check(torch.tensor([-1.0, 1.0]), prediction, target, 255)
    return [*texts, *first.finish()]


def test_labels_that_are_shifted_by_one_class():
    """Case 17: reduce_zero_label for labels that are reduced already, and the other way round."""
    assert shifted(0) == shifted(2) == shifted(0, images=2) == shifted(0, images=0) == []
    assert len(shifted(-1, images=1)) == len(shifted(1, images=3)) == 1
    for share in (1.0, 0.3):
        (text,) = shifted(-1, share)
        assert text.startswith("100 % of the labelled pixels of the first images are predicted as the next class")
        assert text.endswith("labels seem to be shifted by one class; leave reduce_zero_label out, if it is set")
        (text,) = shifted(1, share)
        assert text.endswith("labels seem to be shifted by one class; set reduce_zero_label")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Demo scenes as files."""
    folder, data = tmp_path_factory.mktemp("scenes"), Demo(count=4, num_workers=0)
    data.setup("test")
    for index in range(4):
        save(folder / f"images/{index}.png", data.read_image(index))
        save(folder / f"labels/{index}.png", data.read_label(index))
    config = {
        "data": {
            "class_path": "Folder",
            "init_args": {
                "images": str(folder / "images"),
                "labels": str(folder / "labels"),
                "classes": list(data.classes),
                "num_workers": 0,
            },
        },
        "model": {"checkpoint": "demo"},
        "trainer": {"accelerator": "cpu", "devices": 1},
    }
    (folder / "scenes.yaml").write_text(yaml.safe_dump(config))
    return folder / "scenes.yaml"


def test_reduced_labels_that_are_reduced_again(run, scenes):
    assert evaluated(run, scenes) == []
    (text,) = evaluated(run, scenes, "--data.reduce_zero_label", "true")
    assert "are predicted as the next class of the list" in text


def test_a_class_that_is_ignored_altogether(run, scenes):
    """Case 18."""
    texts = evaluated(run, scenes, "--data.ignore", "[4]")
    assert len(texts) == 1
    assert " is ignored in all labels, but predicted for " in texts[0]
    assert texts[0].endswith("it counts as IoU 0 in the mIoU")
    found = json.loads(Path("out/results.json").read_text())
    assert found["per_class"][4]["IoU"] == 0
    assert f"class {found['per_class'][4]['name']} " in texts[0]
    assert f" {found['prediction'][4]:,} pixels" in texts[0]


def test_half_precision_that_the_device_does_not_have(run, scenes):
    """Case 19."""
    (text,) = evaluated(run, scenes, "--trainer.precision", "16-mixed", "--trainer.limit_test_batches", "1")
    assert text == "--trainer.precision 16-mixed is not available on this device: bf16-mixed was used"
    assert json.loads(Path("out/results.json").read_text())["environment"]["precision"] == "bf16-mixed"
