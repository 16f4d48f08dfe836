"""Logits of every reference case, see tests/data/parity/*/cases.json."""

from functools import lru_cache

import pytest
import torch
from conftest import SHARED, needs_shared
from reference import DATA, parity_cases, parity_parameters, tensor_names

from lightning_expedite import load

MOST_RELATIVE_ERROR = 1e-5
LEAST_BFLOAT16_AGREEMENT = {"none": 0.97, "act": 0.97, "cluster": 0.95, "tome": 0.95, "evit": 0.94}


@lru_cache(maxsize=2)
def model_of(place, convention):
    return load(place, convention=convention)


def loaded(case):
    model = model_of(case.place, case.convention)
    model.reducer = case.make_reducer()
    return model


def in_batches(images, size):
    """Cut or repeat images so that every batch has this size, and tell which image each row is."""
    count = max(len(images), size)
    order = torch.arange(count) % len(images)
    return [(images[part], part) for part in order.split(size)]


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("case", parity_parameters())
@torch.inference_mode()
def test_logits_equal_the_reference(case, batch_size):
    images, expected = case.tensors()
    model = loaded(case)
    for batch, rows in in_batches(images, batch_size):
        logits = model(batch)
        assert logits.shape == expected[rows].shape
        assert logits.dtype == torch.float32
        for one, wanted in zip(logits, expected[rows], strict=True):
            assert (one - wanted).norm() / wanted.norm() <= MOST_RELATIVE_ERROR
            assert torch.equal(one.argmax(0), wanted.argmax(0))


@needs_shared
def test_no_reference_case_is_left_out():
    tested = {(case.folder, f"{case.name}.logits") for case in parity_cases()}
    for folder in (SHARED / "parity").iterdir():
        names = {name for name in tensor_names(folder) if name.endswith(".logits")}
        assert names
        assert {(folder.name, name) for name in names} <= tested
        assert (DATA / "parity" / folder.name / "cases.json").read_bytes() == (folder / "cases.json").read_bytes()


@torch.inference_mode()
def bfloat16_agreement(cases):
    shares = []
    for case in cases:
        images, expected = case.tensors()
        model = load(case.place, reducer=case.make_reducer(), convention=case.convention).to(torch.bfloat16)
        logits = model(images.to(torch.bfloat16))
        assert logits.dtype == torch.bfloat16
        shares.append((logits.argmax(1) == expected.argmax(1)).float().mean().item())
    return sum(shares) / len(shares)


@needs_shared
@pytest.mark.parametrize("reducer", LEAST_BFLOAT16_AGREEMENT)
def test_bfloat16_labels_agree_with_the_float32_reference(reducer):
    cases = [case for case in parity_cases() if case.reducer == reducer]
    assert len(cases) >= 3
    assert bfloat16_agreement(cases) >= LEAST_BFLOAT16_AGREEMENT[reducer]


def test_bfloat16_labels_of_the_bundled_models_agree_with_the_float32_reference():
    cases = [case for case in parity_cases() if case.bundled]
    assert len(cases) == 4
    assert bfloat16_agreement(cases) >= LEAST_BFLOAT16_AGREEMENT["none"]
