"""What both variants cost: true FLOPs, tokens and peak memory."""

import math

import pytest
import torch
from tiny import noise, tiny_model

from lightning_expedite.benchmarking.costs import attention_kernels, count_costs, count_operators, on_meta
from lightning_expedite.benchmarking.memory import peak_memory_mib
from lightning_expedite.models import with_reducer
from lightning_expedite.reducers import ACT, EViT, TokenClustering, ToMe

CPU = torch.device("cpu")
REDUCERS = [None, TokenClustering(1, (3, 3)), EViT([1, 2], 0.7), ToMe(0.3), ACT(24)]


def test_true_flops_of_a_linear_model_by_hand():
    model = tiny_model(decoder="linear", depth=1)
    tokens, patches, width, hidden, classes = 65, 64, 32, 128, 5
    layers = ((tokens, width, 3 * width), (tokens, width, width), (tokens, width, hidden), (tokens, hidden, width))
    expected = 2 * patches * (3 * 8 * 8) * width + 2 * patches * width * classes
    expected += sum(2 * rows * inner * outer for rows, inner, outer in layers)
    expected += 2 * 2 * tokens * tokens * width
    found = count_costs(model, noise(1, 3, 64, 64))["true_gflops"]
    assert found["unreduced"] == expected / 1e9
    assert found["reduced"] is None
    assert "2 FLOPs per multiply-add" in found["convention"]


@pytest.mark.parametrize("reducer", REDUCERS, ids=str)
def test_a_count_on_meta_is_that_of_a_real_pass(reducer):
    model, image = tiny_model(reducer), noise(1, 3, 72, 72)
    costs = count_costs(model, image)
    variant = "unreduced" if reducer is None else "reduced"
    real = count_operators(lambda: model.segment_patches(image))
    assert costs["true_gflops"][variant] == sum(real.values()) / 1e9
    assert sum(costs["true_gflops"]["by_operator"][variant].values()) == pytest.approx(sum(real.values()) / 1e9)
    assert costs["counted_on"] == ("the first crop" if isinstance(reducer, ACT) else "shapes alone")
    assert costs["gflops"]["unreduced"] == count_costs(tiny_model(), image)["gflops"]["unreduced"]


def test_tokens_of_each_layer():
    images = noise(1, 3, 64, 64)
    counted = [count_costs(tiny_model(reducer), images)["tokens"] for reducer in REDUCERS]
    none, clustered, pruned, merged, grouped = ((each["attention"], each["mlp"], each["decoder"]) for each in counted)
    assert none == ([65] * 4, [65] * 4, 64)
    assert clustered == ([65, 10, 10, 10], [65, 10, 10, 10], 9)
    first = math.ceil(0.7 * 64) + 1  # with the token that stands for the pruned ones
    second = math.ceil(0.7 * first) + 1
    assert pruned == ([65, 1 + first, 1 + second, 1 + second], [1 + first, *3 * [1 + second]], 64)
    assert merged == ([65 - int(0.3 * 65)] * 4, [65 - int(0.3 * 65)] * 4, 64)
    groups = tiny_model(ACT(24)).segment_patches(images).reduction.groups
    assert grouped == ([int(layer.max()) for layer in groups], [65] * 4, 64)
    assert {each["unreduced"] for each in counted} == {65}


class Mistaken(TokenClustering):
    """A method with a mistake that only a pass on the meta device shows."""

    def start(self, layout):
        reduction = super().start(layout)
        whole = reduction.restore_logits

        def restore_logits(logits):
            if logits.device.type == "meta":
                raise RuntimeError("a mistake")
            return whole(logits)

        reduction.restore_logits = restore_logits
        return reduction


def test_a_mistake_is_not_taken_for_dependence_on_content():
    with pytest.raises(RuntimeError, match="a mistake"):
        count_costs(tiny_model(Mistaken(1, (3, 3))), noise(1, 3, 64, 64))


def test_attention_kernels_are_those_of_the_device():
    model = on_meta(tiny_model())
    assert attention_kernels(lambda: model.segment_patches(torch.empty(1, 3, 64, 64, device="meta"))) == []
    model, images = tiny_model(), noise(1, 3, 64, 64)
    assert attention_kernels(lambda: model.segment_patches(images)) == ["_scaled_dot_product_flash_attention_for_cpu"]


# --- Peak memory -------------------------------------------------------------------------------------


def test_peak_memory_on_a_cpu_is_that_of_live_tensors_and_weights():
    model = torch.nn.Linear(1024, 256, bias=False)  # 1 MiB
    images = torch.ones(512, 1024)  # 2 MiB, made before the call

    def call():
        kept = [torch.ones(mebibytes << 18) for mebibytes in (3, 5)]
        del kept
        return torch.ones(6 << 18)

    with torch.inference_mode():
        assert peak_memory_mib(model, call, CPU) == 1 + 3 + 5
        assert peak_memory_mib(model, lambda: model(images).relu_().T.contiguous(), CPU) == 1 + 0.5 + 0.5


@pytest.mark.parametrize("reducer", REDUCERS, ids=str)
def test_peak_memory_on_a_cpu_is_repeatable(reducer):
    model, images = tiny_model(reducer), noise(2, 3, 72, 72)

    def peaks(model):
        return {peak_memory_mib(model, lambda: model.segment_patches(images), CPU) for _ in range(3)}

    with torch.inference_mode():
        model.segment_patches(images)  # a reducer's caches
        (peak,) = peaks(model)
        (larger,) = peaks(with_reducer(tiny_model(width=64), reducer))
    assert 0 < peak < larger


@pytest.mark.gpu
def test_peak_memory_on_a_gpu_is_that_of_the_allocator():
    device = torch.device("cuda", 0)
    model = torch.nn.Linear(1024, 1024, bias=False, device=device)
    before = torch.cuda.memory_allocated(device) / (1 << 20)
    peak = peak_memory_mib(model, lambda: torch.ones(64 << 18, device=device).sum(), device)
    assert peak - before == pytest.approx(64, abs=1)
