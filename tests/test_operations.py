"""True FLOPs against a count by hand, against torch's own counter, and nothing left out."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny import noise, tiny_model
from torch.utils.flop_counter import FlopCounterMode

from lightning_expedite.benchmarking import costs
from lightning_expedite.benchmarking.costs import count_costs, on_meta
from lightning_expedite.benchmarking.operation_costs import FREE, PRICED
from lightning_expedite.benchmarking.operations import count_calls, count_operations
from lightning_expedite.benchmarking.tokens import count_tokens
from lightning_expedite.reducers import ACT, EViT, TokenClustering, ToMe

REDUCERS = [None, TokenClustering(1, (3, 3)), EViT([1, 2], 0.7), ToMe(0.3), ACT(24)]
FIXED = REDUCERS[:-1]


def test_a_linear_model_by_hand():
    model = tiny_model(decoder="linear", depth=1)
    tokens, patches, width, heads, hidden, classes = 65, 64, 32, 2, 128, 5
    matrix, biases = 2 * patches * (3 * 8 * 8) * width, patches * width
    for rows, inner, outer in (
        (tokens, width, 3 * width),
        (tokens, width, width),
        (tokens, width, hidden),
        (tokens, hidden, width),
        (patches, width, classes),
    ):
        matrix += 2 * rows * inner * outer
        biases += rows * outer
    assert dict(count_operations(model, noise(1, 3, 64, 64)).by_kind) == {
        "matrix": matrix,
        "attention": 4 * tokens * tokens * width,
        "normalisation": 3 * 5 * tokens * width + 5 * heads * tokens * tokens,
        "activation": 5 * tokens * hidden,
        # position embeddings, scaled queries and two residuals; scaled weights of the attention
        "elementwise": 4 * tokens * width + heads * tokens * tokens + biases,
    }


@pytest.mark.parametrize("reducer", FIXED, ids=str)
def test_products_are_those_of_torchs_counter(reducer):
    model, images = on_meta(tiny_model(reducer)), torch.empty(2, 3, 72, 72, device="meta")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.segment_patches(images)
    counted = count_operations(model, images).by_kind
    assert counted["matrix"] + counted["attention"] == counter.get_total_flops()


@pytest.mark.parametrize("reducer", REDUCERS, ids=str)
def test_nothing_that_computes_is_left_out(reducer):
    counted = count_costs(tiny_model(reducer), noise(1, 3, 72, 72))
    assert counted.true_gflops()["uncounted"] == []
    assert counted.by_content is isinstance(reducer, ACT)
    assert (counted.reduced is None) is (reducer is None)


BANDS = TokenClustering(1, (6, 6))  # more rows of clusters than a band of a CPU's has


@pytest.mark.parametrize("reducer", [*FIXED, BANDS], ids=str)
def test_a_count_without_numbers_is_that_of_a_real_pass(reducer):
    model, images = tiny_model(reducer), noise(2, 3, 72, 72)
    assert count_operations(on_meta(model), images.to("meta")) == count_operations(model, images)


THREE, ZERO = torch.tensor([0, 3, 3]), torch.tensor([0])  # rows of one bag, and where it begins


def test_an_unknown_operator_is_named():
    counted = count_calls(lambda: torch.erfinv(torch.full((3,), 0.5)) + 1)
    assert counted.uncounted == ("erfinv",)
    assert counted.by_kind == {"elementwise": 3}


@pytest.mark.parametrize(
    ("call", "kind", "flops"),
    [
        (lambda x: x.sort(dim=0), "sorting", 8 * 16 * 3),
        (lambda x: x.argsort(dim=1, descending=True), "sorting", 8 * 16 * 4),
        (lambda x: x.topk(3), "sorting", 8 * 16 * 4),
        (lambda x: x.sum(), "reduction", 128),
        (lambda x: x.norm(dim=1), "reduction", 256),
        (lambda x: x.softmax(-1), "normalisation", 5 * 128),
        (lambda x: F.gelu(x), "activation", 5 * 128),
        (lambda x: torch.addmm(x[0], x, x.T @ x), "matrix", 2 * 16 * 8 * 16 + 2 * 8 * 16 * 16),
        (lambda x: x.add_(1), "elementwise", 128),
        (lambda x: torch.zeros(2, 16).scatter_add(0, torch.zeros(8, 16).long(), x), "reduction", 128),
        (lambda x: F.embedding_bag(THREE, x, ZERO, mode="sum"), "reduction", 48),
        (lambda x: F.conv2d(x[None, None], torch.ones(2, 1, 3, 3), torch.ones(2)), "matrix", 2 * 6 * 14 * 18),
        (
            lambda x: F.embedding_bag(THREE, x, ZERO, mode="sum", per_sample_weights=torch.ones(3)),
            "reduction",
            2 * 48,
        ),
        (lambda x: torch.ops.aten._embedding_bag(x, THREE, ZERO, False, 0, False, torch.ones(3)), "reduction", 2 * 48),
        (lambda x: torch.ops.aten._embedding_bag(x, THREE, ZERO, False, 0, False, None), "reduction", 48),
        (
            lambda x: torch.ops.aten._embedding_bag(x, THREE, ZERO, per_sample_weights=torch.ones(3)),
            "reduction",
            2 * 48,
        ),
    ],
)
def test_the_price_of_one_call(call, kind, flops):
    x = noise(8, 16)
    counted = count_calls(lambda: call(x))
    assert counted.by_kind[kind] == flops
    assert counted.uncounted == ()


def test_moving_data_is_free():
    def move():
        x = torch.ones(4, 4)
        return torch.cat((x, x.T.contiguous())).gather(0, torch.zeros(1, 4).long()).half().clone()

    assert count_calls(move).total == 0
    assert not FREE & PRICED.keys()


def test_tokens_of_each_layer():
    images = noise(1, 3, 64, 64)
    counted = [count_tokens(tiny_model(reducer), images) for reducer in REDUCERS]
    none, clustered, dropped, merged, grouped = counted
    assert (none.attention, none.mlp, none.decoder) == ([65] * 4, [65] * 4, 64)
    assert (clustered.attention, clustered.mlp, clustered.decoder) == ([65, 10, 10, 10], [65, 10, 10, 10], 9)
    first = math.ceil(0.7 * 64) + 1  # with the token that stands for the dropped ones
    second = math.ceil(0.7 * first) + 1
    assert dropped.attention == [65, 1 + first, 1 + second, 1 + second]
    assert (dropped.mlp, dropped.decoder) == ([1 + first, *3 * [1 + second]], 64)
    assert (merged.attention, merged.mlp, merged.decoder) == ([65 - int(0.3 * 65)] * 4, [65 - int(0.3 * 65)] * 4, 64)
    groups = tiny_model(ACT(24)).segment_patches(images).reduction.groups
    assert grouped.attention == [int(layer.max()) for layer in groups]
    assert grouped.mlp == [65] * 4


class Undone(TokenClustering):
    """A method with a mistake that only a pass without numbers shows."""

    def start(self, layout):
        reduction = super().start(layout)
        whole = reduction.restore_logits

        def restore_logits(logits):
            if logits.device.type == "meta":
                raise RuntimeError("a mistake")
            return whole(logits)

        reduction.restore_logits = restore_logits
        return reduction


def test_a_mistake_is_no_dependence_on_content():
    with pytest.raises(RuntimeError, match="a mistake"):
        count_costs(tiny_model(Undone(1, (3, 3))), noise(1, 3, 64, 64))


@pytest.mark.parametrize("reducer", FIXED, ids=str)
def test_elsewhere_than_on_a_cpu_the_pass_itself_is_counted(reducer, monkeypatch):
    model, image = on_meta(tiny_model(reducer)), torch.empty(1, 3, 72, 72, device="meta")  # stands for a GPU
    expected = count_costs(tiny_model(reducer), noise(1, 3, 72, 72))
    monkeypatch.setattr(costs, "on_meta", lambda model: pytest.fail("another model was counted"))
    assert count_costs(model, image) == expected


@pytest.mark.gpu
def test_the_bands_of_a_gpu_are_counted():
    model, image = tiny_model(BANDS).cuda(), noise(1, 3, 72, 72).cuda()
    counted = count_costs(model, image)
    assert counted.reduced.operations == count_operations(model, image)
    assert counted.reduced.operations.total > count_costs(model.cpu(), image.cpu()).reduced.operations.total
    assert counted.true_gflops()["uncounted"] == []
