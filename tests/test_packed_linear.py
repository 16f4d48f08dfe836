"""Linear layers on packed weights: the same results, and weights that never go stale."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_model
from torch import Tensor, nn

from lightning_expedite.benchmarking.operations import count_calls
from lightning_expedite.models.segmenter import Segmenter, linear
from lightning_expedite.models.segmenter.linear import KEPT, PackedLinear, pack_linear_layers, packed_products
from lightning_expedite.reducers.distances import bfloat16_matrix_units

TYPES = [
    pytest.param(getattr(torch, name), marks=pytest.mark.skipif(name not in packed_products(), reason="no library"))
    for name in ("float32", "bfloat16")
]
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 0.0}


def layer_and_tokens(dtype: torch.dtype, bias: bool = True) -> tuple[PackedLinear, Tensor]:
    torch.manual_seed(0)
    return PackedLinear(48, 80, bias).to(dtype), torch.randn(2, 37, 48).to(dtype)


def packed_copies(layer: PackedLinear) -> int:
    return len(layer._packed)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bias", [True, False])
def test_results_are_those_of_an_ordinary_layer(dtype: torch.dtype, bias: bool) -> None:
    layer, tokens = layer_and_tokens(dtype, bias)
    for chosen in (tokens, tokens[:1], tokens[:, 3:20], tokens.transpose(0, 1), tokens[0, 0], tokens[:, ::2]):
        expected = F.linear(chosen.contiguous(), layer.weight, layer.bias)
        torch.testing.assert_close(layer(chosen), expected, rtol=0, atol=TOLERANCE[dtype])
        assert packed_copies(layer) > 0
    assert layer(tokens[:, :0]).shape == (2, 0, 80)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", TYPES)
def test_at_most_a_few_copies_are_kept(dtype: torch.dtype) -> None:
    layer, tokens = layer_and_tokens(dtype)
    for number in (1, 2, 3, 4, 3, 5):
        layer(tokens[:, :number])
    assert packed_copies(layer) == (KEPT if dtype == torch.float32 else 1)
    if dtype == torch.float32:
        assert list(layer._packed) == [2 * 3, 2 * 5]


def change_in_place(layer: PackedLinear) -> None:
    with torch.no_grad():
        layer.weight.mul_(2)


def load_other(layer: PackedLinear) -> None:
    layer.load_state_dict({name: value + 1 for name, value in layer.state_dict().items()})


def assign_other(layer: PackedLinear) -> None:
    layer.load_state_dict({name: value + 1 for name, value in layer.state_dict().items()}, assign=True)


def exchange(layer: PackedLinear) -> None:
    layer.weight = nn.Parameter(layer.weight.detach() - 1)


def there_and_back(layer: PackedLinear) -> None:
    layer.double()
    with torch.no_grad():
        layer.weight.neg_()
    layer.to(torch.float32)


@pytest.mark.parametrize("change", [change_in_place, load_other, assign_other, exchange, there_and_back])
@pytest.mark.parametrize("dtype", TYPES)
def test_changed_weights_are_packed_anew(change: object, dtype: torch.dtype) -> None:
    assert callable(change)
    layer, tokens = layer_and_tokens(dtype)
    with torch.inference_mode():
        before = layer(tokens)
    change(layer)
    layer.to(dtype)
    with torch.inference_mode():
        after = layer(tokens)
        torch.testing.assert_close(after, F.linear(tokens, layer.weight, layer.bias), rtol=0, atol=4 * TOLERANCE[dtype])
    assert not torch.allclose(before, after, atol=0.1)


@pytest.mark.parametrize("dtype", TYPES)
def test_gradients_flow(dtype: torch.dtype) -> None:
    layer, tokens = layer_and_tokens(dtype)
    with torch.inference_mode():
        layer(tokens)
    layer(tokens).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().sum() > 0


@torch.inference_mode()
def test_autocast_and_products_of_fewer_bits_are_left_to_pytorch() -> None:
    layer, tokens = layer_and_tokens(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(tokens).dtype == torch.bfloat16
    with bfloat16_matrix_units():
        layer(tokens)
    assert packed_copies(layer) == 0


@torch.inference_mode()
def test_without_the_libraries_it_is_an_ordinary_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_MKL", False)
    monkeypatch.setattr(linear, "_ONEDNN_BF16", False)
    for dtype in (torch.float32, torch.bfloat16):
        layer, tokens = layer_and_tokens(dtype)
        assert torch.equal(layer(tokens), F.linear(tokens, layer.weight, layer.bias))
        assert packed_copies(layer) == 0
    assert packed_products() == {}


@torch.inference_mode()
@pytest.mark.parametrize("dtype", TYPES)
def test_copies_and_files_hold_no_packed_weights(dtype: torch.dtype) -> None:
    layer, tokens = layer_and_tokens(dtype)
    expected = layer(tokens)
    assert set(layer.state_dict()) == {"weight", "bias"}
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert packed_copies(other) == 0
        assert torch.equal(other(tokens), expected)
    torch.save(layer.state_dict(), io.BytesIO())


def test_all_layers_of_a_model_are_packed_unless_it_is_told_otherwise() -> None:
    packed = tiny_model()
    plain = Segmenter(packed.architecture, pack_weights=False)
    kinds = [{type(module) for module in model.modules() if isinstance(module, nn.Linear)} for model in (packed, plain)]
    assert kinds == [{PackedLinear}, {nn.Linear}]
    assert packed.state_dict().keys() == plain.state_dict().keys()


@torch.inference_mode()
@pytest.mark.parametrize("dtype", TYPES)
def test_packed_products_are_counted_as_ordinary_ones(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(48, 80), nn.Linear(80, 16, bias=False)).to(dtype)
    tokens = torch.randn(2, 37, 48).to(dtype)
    ordinary = count_calls(lambda: model(tokens))
    pack_linear_layers(model)
    assert count_calls(lambda: model(tokens)) == ordinary
    assert all(packed_copies(layer) for layer in model if isinstance(layer, PackedLinear))
