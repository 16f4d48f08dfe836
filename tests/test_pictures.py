"""Pictures: what they show, against what they were made of."""

import importlib
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from data_files import class_map, picture, save
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from PIL import Image
from reference import DATA
from small_run import CLASSES, make_config
from tiny import tiny_model

import lightning_expedite
from lightning_expedite import visualization
from lightning_expedite.data.palettes import generated_palette
from lightning_expedite.errors import DataError
from lightning_expedite.evaluation import predictions
from lightning_expedite.evaluation.metrics import class_counts, scores_of
from lightning_expedite.reducers import ToMe
from lightning_expedite.visualization import TokenMap, TokenMaps, labels, tokens

PALETTE = generated_palette(5)
MARKS = "where they differ or are wrong"
TOME = {"class_path": "ToMe", "init_args": {"ratio": 0.4}}
ACT = {"class_path": "ACT", "init_args": {"query_hashes": 6}}


def shown(axes):
    return np.asarray(axes.get_images()[0].get_array())


def by_title(figure):
    return {axes.get_title(): axes for axes in figure.axes}


def legend_of(axes):
    legends = [axes.get_legend(), *(child for child in axes.artists if hasattr(child, "get_texts"))]
    return {
        text.get_text(): tuple(round(255 * part) for part in to_rgb(patch.get_facecolor()))
        for legend in legends
        if legend
        for text, patch in zip(legend.get_texts(), legend.get_patches(), strict=True)
    }


# --- Labels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_miou_of_an_image_is_that_of_the_scores(seed):
    prediction, label = class_map(30, 40, 4, seed), class_map(30, 40, 3, seed + 9)
    label[:4] = 255
    counts = class_counts(torch.from_numpy(prediction)[None], torch.from_numpy(label)[None], 6)[0]
    assert labels.image_miou(prediction, label) == pytest.approx(float(scores_of(counts)["mIoU"]), abs=1e-6)
    assert np.isnan(labels.image_miou(prediction, np.full_like(label, 255)))


def test_differences_are_classified():
    baseline = np.array([[0, 0, 1, 1, 1, 0, 0]], np.uint8)
    reduced = np.array([[0, 1, 0, 1, 2, 1, 0]], np.uint8)
    label = np.array([[0, 0, 0, 0, 0, 255, 255]], np.uint8)
    expected = [0, labels.LOST, labels.GAINED, labels.BOTH_WRONG, labels.BOTH_WRONG_DIFFERENTLY, labels.CHANGED, 0]
    assert labels.difference_map(baseline, reduced, label)[0].tolist() == expected
    changed = labels.CHANGED
    assert labels.difference_map(baseline, reduced)[0].tolist() == [0, changed, changed, 0, changed, changed, 0]


def test_a_comparison_shows_both_predictions_in_the_palette_with_its_score():
    image, baseline, reduced = picture(40, 60), class_map(40, 60, 3, 1), class_map(40, 60, 3, 2)
    label = class_map(40, 60, 3, 3)
    label[:10] = 255
    figure = visualization.compare(image, baseline, reduced, label=label, classes=CLASSES, palette=PALETTE)
    panels = by_title(figure)
    assert np.array_equal(shown(panels["image"]), image)
    for name, side in (("baseline", baseline), ("reduced", reduced)):
        assert np.array_equal(shown(panels[name]), np.array(PALETTE, np.uint8)[side])
        assert panels[name].get_xlabel() == f"mIoU of this image: {labels.image_miou(side, label):.1f} %"
    truth = shown(panels["ground truth"])
    assert np.array_equal(truth[10:], np.array(PALETTE, np.uint8)[label[10:]])
    assert set(map(tuple, truth[:10].reshape(-1, 3))) == {(150, 150, 150), (255, 255, 255)}
    assert panels[MARKS].get_xlabel() == f"{100 * (baseline != reduced).mean():.1f} % of the pixels have another label"
    legend = legend_of(panels[""])
    assert {CLASSES[number]: PALETTE[number] for number in range(3)}.items() <= legend.items()
    assert CLASSES[3] not in legend
    assert "ignored" in legend
    codes = labels.difference_map(baseline, reduced, label)
    assert f"only reduced is wrong ({100 * (codes == labels.LOST).mean():.1f} %)" in legend
    changed = shown(panels[MARKS])
    for name, colour in legend.items():
        if name.startswith("only reduced"):
            assert (changed[codes == labels.LOST] == colour).all()

    # Without ground truth there are no scores.
    figure = visualization.compare(picture(), class_map(seed=1), class_map(seed=2), names=("all tokens", "ToMe"))
    panels = by_title(figure)
    assert set(panels) == {"image", "all tokens", "ToMe", "where they differ", ""}
    assert panels["ToMe"].get_xlabel() == ""
    assert [name.split(" (")[0] for name in legend_of(panels[""]) if "%" in name] == [
        "another label, ground truth unknown"
    ]
    assert "class 2" in legend_of(panels[""])


