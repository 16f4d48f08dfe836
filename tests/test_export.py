"""Exported files compute what the model does, and what does not is never written."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import noise, tiny_model

import lightning_expedite
from lightning_expedite import load_segmenter
from lightning_expedite.data import Demo
from lightning_expedite.data.transforms import normalize
from lightning_expedite.errors import ExportError
from lightning_expedite.exporting import checking, export, formats
from lightning_expedite.exporting.checking import check_file
from lightning_expedite.exporting.formats import FORMATS, open_torch
from lightning_expedite.reducers import ACT, EViT, TokenClustering, ToMe
from lightning_expedite.reducers.base import Reducer, Reduction

CONFIGS = Path(__file__).parents[1] / "configs"
REDUCERS = {
    "none": lambda: None,
    "ours": lambda: TokenClustering(2, (5, 4)),
    "evit": lambda: EViT([2, 3], 0.7),
    "tome": lambda: ToMe(0.3),
}


def scenes(count, side):
    """Windows of the bundled scenes."""
    source = Demo().source()
    windows = [normalize(source.image(number)[:side, :side], "vit") for number in range(count)]
    return torch.from_numpy(np.stack(windows)).permute(0, 3, 1, 2)


def small(name, side=64):
    """A model of three layers with real attention, as trained models have."""
    return tiny_model(REDUCERS[name](), image_size=(side, side), depth=3, decoder_depth=1)


@pytest.fixture(params=["torch", "onnx"])
def format(request):
    if request.param == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
    return request.param


@pytest.mark.parametrize("name", REDUCERS)
def test_a_file_computes_what_the_model_does(name, format, tmp_path):
    model, crops = small(name), scenes(4, 64)
    report = export(model, tmp_path, crops, format=format)
    assert json.loads((tmp_path / "export.json").read_text()) == json.loads(json.dumps(report))
    assert {path.name for path in tmp_path.iterdir()} == {"export.json", report["file"]}
    assert [one["batch_size"] for one in report["check"]["batches"]] == [1, 2, 3, 8]
    run = FORMATS[format].open(tmp_path / report["file"])
    fresh = scenes(12, 64)[5:]  # windows and a number of them that neither the export nor its check saw
    with torch.no_grad():
        expected = model.segment_patches(fresh).logits
    found = run(fresh)
    largest = float(expected.abs().max())
    for one in report["check"]["batches"]:
        assert one["max_abs_difference"] <= one["tolerance"] < 1e-3 * largest
        assert one["labels_differing"] == 0
    assert float((found - expected).abs().max()) < 1e-3 * largest
    assert torch.equal(found.argmax(1), expected.argmax(1))


@pytest.mark.slow
def test_logits_of_every_pixel_and_a_fixed_number_of_windows(format, tmp_path):
    model, crops = small("ours"), scenes(3, 64)
    report = export(model, tmp_path, crops, format=format, batch=2, upsample=True, normalization="deit")
    assert report["input"]["shape"] == [2, 3, 64, 64]
    assert report["input"]["normalization"]["mean"] == pytest.approx([123.68, 116.28, 103.53])
    assert report["output"] == {"name": "logits", "shape": [2, 5, 64, 64], "dtype": "float32", "resolution": "pixels"}
    assert [one["batch_size"] for one in report["check"]["batches"]] == [2]
    with torch.no_grad():
        expected = model(crops[:2])
    found = FORMATS[format].open(tmp_path / report["file"])(crops[:2])
    assert float((found - expected).abs().max()) < 1e-3 * float(expected.abs().max())


@pytest.mark.slow
def test_large_weights_lie_beside_an_onnx_file(tmp_path, monkeypatch):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    monkeypatch.setattr(formats, "_MOST_INSIDE", 0)
    export(small("none"), tmp_path / "first", scenes(2, 64), format="onnx")
    (tmp_path / "first").rename(tmp_path / "moved")
    assert {path.name for path in (tmp_path / "moved").iterdir()} == {"export.json", "model.onnx", "model.onnx.data"}
    assert (tmp_path / "moved" / "model.onnx.data").stat().st_size > 4 * 10_000
    assert FORMATS["onnx"].open(tmp_path / "moved" / "model.onnx")(scenes(1, 64)).shape == (1, 5, 8, 8)


@pytest.mark.slow
def test_windows_of_another_size_than_the_trained_one_resample_the_positions(format, tmp_path):
    model, crops = small("ours"), scenes(2, 80)
    report = export(model, tmp_path, crops, format=format)
    assert report["output"]["shape"] == ["batch", 5, 10, 10]


def test_the_model_is_left_as_it_was(tmp_path):
    model = small("tome").double().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    export(model, tmp_path, scenes(2, 64))
    assert model.training
    assert next(model.parameters()).dtype == torch.float64
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with torch.inference_mode():  # no table that the trace left behind spoils later passes
        for name in REDUCERS:
            assert small(name).segment_patches(scenes(2, 64)).logits.isfinite().all()


def test_merging_is_exported_without_bags_and_gives_the_same_means(tmp_path):
    model, crops = small("tome"), scenes(2, 64)
    with torch.no_grad():
        expected = model.segment_patches(crops).logits
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.compiler, "is_exporting", lambda: True)
            found = model.segment_patches(crops).logits
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max())
    export(model, tmp_path, crops)
    called = {str(node.target) for node in torch.export.load(tmp_path / "model.pt2").graph.nodes}
    assert not [name for name in called if "embedding_bag" in name]


def test_what_depends_on_content_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"ACT decides by an image's content .*TokenClustering, EViT, ToMe"):
        export(tiny_model(ACT(4)), tmp_path / "out", scenes(2, 64))
    assert not (tmp_path / "out").exists()


class Brightest(Reducer):
    """Depends on content and does not say so."""

    def start(self, layout):
        return BrightestReduction(layout)


class BrightestReduction(Reduction):
    def prepare_tokens(self, tokens):
        return tokens if tokens.mean() > 0 else -tokens


def test_what_cannot_be_traced_is_told(tmp_path):
    with pytest.raises(ExportError, match=r"the model with Brightest\(\) cannot be traced"):
        export(tiny_model(Brightest()), tmp_path, scenes(2, 64))
    assert not (tmp_path / "export.json").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "tflite"}, "format is 'tflite': it must be one of torch, onnx"),
        ({"batch": 0}, "batch is 0: it must be dynamic or 1 or more"),
        ({"crops": torch.zeros(3, 64, 64)}, r"crops have shape \(3, 64, 64\)"),
        ({"crops": torch.zeros(0, 3, 64, 64)}, "n at least 1"),
    ],
)
def test_options_that_cannot_be_are_named(options, words, tmp_path):
    with pytest.raises(ExportError, match=words):
        export(small("none"), tmp_path, **{"crops": scenes(1, 64), **options})


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ExportError, match=r"needs onnx, onnxscript, onnxruntime.*lightning-expedite\[export\]"):
        export(small("none"), tmp_path, scenes(1, 64), format="onnx")


def write_spoilt(program, path):
    """Write a file with one weight that is not the model's; the program's own weights are the model's."""
    weight = program.state_dict["model.encoder.blocks.2.mlp.fc2.bias"][:1]
    with torch.no_grad():
        weight += 1e-2
        torch.export.save(program, path)
        weight -= 1e-2


