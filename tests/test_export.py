"""Exported files compute what the model does, and what does not is never written."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import noise, tiny_model

import lightning_expedite
from lightning_expedite.data import Demo
from lightning_expedite.data.transforms import normalize
from lightning_expedite.errors import ExportError
from lightning_expedite.exporting import export, formats
from lightning_expedite.exporting.checking import check_file
from lightning_expedite.exporting.formats import FORMATS, open_torch
from lightning_expedite.reducers import ACT, EViT, TokenClustering, ToMe
from lightning_expedite.reducers.base import Reducer, Reduction

CONFIGS = Path(__file__).parents[1] / "configs"
REDUCERS = {
    "none": lambda: None,
    "ours": lambda: TokenClustering(1, (5, 4)),
    "evit": lambda: EViT([1, 2], 0.7),
    "tome": lambda: ToMe(0.3),
}
IN_BOTH_FORMATS = [
    *(("torch", name) for name in REDUCERS),
    ("onnx", "none"),
    *(pytest.param("onnx", name, marks=pytest.mark.slow) for name in ("ours", "evit", "tome")),
]


def scenes(count, side):
    """Windows of the bundled scenes."""
    source = Demo().source()
    windows = [normalize(source.image(number)[:side, :side], "vit") for number in range(count)]
    return torch.from_numpy(np.stack(windows)).permute(0, 3, 1, 2)


def small(name, side=64):
    """A model of two layers with real attention, as trained models have."""
    return tiny_model(REDUCERS[name](), image_size=(side, side), depth=2, decoder_depth=1)


def require_packages(format):
    for package in FORMATS[format].packages:
        pytest.importorskip(package)


# --- Files that are right ------------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "name"), IN_BOTH_FORMATS)
def test_a_file_computes_what_the_model_does_and_the_model_is_left_as_it_was(name, format, tmp_path):
    require_packages(format)
    model, crops = small(name).train(), scenes(4, 64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = export(model, tmp_path, crops, format=format)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert json.loads((tmp_path / "export.json").read_text()) == json.loads(json.dumps(report))
    assert {path.name for path in tmp_path.iterdir()} == {"export.json", report["file"]}
    assert [batch["batch_size"] for batch in report["check"]["batches"]] == [1, 2, 3, 8]
    run = FORMATS[format].open(tmp_path / report["file"])
    unseen = scenes(12, 64)[5:]  # windows, and a batch size, that neither the export nor its check saw
    with torch.inference_mode():  # no table that the trace left behind spoils later passes
        expected = model.eval().segment_patches(unseen).logits
    found = run(unseen)
    largest = float(expected.abs().max())
    for batch in report["check"]["batches"]:
        assert batch["max_abs_difference"] <= batch["tolerance"] < 1e-3 * largest
        assert batch["labels_differing"] == 0
    assert float((found - expected).abs().max()) < 1e-3 * largest
    assert torch.equal(found.argmax(1), expected.argmax(1))
    if format == "torch":  # an embedding bag is a loop in ONNX
        called = {str(node.target) for node in torch.export.load(tmp_path / "model.pt2").graph.nodes}
        assert not [name for name in called if "embedding_bag" in name]


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_logits_of_every_pixel_and_a_fixed_number_of_windows(format, tmp_path):
    require_packages(format)
    model, crops = small("ours"), scenes(3, 64)
    report = export(model, tmp_path, crops, format=format, batch=2, upsample=True, normalization="deit")
    assert report["input"]["shape"] == [2, 3, 64, 64]
    assert report["input"]["normalization"]["mean"] == pytest.approx([123.68, 116.28, 103.53])
    assert report["output"] == {"name": "logits", "shape": [2, 5, 64, 64], "dtype": "float32", "resolution": "pixels"}
    assert [batch["batch_size"] for batch in report["check"]["batches"]] == [2]
    with torch.no_grad():
        expected = model(crops[:2])
    found = FORMATS[format].open(tmp_path / report["file"])(crops[:2])
    assert float((found - expected).abs().max()) < 1e-3 * float(expected.abs().max())


@pytest.mark.slow
def test_large_weights_lie_beside_an_onnx_file(tmp_path, monkeypatch):
    require_packages("onnx")
    monkeypatch.setattr(formats, "_MOST_INSIDE", 0)
    export(small("none"), tmp_path / "first", scenes(2, 64), format="onnx")
    (tmp_path / "first").rename(tmp_path / "moved")
    assert {path.name for path in (tmp_path / "moved").iterdir()} == {"export.json", "model.onnx", "model.onnx.data"}
    assert (tmp_path / "moved" / "model.onnx.data").stat().st_size > 4 * 10_000
    assert FORMATS["onnx"].open(tmp_path / "moved" / "model.onnx")(scenes(1, 64)).shape == (1, 5, 8, 8)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_windows_of_another_size_than_the_trained_one_resample_the_positions(format, tmp_path):
    require_packages(format)
    report = export(small("ours").double(), tmp_path, scenes(2, 80), format=format)
    assert report["output"]["shape"] == ["batch", 5, 10, 10]


def test_merging_without_embedding_bags_gives_the_same_means(monkeypatch):
    model, crops = small("tome"), scenes(2, 64)
    with torch.no_grad():
        expected = model.segment_patches(crops).logits
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
        found = model.segment_patches(crops).logits
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max())


# --- What cannot be exported -----------------------------------------------------------------------------


class Brightest(Reducer):
    """Depends on content without declaring it."""

    def start(self, layout):
        return BrightestReduction(layout)


class BrightestReduction(Reduction):
    def prepare_tokens(self, tokens):
        return tokens if tokens.mean() > 0 else -tokens


@pytest.mark.parametrize(
    ("reducer", "options", "words"),
    [
        (None, {"format": "tflite"}, "format is 'tflite': it must be one of torch, onnx"),
        (None, {"batch": 0}, "batch is 0: it must be dynamic or 1 or more"),
        (None, {"crops": torch.zeros(3, 64, 64)}, r"crops have shape \(3, 64, 64\)"),
        (None, {"crops": torch.zeros(0, 3, 64, 64)}, "n at least 1"),
        (ACT(4), {}, r"ACT cannot be exported: .*content.*TokenClustering, EViT or ToMe"),
        (Brightest(), {}, r"the model with Brightest\(\) cannot be traced"),
    ],
)
def test_what_cannot_be_exported_is_named(reducer, options, words, tmp_path):
    with pytest.raises(ExportError, match=words):
        export(tiny_model(reducer), tmp_path / "out", **{"crops": scenes(2, 64), **options})
    assert not (tmp_path / "out").exists()


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ExportError, match=r"needs onnx, onnxscript, onnxruntime.*lightning-expedite\[export\]"):
        export(small("none"), tmp_path, scenes(1, 64), format="onnx")


# --- Files that are wrong --------------------------------------------------------------------------------


def write_corrupted(program, path):
    """Write a file with one weight that is not the model's; the program's own weights are the model's."""
    weight = program.state_dict["model.encoder.blocks.1.mlp.fc2.bias"][:1]
    with torch.no_grad():
        weight += 1e-2
        torch.export.save(program, path)
        weight -= 1e-2


