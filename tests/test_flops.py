"""Multiply-adds against the reference implementation's own count of the published rows."""

import json
import time

import pytest
import torch
from reference import DATA
from tiny import noise, tiny_model

from lightning_expedite.benchmarking import count_multiply_adds
from lightning_expedite.models import Architecture, Segmenter
from lightning_expedite.reducers import ACT, EViT, TokenClustering, ToMe

WINDOWS = {"ade20k": (640, 150, 2), "cityscapes": (768, 19, 1), "pascal_context": (480, 60, 2)}
REDUCERS = {
    "none": lambda setting: None,
    "ours": lambda setting: TokenClustering(setting["alpha"], tuple(setting["clusters"])),
    "evit": lambda setting: EViT([8, 14, 20], setting["keep_rate"]),
    "tome": lambda setting: ToMe(setting["ratio"]),
}


def test_thirty_published_rows_without_computing():
    rows = json.loads((DATA / "flops.json").read_text())["rows"]
    start, counted = time.process_time(), 0
    for data_set, (window, classes, decoder_depth) in WINDOWS.items():
        sizes = Architecture((window, window), 16, 1024, 24, 16, classes, decoder_depth=decoder_depth)
        with torch.device("meta"):
            model, images = Segmenter(sizes), torch.empty(1, 3, window, window)
        for row in rows[data_set]:
            model.reducer = REDUCERS[row["method"]](row["setting"])
            assert count_multiply_adds(model, images) / 1e9 == pytest.approx(row["gflops"], rel=5e-4)
            counted += 1
    assert counted == 30
    assert time.process_time() - start < 60


def test_act_counts_the_groups_of_a_real_pass():
    images = noise(2, 3, 64, 64)
    model = tiny_model()
    unreduced = count_multiply_adds(model, images)
    model.reducer = ACT(32)
    sizes, tokens = model.architecture, 1 + model.architecture.grid[0] * model.architecture.grid[1]
    groups = [int(layer.max()) for layer in model.segment_patches(images).reduction.groups]
    saved = sum((tokens - group) * tokens * 2 * (sizes.width + sizes.heads) for group in groups)
    assert count_multiply_adds(model, images) == unreduced - 2 * saved


def test_a_batch_costs_as_many_times_as_it_has_images():
    model = tiny_model(reducer=TokenClustering(1, (2, 2)))
    assert count_multiply_adds(model, noise(3, 3, 64, 64)) == 3 * count_multiply_adds(model, noise(1, 3, 64, 64))


def test_hooks_are_gone_afterwards():
    model = tiny_model()
    count_multiply_adds(model, noise(1, 3, 64, 64))
    assert not any(module._forward_hooks for module in model.modules())
