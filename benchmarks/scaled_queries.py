"""Save an untrained model whose queries are scaled so that ACT costs a given number of GFLOPs.

    python benchmarks/scaled_queries.py --gflops 611.06 --to runs/scaled --config configs/ade_act_q32.yaml
    python -m lightning_expedite benchmark --config configs/ade_act_q32.yaml --model.checkpoint runs/scaled

How many groups of queries ACT finds depends on the weights: with untrained ones all queries are alike. Multiplying them
by one factor, which is found by bisection, lets ACT cost what a published row says. All further options are those of
``benchmark``. Prints the factor.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lightning_expedite.benchmarking import count_multiply_adds
from lightning_expedite.cli.benchmark import BenchmarkCLI, choose_input, load_model
from lightning_expedite.errors import ConfigError
from lightning_expedite.models import Segmenter, save_segmenter

MOST_PASSES = 14
TOLERANCE = 0.01
_STEP = 4.0  # by which the factor is changed until the goal lies between two counts


@torch.no_grad()
def scale_queries(model: Segmenter, factor: float) -> None:
    """Multiply the weights and biases of the encoder's queries in place."""
    for block in model.encoder.blocks:
        qkv = block.attn.qkv
        for parameter in (qkv.weight, qkv.bias):
            if parameter is not None:
                parameter[: len(parameter) // 3].mul_(factor)


def calibrate_queries(model: Segmenter, images: torch.Tensor, gflops: float) -> float:
    """Scale the model's queries so that a forward pass costs about ``gflops`` in the published convention.

    Args:
        model: A model with a reducer that groups queries by their distance (ACT); changed in place.
        images: One real crop ``(1, 3, H, W)`` on the model's device.
        gflops: The goal, met within 1%.

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
        ConfigError: The goal was not met within 1%.
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
        f"{goal:g} GFLOPs cannot be met within {TOLERANCE:.0%} by scaling the queries: {MOST_PASSES} factors "
        f"from {factors[0]:.3g} to {factors[-1]:.3g} gave {counts[0]:.4g} to {counts[-1]:.4g} GFLOPs"
    )


def save_scaled(words: Sequence[str], gflops: float, folder: Path) -> tuple[float, int, int]:
    """Save the untrained, scaled model of a config.

    Args:
        words: Options of ``benchmark``, with one config.
        gflops: What its reducer is to cost.
        folder: Where to save.

    Returns:
        The factor, and the window and stride that the config is evaluated with.
    """
    cli = BenchmarkCLI(words)
    model = load_model(cli.model, untrained=True)
    windows = cli.model.build_sliding_window(model)
    crops = choose_input(cli, (windows.window, windows.window))[2]
    device = cli.settings.torch_device
    factor = calibrate_queries(model.to(device), crops.batch(0, 1).to(device), gflops)
    save_segmenter(model.cpu(), folder)
    return factor, windows.window, windows.stride


def main(arguments: Sequence[str] | None = None) -> None:
    """Save a scaled model and print its factor."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--gflops", type=float, required=True, help="goal, in the published convention")
    parser.add_argument("--to", type=Path, required=True, help="folder for the model")
    known, words = parser.parse_known_args(arguments)
    print(save_scaled(words, known.gflops, known.to)[0])


if __name__ == "__main__":
    main()
