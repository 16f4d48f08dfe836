"""Which patches share a token: what reducers report, against the tensors that they work with."""

import numpy as np
import pytest
import torch
from tiny import close, noise, tiny_model

from lightning_expedite.errors import ConfigError, ReducerError
from lightning_expedite.evaluation import SlidingWindow
from lightning_expedite.evaluation.token_maps import default_layers, steps_at, token_maps
from lightning_expedite.reducers import (
    ACT,
    DROPPED,
    EViT,
    Grouping,
    GroupRecorder,
    Reducer,
    Reduction,
    TokenClustering,
    ToMe,
    act,
    clustering,
    evit,
    tome,
)

pytestmark = pytest.mark.usefixtures("no_gradients")


def spy(monkeypatch, place, name):
    """Keeps the arguments and the result of every call of a function."""
    calls, function = [], getattr(place, name)

    def spied(*arguments):
        result = function(*arguments)
        calls.append((*arguments, result))
        return result

    monkeypatch.setattr(place, name, spied)
    return calls


def recorded(model, images):
    recorder = GroupRecorder()
    reduction = model.segment_patches(images, recorder).reduction
    return recorder.steps, reduction


# --- Reports against tensors ------------------------------------------------------------------------


@pytest.mark.parametrize("distilled", [False, True])
def test_tome_the_mean_of_a_group_is_its_merged_token(monkeypatch, distilled):
    merges = spy(monkeypatch, tome.Matching, "merge")
    model = tiny_model(ToMe(0.4), distilled=distilled)
    steps, _ = recorded(model, noise(2, 3, 48, 64))
    prefix = model.architecture.prefix
    assert [(step.layer, step.part) for step in steps] == [
        (at, part) for at in range(1, 5) for part in ("attention", "MLP")
    ]
    for step, (_, tokens, merged) in zip(steps, merges, strict=True):
        assert step.group.shape == (2, 6, 8)
        assert step.count == merged.shape[1]
        for image in range(2):
            group = step.group[image].flatten()
            assert len(group.unique()) == step.count - prefix < 48
            for number in group.unique():
                members = tokens[image, prefix:][group == number]
                assert close(merged[image, number], members.mean(dim=0))


