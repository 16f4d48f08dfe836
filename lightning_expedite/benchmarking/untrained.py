"""Models without a checkpoint, and the scale of queries by which grouping them can be set."""

import math
from collections.abc import Callable

import torch

from ..errors import ConfigError
from ..models.segmenter.architecture import Architecture, ConventionName
from ..models.segmenter.model import Segmenter
from .flops import count_multiply_adds

MOST_PASSES = 14
TOLERANCE = 0.01
_STEP = 4.0  # by which the factor is changed until the goal lies between two counts


def untrained_segmenter(architecture: Architecture, convention: ConventionName, seed: int = 0) -> Segmenter:
    """Make a model with random weights, the same for every call with the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Segmenter(architecture, convention).eval()


@torch.no_grad()
def scale_queries(model: Segmenter, factor: float) -> None:
    """Multiply the weights and biases that make the encoder's queries, in place."""
    for block in model.encoder.blocks:
        qkv = block.attn.qkv
        for parameter in (qkv.weight, qkv.bias):
            if parameter is not None:
                parameter[: len(parameter) // 3].mul_(factor)


def calibrate_queries(model: Segmenter, images: torch.Tensor, gflops: float) -> float:
    """Scale the model's queries so that a forward pass costs about ``gflops`` in the published convention.

    Args:
        model: A model with a reducer that groups queries by their distance (ACT); it is changed in place.
        images: One real crop ``(1, 3, H, W)`` on the model's device.
        gflops: The goal; met within 1%.

    Returns:
        The factor by which the queries were multiplied.

    Raises:
        ConfigError: No factor was found in `MOST_PASSES` passes.
    """
    applied = 1.0

    def count(factor: float) -> float:
        nonlocal applied
        scale_queries(model, factor / applied)
        applied = factor
        return count_multiply_adds(model, images) / 1e9

    return find_factor(count, gflops)


def find_factor(count: Callable[[float], float], goal: float) -> float:
    """Find a factor by bisection of its logarithm, for a count that grows with it.

    Raises:
        ConfigError: The goal was not met within 1%; the message gives the counts nearest to it.
    """
    seen: list[tuple[float, float]] = []  # factor and count
    factor = 1.0
    while len(seen) < MOST_PASSES:
        seen.append((factor, count(factor)))
        if abs(seen[-1][1] - goal) <= TOLERANCE * goal:
            return factor
        lower = max((entry[0] for entry in seen if entry[1] < goal), default=factor / _STEP**2)
        upper = min((entry[0] for entry in seen if entry[1] > goal), default=factor * _STEP**2)
        factor = math.sqrt(lower * upper)
    factors, counts = (sorted(column) for column in zip(*seen, strict=True))
    raise ConfigError(
        f"--act_gflops {goal:g} cannot be met within {TOLERANCE:.0%} by scaling the queries: {MOST_PASSES} factors "
        f"from {factors[0]:.3g} to {factors[-1]:.3g} gave {counts[0]:.4g} to {counts[-1]:.4g} GFLOPs"
    )