@pytest.mark.parametrize("name", ["none", "tome"])
def test_a_wrong_file_is_not_kept(name, tmp_path, monkeypatch):
    monkeypatch.setitem(FORMATS, "torch", formats.Format("model.pt2", (), write_spoilt, open_torch))
    with pytest.raises(ExportError, match=r"the exported file is wrong: at batch size 1 the logits of crop 0"):
        export(small(name), tmp_path, scenes(2, 64))
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


def test_numbers_that_are_none_and_other_shapes_are_wrong():
    crops = scenes(2, 64)
    with pytest.raises(ExportError, match="differ by inf"):
        check_file(lambda images: images * float("nan"), lambda images: images, crops, [2])
    with pytest.raises(ExportError, match=r"shape \(2, 3, 64, 32\) for 2 windows; the model gives \(2, 3, 64, 64\)"):
        check_file(lambda images: images[..., :32], lambda images: images, crops, [2])


def test_every_crop_is_checked_at_every_batch_size():
    crops = noise(5, 3, 4, 4)

    def wrong_for(images):
        return images + 1e-3 * (images[:, :1, :1, :1] == crops[4, 0, 0, 0])

    for size in (1, 2, 3, 5, 8):
        with pytest.raises(ExportError, match="crop 4"):
            check_file(wrong_for, lambda images: images.clone(), crops, [size])
    assert checking.SAMPLES < checking.MOST_SAMPLES


@pytest.mark.parametrize("name", ["none", "ours", "evit", "tome"])
@pytest.mark.slow
def test_the_trained_model_is_exported(name, format, run, tmp_path):
    words = ("--config", CONFIGS / f"demo_{name}.yaml", "--format", format, "--output", tmp_path / "out")
    status, _, err = run("export", *words, "--crops", 16)
    assert status == 0, err
    report = json.loads((tmp_path / "out" / "export.json").read_text())
    for one in report["check"]["batches"]:
        assert one["label_agreement"] > 0.999
        assert one["max_abs_difference"] <= one["tolerance"]


def test_the_command_exports_a_config(run, fails, tmp_path):
    words = ("export", "--config", CONFIGS / "demo_ours.yaml", "--crops", 2, "--output", "out")
    status, out, err = run(*words)
    assert status == 0, err
    assert "computes what the model does: on 2 crops at batch sizes 1, 2, 3, 8" in out
    report = json.loads(Path("out/export.json").read_text())
    assert report["input"]["shape"] == ["batch", 3, 128, 128]
    assert report["output"]["shape"] == ["batch", 11, 16, 16]
    assert report["classes"] == list(Demo().classes)
    assert report["reducer"]["class"] == "TokenClustering"
    assert "export.json exists already; give --overwrite" in fails(*words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--crops", 0), "--crops is 0: it must be 1 or more"),
        (("--trainer.precision", "bf16-mixed"), "leave --trainer options out"),
        (("--batch", 0), "batch is 0"),
    ],
)
def test_mistakes_end_with_one_line(fails, words, expected):
    assert expected in fails("export", "--config", CONFIGS / "demo_none.yaml", "--output", "out", *words)


def test_act_is_refused_on_the_command_line(fails):
    assert "ACT decides by an image's content" in fails("export", "--config", CONFIGS / "demo_act.yaml")


def test_the_function_stands_at_the_packages_top():
    assert lightning_expedite.export is export
    assert load_segmenter is lightning_expedite.load_segmenter
