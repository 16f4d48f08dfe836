"""Reducers as a user sees them."""

import pytest
import torch
from tiny import close, noise, tiny_model

from lightning_expedite.errors import ReducerError
from lightning_expedite.reducers import ACT, EViT, Reducer, Reduction, TokenClustering, ToMe

pytestmark = pytest.mark.usefixtures("no_gradients")
EVERY_REDUCER = {
    "none": lambda: None,
    "cluster": lambda: TokenClustering(2, (4, 3), neighbours=6),
    "evit": lambda: EViT([1, 3], 0.6),
    "evit_unfused": lambda: EViT([2], 0.5, fuse_token=False),
    "tome": lambda: ToMe(0.4),
    "act": lambda: ACT(6, seed=5),
}


# --- All of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [{}, {"decoder": "linear", "distilled": True}, {"class_token": False}], ids=str)
@pytest.mark.parametrize("name", EVERY_REDUCER)
def test_images_of_a_batch_do_not_influence_each_other(name, sizes):
    if "evit" in name and "class_token" in sizes:
        pytest.skip("EViT needs a class token")
    model = tiny_model(EVERY_REDUCER[name](), **sizes)
    images = noise(4, 3, 64, 64)
    together = model(images)
    for image, logits in zip(images, together, strict=True):
        assert close(logits, model(image[None])[0])
    assert close(model(images[[2, 0]]), together[[2, 0]])


@pytest.mark.parametrize("size", [(40, 96), (64, 24), (37, 50)])
@pytest.mark.parametrize("name", EVERY_REDUCER)
def test_any_size_of_image_gets_one_logit_per_pixel(name, size):
    model = tiny_model(EVERY_REDUCER[name]())
    logits = model(noise(2, 3, *size))
    assert logits.shape == (2, 5, *size)
    assert logits.isfinite().all()
    rows, columns = -(-size[0] // 8), -(-size[1] // 8)
    assert model.segment_patches(noise(2, 3, *size)).logits.shape == (2, 5, rows, columns)


@pytest.mark.parametrize("name", [name for name in EVERY_REDUCER if name != "none"])
def test_a_reducer_changes_the_logits_and_keeps_no_state_between_passes(name):
    model = tiny_model(EVERY_REDUCER[name]())
    images = noise(1, 3, 64, 64)
    first = model(images)
    model(noise(2, 3, 40, 72, seed=1))
    torch.rand(100)  # the global generator plays no role
    assert torch.equal(model(images), first)
    assert not torch.as_tensor(model.segment_patches(images).reduction.is_identity()).any()
    model.reducer = None
    assert not close(model(images), first, 1e-3)


@pytest.mark.parametrize("reducer", [EViT([1, 2, 4], 1.0), EViT([2], 0.999), ToMe(0.0), ToMe(0.01)], ids=str)
def test_a_reducer_that_keeps_all_tokens_equals_the_baseline(reducer):
    images = noise(2, 3, 64, 48)
    model = tiny_model()
    expected = model(images)
    model.reducer = reducer
    assert model.segment_patches(images).reduction.is_identity() is True
    assert torch.equal(model(images), expected)


# --- Settings that cannot apply ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: EViT([1], 0), "keep_rate=0 must be above 0 and at most 1"),
        (lambda: EViT([1], 1.5), "keep_rate=1.5 must be above 0 and at most 1"),
        (lambda: EViT([1], float("nan")), "keep_rate=nan must be"),
        (lambda: EViT([], 0.5), r"locations=\[\] must be a list of layers, each once"),
        (lambda: EViT([2, 3, 2], 0.5), r"locations=\[2, 3, 2\] must be a list of layers, each once"),
        (lambda: EViT([1], 0.5, neighbours=0), "neighbours=0 must be above 0"),
        (lambda: ToMe(-0.1), "ratio=-0.1 must lie between 0 and 1"),
        (lambda: ToMe(1.1), "ratio=1.1 must lie between 0 and 1"),
        (lambda: ACT(0), "query_hashes=0 must lie between 1 and 32"),
        (lambda: ACT(33), "query_hashes=33 must lie between 1 and 32"),
        (lambda: TokenClustering(1, 0), "clusters=0 must be one or two integers"),
        (lambda: TokenClustering(1, (3, 0)), r"clusters=\(3, 0\) must be one or two integers"),
        (lambda: TokenClustering(1, (3, 3, 3)), "clusters="),
        (lambda: TokenClustering(1, 3, window_size=0), "window_size=0 must be above 0"),
        (lambda: TokenClustering(1, 3, iterations=0), "iterations=0 must be above 0"),
        (lambda: TokenClustering(1, 3, temperature=-1.0), "temperature=-1.0 must be above 0"),
        (lambda: TokenClustering(1, 3, neighbours=0), "neighbours=0 must be above 0"),
        (lambda: TokenClustering(1, 3, reconstruction_temperature=0.0), "reconstruction_temperature=0.0"),
    ],
)
def test_settings_out_of_range_are_refused_on_construction(settings, message):
    with pytest.raises(ReducerError, match=message):
        settings()


