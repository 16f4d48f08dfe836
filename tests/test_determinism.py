"""The same command gives the same whole numbers: again, with other batches of data, and where draws are random."""

import pytest
from small_run import make_config, make_data

from lightning_expedite.cli import main

pytestmark = pytest.mark.promise("deterministic")

REDUCERS = {
    "none": None,
    "ours": {"class_path": "TokenClustering", "init_args": {"location": 2, "clusters": [4, 4]}},
    "evit": {"class_path": "EViT", "init_args": {"locations": [2], "keep_rate": 0.6}},
    "tome": {"class_path": "ToMe", "init_args": {"ratio": 0.3}},
    "act": {"class_path": "ACT", "init_args": {"query_hashes": 8}},
}
CHANGES = {
    "again": (),
    "batches of data": ("--data.batch_size", "3"),
    "reading processes": ("--data.num_workers", "2", "--data.batch_size", "2"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("determinism"), 5)


@pytest.fixture(scope="module")
def rows_of(folder):
    """A function that evaluates and gives ``images.jsonl``."""

    def evaluate(reducer, *words):
        config = make_config(folder, f"{reducer}.yaml", reducer=REDUCERS[reducer])
        output = folder / "out"
        assert main(["test", "--config", str(config), "--output", str(output), "--overwrite", *words]) == 0
        return (output / "images.jsonl").read_text()

    return evaluate


@pytest.mark.parametrize("reducer", REDUCERS)
def test_the_same_command_gives_the_same_whole_numbers(rows_of, reducer):
    first = rows_of(reducer)
    assert len(first.splitlines()) == 5
    for words in CHANGES.values() if reducer in ("none", "act") else [CHANGES["batches of data"]]:
        assert rows_of(reducer, *words) == first
    if reducer == "act":
        assert rows_of(reducer, "--model.reducer.seed", "1") != first  # the draws do matter