def test_a_wrong_file_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setitem(FORMATS, "torch", formats.Format("model.pt2", (), write_corrupted, open_torch))
    with pytest.raises(ExportError, match=r"the exported file is wrong: at batch size 1 the logits of crop 0"):
        export(small("none"), tmp_path, scenes(2, 64))
    assert not list(tmp_path.iterdir())


class Steep:
    """A function with a choice: which of two nearly equal numbers is larger decides about the result."""

    def __init__(self, gap):
        self.gap = gap

    def __call__(self, images):
        chosen = (images[:, :1] > images[:, 1:2] + self.gap).to(images.dtype)
        return chosen + images[:, :1]


def test_a_choice_between_equals_is_explained_and_any_other_is_not():
    crops = torch.full((1, 3, 2, 2), 0.5)
    exact, other = Steep(0.0), Steep(-1e-7)  # equal numbers: one takes the first, the other the second
    report = check_file(other, exact, crops, [1])
    assert report["batches"][0]["max_abs_difference"] == 1.0
    with pytest.raises(ExportError, match=r"differ by 1, rounding explains"):
        check_file(Steep(-0.02), exact, crops + torch.tensor([0.0, 0.01, 0.0])[:, None, None], [1])


def test_nan_other_shapes_and_a_wrong_crop_are_found_at_every_batch_size():
    crops = noise(5, 3, 4, 4)
    with pytest.raises(ExportError, match="differ by inf"):
        check_file(lambda images: images * float("nan"), lambda images: images, crops, [2])
    with pytest.raises(ExportError, match=r"shape \(2, 3, 4, 2\) for 2 windows; the model's are \(2, 3, 4, 4\)"):
        check_file(lambda images: images[..., :2], lambda images: images, crops, [2])

    def wrong_for_one(images):
        return images + 1e-3 * (images[:, :1, :1, :1] == crops[4, 0, 0, 0])

    for size in (1, 2, 3, 5, 8):
        with pytest.raises(ExportError, match="crop 4"):
            check_file(wrong_for_one, lambda images: images.clone(), crops, [size])


# --- On the command line -----------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", REDUCERS)
@pytest.mark.slow
def test_the_trained_model_is_exported(name, format, run, tmp_path):
    require_packages(format)
    words = ("--config", CONFIGS / f"demo_{name}.yaml", "--format", format, "--output", tmp_path / "out")
    status, _, err = run("export", *words, "--crops", 16)
    assert status == 0, err
    report = json.loads((tmp_path / "out" / "export.json").read_text())
    for batch in report["check"]["batches"]:
        assert batch["label_agreement"] > 0.999
        assert batch["max_abs_difference"] <= batch["tolerance"]


def test_the_command_exports_a_config(run, fails):
    words = ("export", "--config", CONFIGS / "demo_ours.yaml", "--crops", 2, "--output", "out")
    status, out, err = run(*words)
    assert status == 0, err
    assert "computes what the model does: on 2 crops at batch sizes 1, 2, 3, 8" in out
    report = json.loads(Path("out/export.json").read_text())
    assert report["input"]["shape"] == ["batch", 3, 128, 128]
    assert report["output"]["shape"] == ["batch", 11, 16, 16]
    assert report["classes"] == list(Demo().classes)
    assert report["reducer"]["class"] == "TokenClustering"
    assert "export.json exists already; use --overwrite" in fails(*words)


@pytest.mark.parametrize(
    ("config", "words", "expected"),
    [
        ("none", ("--crops", 0), "--crops is 0: it must be 1 or more"),
        ("none", ("--trainer.precision", "bf16-mixed"), "leave --trainer options out"),
        ("none", ("--batch", 0), "batch is 0"),
        ("act", (), "ACT cannot be exported"),
    ],
)
def test_mistakes_end_with_one_line(fails, config, words, expected):
    assert expected in fails("export", "--config", CONFIGS / f"demo_{config}.yaml", "--output", "out", *words)

    assert lightning_expedite.export is export