@pytest.mark.parametrize(
    ("reducer", "sizes", "message"),
    [
        (TokenClustering(5, 3), {}, "location 5 is not a layer of this model: its layers are 1 to 4"),
        (TokenClustering(0, 3), {}, "location 0 is not a layer"),
        (TokenClustering(-1, 3), {}, "location -1 is not a layer"),
        (TokenClustering(2, (9, 4)), {}, r"clusters=\(9, 4\) is more than the model's own token grid"),
        (TokenClustering(2, 9), {}, r"clusters=\(9, 9\) is more than the model's own token grid of \(8, 8\)"),
        (EViT([2, 5], 0.5), {}, "location 5 is not a layer"),
        (EViT([0], 0.5), {}, "location 0 is not a layer"),
        (EViT([2], 0.5), {"class_token": False}, "this model has no class token"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused_when_it_is_made(reducer, sizes, message):
    with pytest.raises(ReducerError, match=message):
        tiny_model(reducer, **sizes)
    model = tiny_model(**sizes)
    with pytest.raises(ReducerError, match=message):
        model.reducer = reducer
    assert model.reducer is None


# --- Custom reducers ----------------------------------------------------------------------------------


class PairMerging(Reducer):
    """Merges neighbours permanently before the first layer, and restores every patch by an index map."""

    def __init__(self, kind) -> None:
        self.kind = kind

    def start(self, layout):
        return self.kind(layout)


class PairReduction(Reduction):
    def prepare_tokens(self, tokens):
        prefix, patches = tokens[:, : self.layout.prefix], tokens[:, self.layout.prefix :]
        pairs = [pair.mean(1) for pair in patches.split(2, dim=1)]
        return torch.cat((prefix, torch.stack(pairs, dim=1)), dim=1)

    def restore_tokens(self, tokens):
        prefix, merged = tokens[:, : self.layout.prefix], tokens[:, self.layout.prefix :]
        return torch.cat((prefix, merged[:, torch.arange(self.layout.patches) // 2]), dim=1)


class LateReduction(PairReduction):
    """Runs the decoder on the merged tokens."""

    def restore_tokens(self, tokens):
        return tokens

    def restore_logits(self, logits):
        return logits[:, torch.arange(self.layout.patches) // 2]


@pytest.mark.parametrize("kind", [PairReduction, LateReduction])
def test_a_custom_reducer_merges_permanently_and_restores(kind):
    model = tiny_model(PairMerging(kind))
    logits, _ = model.segment_patches(noise(2, 3, 24, 40))
    assert logits.shape == (2, 5, 3, 5)
    flat = logits.flatten(2)
    assert torch.equal(flat[..., 0:14:2], flat[..., 1:15:2])
    assert not close(tiny_model().segment_patches(noise(2, 3, 24, 40)).logits, logits, 1e-3)
    assert repr(ToMe(0.3)) == "ToMe(ratio=0.3)"