def test_an_overlay_mixes_image_and_colours():
    image, side = picture(), class_map()
    figure = visualization.overlay(image, side, classes=CLASSES, palette=PALETTE, opacity=0.25)
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        assert visualization.figure_bytes(figure, kind).startswith(start)
    expected = 0.75 * image + 0.25 * np.array(PALETTE)[side]
    assert np.abs(shown(figure.axes[0]) - expected).max() <= 0.5
    assert [text.get_text() for text in figure.legends[0].get_texts()] == CLASSES[:3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reduced": class_map(5, 5)}, r"reduced is a map of \(5, 5\), its image is \(12, 16\)"),
        ({"label": class_map(5, 5)}, r"label is a map of \(5, 5\)"),
        ({"palette": PALETTE[:2]}, "class 2 has no colour: the palette has 2"),
    ],
)
def test_maps_that_do_not_fit_are_refused(change, message):
    given = {"baseline": class_map(), "reduced": class_map(), **change}
    with pytest.raises(DataError, match=message):
        visualization.compare(picture(), **given)


# --- Tokens ------------------------------------------------------------------------------------------

GROUP = np.array([[0, 0, 1], [0, 0, 2], [-1, -1, 2]]).repeat(2, 0).repeat(2, 1)
ALONE = GROUP == 1
STEP = TokenMap("layer 1\n3 of 9 tokens", GROUP, ALONE)


def test_groups_get_their_mean_colour_and_dropped_patches_are_white():
    image, group = picture(6, 6), STEP.group
    filled = tokens.fill_groups(image, STEP)
    assert np.array_equal(filled[ALONE], image[ALONE])
    for number in (0, 2):
        means = image[group == number].mean(axis=0)
        assert np.abs(filled[group == number] - means).max() <= 0.5
    assert filled[group == -1].min() >= 0.8 * 255
    assert not np.array_equal(image, filled)


def test_lines_run_where_groups_meet_unless_both_are_alone():
    lines = {tuple(map(tuple, line)) for line in tokens.borders(GROUP, ALONE).tolist()}
    across = {((3.5, 1.5), (5.5, 1.5)), ((-0.5, 3.5), (3.5, 3.5))}
    down = {((3.5, -0.5), (3.5, 5.5))}
    assert lines == across | down
    both_alone = np.array([[0, 1]])
    assert tokens.borders(both_alone, np.ones((1, 2), bool)).shape == (0, 2, 2)
    assert tokens.borders(both_alone).tolist() == [[[0.5, -0.5], [0.5, 0.5]]]


@pytest.mark.parametrize(
    ("style", "filled", "lines"), [("both", True, True), ("mean", True, False), ("borders", False, True)]
)
def test_styles(style, filled, lines):
    image, maps = picture(6, 6), TokenMaps(np.zeros((6, 6), np.int64), [STEP])
    figure = visualization.draw_token_maps(image, maps, style, "ToMe")
    panel = by_title(figure)[STEP.title]
    assert np.array_equal(shown(panel), tokens.fill_groups(image, STEP)) == filled
    assert any(isinstance(child, LineCollection) and child.get_segments() for child in panel.collections) == lines
    said = " ".join(figure.get_supxlabel().split())
    assert said.endswith("White patches are dropped. The others show the image: each has its own token.")
    assert ("mean colour" in said, "Outlined" in said) == (filled, lines)


def test_a_model_draws_its_own_tokens(tmp_path):
    path = save(tmp_path / "a.png", picture(64, 80))
    figure = lightning_expedite.token_groups(tiny_model(ToMe(0.4)), path, layers=[2, 4])
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [
        "image\n",
        *(f"layer {layer}, {part}\n39 of 65 tokens" for layer in (2, 4) for part in ("attention", "MLP")),
    ]
    assert figure.get_suptitle() == "ToMe(ratio=0.4)"


# --- On the command line -----------------------------------------------------------------------------


