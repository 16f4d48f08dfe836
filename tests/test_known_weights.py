"""Known weights: where they lie and how they are fetched."""

import hashlib
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from stored_models import OFFICIAL

from lightning_expedite import load_segmenter
from lightning_expedite.errors import CheckpointError
from lightning_expedite.models.segmenter import (
    read_protocol,
    weights,
)
from lightning_expedite.models.segmenter.weights import KNOWN_WEIGHTS, KnownWeights, resolve_checkpoint
from lightning_expedite.protocol import Protocol

NAME = "ade20k/seg_tiny_mask"
CHECKED = "ade20k/segmenter_vit-t_mask_8x1_512x512_160k_ade20k"


@pytest.fixture
def no_network(monkeypatch):
    asked = []

    def unreachable(opener, url, *_, **__):
        asked.append(url)
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", unreachable)
    return asked


def test_known_weights_lie_in_the_folder_of_the_environment_variable_or_the_argument(tmp_path, monkeypatch, no_network):
    monkeypatch.chdir(tmp_path)
    for folder in ("by_variable", "by_argument"):
        shutil.copytree(OFFICIAL, tmp_path / folder / NAME)
    monkeypatch.setenv("LIGHTNING_EXPEDITE_WEIGHTS", str(tmp_path / "by_variable"))
    assert resolve_checkpoint(NAME) == tmp_path / "by_variable" / NAME
    assert load_segmenter(NAME).num_classes == 5
    assert resolve_checkpoint(NAME, tmp_path / "by_argument") == tmp_path / "by_argument" / NAME
    assert load_segmenter(NAME, weights_folder=tmp_path / "by_argument").num_classes == 5
    assert no_network == []


def test_an_existing_path_comes_before_a_known_name(tmp_path, monkeypatch, no_network):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(OFFICIAL, tmp_path / NAME)
    assert resolve_checkpoint(NAME) == Path(NAME)
    assert read_protocol(NAME).window == 128


def test_weights_that_cannot_be_fetched_say_where_to_put_which_file_and_what_else_there_is(tmp_path, no_network):
    with pytest.raises(CheckpointError) as raised:
        load_segmenter("ade20k/seg_large_mask_640", weights_folder=tmp_path)
    message = str(raised.value)
    place = tmp_path / "ade20k/seg_large_mask_640"
    for part in (
        "weights ade20k/seg_large_mask_640 are not on this machine",
        "https://www.rocq.inria.fr/cluster-willow/rstrudel/segmenter/checkpoints/ade20k/seg_large_mask_640/",
        "Name or service not known",
        f"Put variant.yml and checkpoint.pth into {place}",
        "LIGHTNING_EXPEDITE_WEIGHTS",
        "--model.checkpoint ade20k/segmenter_vit-l_mask_8x1_512x512_160k_ade20k",
    ):
        assert part in message
    assert list(place.iterdir()) == []


def test_every_name_of_the_tables_has_its_addresses_and_every_alternative_is_known():
    host = "https://www.rocq.inria.fr/cluster-willow/rstrudel/segmenter/checkpoints"
    for name in ("ade20k/seg_large_mask_640", "cityscapes/seg_large_mask", "pascal_context/seg_large_mask"):
        assert dict(KNOWN_WEIGHTS[name].files) == {
            file: f"{host}/{name}/{file}" for file in ("checkpoint.pth", "variant.yml")
        }
    for known in KNOWN_WEIGHTS.values():
        assert all(url.startswith("https://") for _, url in known.files)
        assert known.alternative is None or known.alternative in KNOWN_WEIGHTS
    assert KNOWN_WEIGHTS[CHECKED].files[0][1].endswith("ade20k_20220105_151706-ffcf7509.pth")
    assert KNOWN_WEIGHTS[CHECKED].protocol == Protocol(512, 2048, 512, 480)


@pytest.fixture
def served(tmp_path, monkeypatch, https):
    """Gives a function that serves the official model's file in some way; returns where it is to lie."""
    monkeypatch.setenv("LIGHTNING_EXPEDITE_WEIGHTS", str(tmp_path / "weights"))
    https.content = (OFFICIAL / "checkpoint.pth").read_bytes()

    def serve(kind, checksum=None):
        files = (("checkpoint.pth", f"{https.address}/{kind}/checkpoint.pth"),)
        entry = KnownWeights("some/weights", "ade20k", files, None, Protocol(), checksum)
        monkeypatch.setitem(weights.KNOWN_WEIGHTS, "some/weights", entry)
        return tmp_path / "weights" / "some" / "weights"

    return serve


def test_weights_are_downloaded_checked_and_not_fetched_again(served):
    content = (OFFICIAL / "checkpoint.pth").read_bytes()
    place = served("whole", hashlib.sha256(content).hexdigest()[:8])
    assert resolve_checkpoint("some/weights") == place
    assert {file.name for file in place.iterdir()} == {"checkpoint.pth", "checkpoint.pth.sha256"}
    assert (place / "checkpoint.pth").read_bytes() == content
    changed = place.joinpath("checkpoint.pth").stat().st_mtime_ns
    assert load_segmenter("some/weights").num_classes == 5
    assert (place / "checkpoint.pth").stat().st_mtime_ns == changed


def test_weights_with_another_checksum_leave_nothing_behind(served):
    place = served("whole", "0123abcd")
    with pytest.raises(CheckpointError, match=r"whole/checkpoint.pth: the checksum differs from 0123abcd"):
        load_segmenter("some/weights")
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("kind", ["short", "chunked", "missing", "garbled"])
def test_a_download_that_fails_leaves_nothing_behind_and_says_where_to_put_the_file(served, kind):
    place = served(kind)
    with pytest.raises(CheckpointError) as raised:
        load_segmenter("some/weights")
    assert f"Put checkpoint.pth into {place}" in str(raised.value)
    assert list(place.iterdir()) == []


def test_a_weights_folder_that_cannot_be_made(tmp_path, no_network):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"Put variant\.yml and checkpoint\.pth into"):
        load_segmenter(NAME, weights_folder=tmp_path / "file")
