"""What reducers compute in half precision, and the operators on rows of tokens that they share."""

import pytest
import torch
from tiny import close, noise, tiny_model

from lightning_expedite.reducers import ACT, EViT, TokenClustering, TokenLayout, ToMe
from lightning_expedite.reducers.clustering import cluster
from lightning_expedite.reducers.distances import matmul_fp32, squared_distances
from lightning_expedite.reducers.picking import group_means, take
from lightning_expedite.reducers.tome import match

pytestmark = pytest.mark.usefixtures("no_gradients")
HALF = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", HALF)
def test_products_of_half_precision_tokens_are_those_of_float32(dtype):
    left, right = noise(2, 40, 96).to(dtype), noise(2, 60, 96, seed=1).to(dtype)
    expected = left[:, ::2].double() @ right[:, 1::2].double().transpose(1, 2)
    found = matmul_fp32(left[:, ::2], right[:, 1::2].transpose(1, 2), dtype)
    assert found.dtype == torch.float32
    assert close(found.double(), expected, 1e-6)  # rounded to bfloat16 it would be off by 2e-3


def test_products_and_distances_ignore_autocast_and_restore_the_precision_of_others():
    left, right = noise(1, 30, 64), noise(1, 20, 64, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        found, distances = matmul_fp32(left, right.transpose(1, 2), left.dtype), squared_distances(left, right)
    assert close(found.double(), left.double() @ right.double().transpose(1, 2), 1e-6)
    assert close(distances.double(), torch.cdist(left.double(), right.double()).square(), 1e-5)

    before = torch.backends.mkldnn.matmul.fp32_precision
    matmul_fp32(noise(1, 8, 16).bfloat16(), noise(1, 16, 8).bfloat16(), torch.bfloat16)
    with pytest.raises(RuntimeError):
        matmul_fp32(noise(1, 8, 16).bfloat16(), noise(1, 15, 8).bfloat16(), torch.bfloat16)
    assert torch.backends.mkldnn.matmul.fp32_precision == before


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_tokens_of_half_precision_merge_as_the_same_numbers_in_float64(dtype, prefix):
    layout = TokenLayout(12, 15, prefix=prefix)
    tokens = noise(2, prefix + 180, 64).to(dtype)
    assert torch.equal(match(tokens, 50, layout).group, match(tokens.double(), 50, layout).group)


def test_clusters_in_bfloat16_are_those_of_the_same_numbers_up_to_rounding():
    tokens = noise(2, 120, 64).bfloat16()
    settings = TokenClustering(1, (6, 5), temperature=0.05)
    found = cluster(tokens, (12, 10), (6, 5), settings)
    assert found.dtype == torch.bfloat16
    assert close(found.double(), cluster(tokens.double(), (12, 10), (6, 5), settings), 4e-3)  # one rounding is 2e-3


@pytest.mark.parametrize("batch", [1, 3])
def test_taking_tokens_is_gathering_them(batch):
    tokens = noise(batch, 12, 8)[:, 2:]  # not contiguous
    index = noise(batch, 10).argsort(dim=1)[:, :4]
    assert torch.equal(take(tokens, index), tokens.gather(1, index[..., None].expand(-1, -1, 8)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 4e-3)])
def test_means_of_groups(dtype, tolerance):
    table = noise(9, 5).to(dtype)
    found = group_means(table, torch.tensor([4, 0, 8, 2, 2, 7]), torch.tensor([3, 0, 1, 2]))
    exact = table.double()
    expected = [exact[[4, 0, 8]].mean(0), torch.zeros(5).double(), exact[2], exact[[2, 7]].mean(0)]
    assert found.dtype == dtype
    assert close(found.double(), torch.stack(expected), tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reducer", [None, TokenClustering(2, (4, 3)), EViT([1, 3], 0.6), ToMe(0.4), ACT(6)], ids=str)
def test_gradients_flow_also_after_a_pass_in_inference_mode(reducer, dtype):
    with torch.inference_mode(False):
        model, images = tiny_model(reducer).to(dtype), noise(1, 3, 64, 64).to(dtype)
    model(images)  # fills the caches
    with torch.inference_mode(False), torch.enable_grad():
        model(images).float().square().mean().backward()
    gradient = model.encoder.patch_embed.proj.weight.grad
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