def test_predict_compares_with_the_baseline(monkeypatch, run, data):
    calls = []

    def kept(image, baseline, reduced, **options):
        calls.append((image, baseline, reduced, options["label"]))
        return visualization.compare(image, baseline, reduced, **options)

    monkeypatch.setattr(predictions, "compare", kept)
    config = make_config(data, reducer=TOME)
    assert run("predict", "--config", make_config(data, "none.yaml"), "--output", "none")[0] == 0
    status, _, err = run("predict", "--config", config, "--compare", "--output", "reduced")
    assert status == 0, err
    files = sorted(Path("reduced/comparisons").rglob("*.png"))
    assert [str(file.relative_to("reduced/comparisons")) for file in files] == [
        f"part{number % 2}/{number}.png" for number in (0, 2, 1, 3)
    ]
    for (image, baseline, reduced, label), file in zip(calls, files, strict=True):
        name = file.relative_to("reduced/comparisons")
        assert np.array_equal(image, np.asarray(Image.open(data / "images" / name)))
        assert np.array_equal(label, np.asarray(Image.open(data / "labels" / name)))
        assert np.array_equal(baseline, np.asarray(Image.open(Path("none/labels") / name)))
        assert np.array_equal(reduced, np.asarray(Image.open(Path("reduced/labels") / name)))
        assert not np.array_equal(baseline, reduced)
        assert min(matplotlib.image.imread(file).shape[:2]) > 400

    (data / "labels/part0/0.png").unlink()  # images without labels are compared too
    words = ("predict", "--config", config, "--compare", "--output")
    assert run(*words, "lost")[0] == 0
    assert run(*words, "own", "--images", data / "images/part0")[0] == 0
    assert [len(list(Path(folder).rglob("comparisons/**/*.png"))) for folder in ("lost", "own")] == [4, 2]


def test_mistakes_with_comparisons_are_named(fails, data):
    assert "--compare draws the predictions without and with a reducer, but none is set" in fails(
        "predict", "--config", make_config(data), "--compare"
    )
    other = make_config(data, "other.yaml", reducer=TOME, checkpoint=str(DATA / "parity/mmseg_linear"))
    assert "predicts 6 classes, Folder has 5" in fails("predict", "--config", other, "--compare", "--output", "other")
    save(data / "labels/part0/0.png", class_map(9, 9))
    config = make_config(data, reducer=TOME)
    message = fails("predict", "--config", config, "--compare", "--output", "size")
    assert "part0/0: the label is 9 x 9 pixels, its image 64 x 64" in message


def test_visualize_draws_the_requested_images(run, fails, data):
    config = make_config(data, reducer=TOME)
    status, out, err = run(
        "visualize", "--config", config, "--index", "1,3", "--svg", "--layers", "2", "--output", "some"
    )
    assert status == 0, err
    assert "figures are in some/tokens" in out
    found = sorted(str(file.relative_to("some/tokens")) for file in Path("some/tokens").rglob("*.*"))
    assert found == ["part0/2.png", "part0/2.svg", "part1/3.png", "part1/3.svg"]
    assert matplotlib.image.imread("some/tokens/part0/2.png").std() > 0.1
    assert "ratio: 0.4" in Path("some/visualize.yaml").read_text()
    assert run("visualize", "--config", config, "--output", "first")[0] == 0
    assert "first/tokens exists already" in fails("visualize", "--config", config, "--output", "first")
    assert run("visualize", "--config", config, "--output", "first", "--overwrite")[0] == 0
    assert len(list(Path("first/tokens").rglob("*.png"))) == 1
    assert run("visualize", "--config", config, "--images", data / "images/part1", "--output", "own")[0] == 0
    assert len(list(Path("own/tokens").rglob("*.png"))) == 2


@pytest.mark.parametrize(
    ("reducer", "words", "message"),
    [
        (None, (), "the model has no reducer"),
        (TOME, ("--index", "7"), "--index 7 does not exist: there are 4 images"),
        (TOME, ("--index", "-1"), "--index is -1: expected integers of 0 or more"),
        (TOME, ("--layers", "2,x"), "--layers is '2,x': expected integers of 1 or more"),
        (TOME, ("--layers", "9"), "layer 9 is not one of this model: its layers are 1 to 4"),
        (ACT, ("--head", "4"), "head 4 is not one of this model"),
        (TOME, ("--images", "no/such/folder"), "no/such/folder"),
    ],
)
def test_mistakes_with_visualize_are_named(fails, data, reducer, words, message):
    assert message in fails("visualize", "--config", make_config(data, reducer=reducer), *words)


def test_former_names_still_work():
    with pytest.warns(FutureWarning, match="load_segmenter is deprecated: write load"):
        assert isinstance(lightning_expedite.load_segmenter("demo"), lightning_expedite.Segmenter)
    with pytest.warns(FutureWarning, match="pictures is now lightning_expedite.visualization"):
        pictures = importlib.reload(importlib.import_module("lightning_expedite.pictures"))
    assert pictures.compare is visualization.compare
    assert lightning_expedite.pictures.token_groups is lightning_expedite.token_groups