@pytest.mark.parametrize("fuse", [True, False])
def test_evit_the_kept_are_those_with_the_most_attention_of_the_class_token(monkeypatch, fuse):
    attentions = spy(monkeypatch, evit, "class_attention")
    model = tiny_model(EViT([1, 3, 4], 0.6, fuse_token=fuse), distilled=True)
    steps, _ = recorded(model, noise(2, 3, 48, 64))
    assert [(step.layer, step.lasts) for step in steps] == [(1, True), (3, True), (4, True)]
    for image in range(2):
        patches = list(range(48))
        for step, (_, _, attention) in zip(steps, attentions, strict=True):
            ranked = sorted(range(len(patches)), key=lambda at: -float(attention[image, 2 + at]))
            keep = -(-6 * len(patches) // 10)
            patches = [patches[at] for at in ranked[:keep]] + ["extra"] * fuse
            assert step.count == 2 + len(patches)
            group = step.group[image].flatten().tolist()
            assert group == [patch if patch in patches else DROPPED for patch in range(48)]


def test_clustering_each_patch_is_in_the_nearest_cluster_of_the_last_iteration_within_its_window():
    settings = TokenClustering(1, (5, 4), window_size=3, iterations=3)
    (step,), reduction = recorded(tiny_model(settings).double(), noise(1, 3, 80, 64, dtype=torch.float64))
    assert (step.layer, step.count, step.lasts, step.part) == (1, 21, True, "")
    tokens = reduction.tokens[0]
    rows, columns = 5 * torch.arange(10) // 10, 4 * torch.arange(8) // 8
    homes = torch.stack((rows[:, None].expand(10, 8), columns.expand(10, 8)), -1).view(80, 1, 2)
    clusters = torch.stack((torch.arange(20) // 4, torch.arange(20) % 4), -1)
    outside = ((homes - clusters).abs() > 1).any(-1)
    centroids = torch.nn.functional.adaptive_avg_pool2d(tokens.T.view(1, -1, 10, 8), (5, 4)).flatten(2)[0].T
    for _ in range(3):
        logits = (-0.02 * torch.cdist(tokens, centroids) ** 2).masked_fill(outside, -torch.inf)
        weights = logits.softmax(-1)
        centroids = (weights / weights.sum(0)).T @ tokens
    assert close(reduction.centroids[0], centroids)
    assert torch.equal(step.group.flatten(), logits.argmax(-1))


def test_act_queries_share_a_group_where_their_hashes_are_equal(monkeypatch):
    hashes = spy(monkeypatch, act, "hash_queries")
    steps, _ = recorded(tiny_model(ACT(6, seed=5)), noise(2, 3, 48, 64))
    assert [(step.layer, step.unit) for step in steps] == [(layer, "queries") for layer in range(1, 5)]
    for step, (*_, codes) in zip(steps, hashes, strict=True):
        group = step.group.flatten(2)
        same = codes[..., 1:, None] == codes[..., None, 1:]
        assert torch.equal(group[..., :, None] == group[..., None, :], same)
        assert step.count.tolist() == [[len(head.unique()) for head in image] for image in codes]
        assert same.float().mean() > 1 / 48


@pytest.mark.parametrize("reducer", [ToMe(0.4), EViT([1, 3], 0.6), TokenClustering(2, (4, 3)), ACT(6)], ids=str)
def test_recording_changes_no_logits_and_other_passes_record_nothing(monkeypatch, reducer):
    model, images = tiny_model(reducer), noise(2, 3, 64, 48)
    recorder = GroupRecorder()
    expected = model.segment_patches(images, recorder).logits
    assert recorder.steps

    def never(*_, **__):
        raise AssertionError("no groups were requested")

    monkeypatch.setattr(GroupRecorder, "add", never)
    monkeypatch.setattr(clustering, "hard_assignment", never)
    monkeypatch.setattr(evit.EViTReduction, "_kept_patches", never)
    assert torch.equal(model.segment_patches(images).logits, expected)


# --- Which steps a layer shows -----------------------------------------------------------------------


def step(layer, lasts=False, part=""):
    return Grouping(layer, torch.zeros(1, 2, 2), 1, part, lasts)


def test_a_layer_shows_its_own_steps_or_the_last_one_that_lasts_and_some_are_chosen():
    lasting = [step(2, lasts=True), step(4, lasts=True)]
    assert steps_at(lasting, 1) == []
    assert [(found.layer, found.group) for found in steps_at(lasting, 3)] == [(3, lasting[0].group)]
    assert steps_at(lasting, 4) == [lasting[1]]
    passing = [step(2, part="attention"), step(2, part="MLP")]
    assert steps_at(passing, 2) == passing
    assert steps_at(passing, 3) == []
    assert default_layers([step(4), step(7)]) == [4, 7]
    assert default_layers([step(layer) for layer in range(1, 13)]) == [1, 4, 7, 9, 12]
    assert default_layers([step(layer, part=part) for layer in range(1, 13) for part in "ab"]) == [1, 5, 8, 12]


# --- Over an image -----------------------------------------------------------------------------------


def same_partition(one, other):
    pairs = len(np.unique(np.stack((one.ravel(), other.ravel())), axis=1).T)
    return len(np.unique(one)) == len(np.unique(other)) == pairs


def test_maps_of_an_image_are_those_of_its_windows_side_by_side():
    model, image = tiny_model(ToMe(0.3)), noise(3, 90, 128)
    maps = token_maps(model, image, SlidingWindow(64, 48, 3), layers=[2])
    assert maps.window.shape == (90, 128)
    # The lower windows are shifted back to end with the image, and cover a part of the upper ones.
    assert [maps.window[y, x] for y, x in ((0, 63), (25, 64), (26, 0), (89, 127))] == [0, 1, 2, 3]
    steps, _ = recorded(model, torch.stack([image[:, y : y + 64, x : x + 64] for y in (0, 26) for x in (0, 64)]))
    titles = [f"layer 2, {part}\n46 of 65 tokens" for part in ("attention", "MLP")]
    assert [found.title for found in maps.steps] == titles
    for found, expected in zip(maps.steps, steps[2:4], strict=True):
        for number, (top, left, rows) in enumerate(((0, 0, 24), (0, 64, 24), (26, 0, 64), (26, 64, 64))):
            group = expected.group[number].repeat_interleave(8, 0).repeat_interleave(8, 1)[:rows].numpy()
            assert same_partition(found.group[top : top + rows, left : left + 64], group)
            members = np.bincount(expected.group[number].flatten(), minlength=65)
            assert np.array_equal(found.alone[top : top + rows, left : left + 64], members[group] == 1)
    assert not set(np.unique(maps.steps[0].group[:26, :64])) & set(np.unique(maps.steps[0].group[:26, 64:]))


def test_before_the_first_step_every_patch_is_alone_and_a_lasting_step_stays():
    model = tiny_model(EViT([2], 0.5))
    before, after = token_maps(model, noise(3, 64, 64), SlidingWindow(64, 64), layers=[1, 4]).steps
    assert before.title == "after layer 1\n65 of 65 tokens"
    assert before.alone.all()
    assert len(np.unique(before.group)) == 64
    assert after.title == "after layer 4\n34 of 65 tokens"
    assert (after.group == DROPPED).mean() == 0.5
    assert np.array_equal(after.alone, after.group != DROPPED)


def test_heads_are_chosen_and_ranges_are_named():
    model, windows = tiny_model(ACT(4)), SlidingWindow(64, 64, 1)
    image = torch.cat((noise(3, 64, 64), torch.zeros(3, 64, 64)), dim=2)
    first, second = (token_maps(model, image, windows, [3], head).steps[0] for head in (1, 2))
    place, tokens = first.title.splitlines()
    assert place == "layer 3, attention, head 1"
    assert " to " in tokens
    assert tokens.endswith(" of 65 queries")
    assert not same_partition(first.group, second.group)


class Halving(Reducer):
    def __init__(self, reports=False):
        self.reports = reports

    def start(self, layout):
        return (ReportedHalves if self.reports else Halves)(layout)


class Halves(Reduction):
    def prepare_tokens(self, tokens):
        return torch.cat((tokens[:, :1], tokens[:, 1::2]), dim=1)

    def restore_logits(self, logits):
        return logits.repeat_interleave(2, dim=1)

    def is_identity(self):
        return False


class ReportedHalves(Halves):
    def prepare_tokens(self, tokens):
        group = (torch.arange(self.layout.patches) // 2).expand(len(tokens), -1)
        self.recorder.add(self.layout, 1, group, 1 + self.layout.patches // 2, lasts=True)
        return super().prepare_tokens(tokens)


def test_a_custom_reducer_reports_its_groups():
    (found,) = token_maps(tiny_model(Halving(reports=True)), noise(3, 64, 64), SlidingWindow(64, 64)).steps
    assert found.title == "after layer 1\n33 of 65 tokens"
    assert (found.group[:, 0] == found.group[:, 15]).all()
    assert (found.group[:, 15] != found.group[:, 16]).all()


@pytest.mark.parametrize(
    ("reducer", "options", "error", "message"),
    [
        (None, {}, ConfigError, "the model has no reducer"),
        (ToMe(0.0), {}, ConfigError, r"ToMe\(ratio=0.0\) reduced nothing here"),
        (ToMe(0.3), {"layers": [5]}, ConfigError, "layer 5 is not one of this model: its layers are 1 to 4"),
        (ToMe(0.3), {"layers": [0]}, ConfigError, "layer 0 is not one of this model"),
        (ACT(4), {"head": 3}, ConfigError, "head 3 is not one of this model: its heads are 1 to 2"),
        (Halving(), {}, ReducerError, "Halving does not report which patches share a token"),
    ],
)
def test_what_cannot_be_drawn_is_named(reducer, options, error, message):
    with pytest.raises(error, match=message):
        token_maps(tiny_model(reducer), noise(3, 64, 64), SlidingWindow(64, 64), **options)
