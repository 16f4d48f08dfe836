"""Models of the Hugging Face hub: fetched, tested, sent, and every way in which that can fail."""

import json
import shutil
import warnings
from pathlib import Path

import huggingface_hub
import pytest
import torch
from fake_hub import FakeHub
from small_run import make_config
from stored_models import OFFICIAL
from tiny import noise, tiny_model

from lightning_expedite import Segmenter, load
from lightning_expedite.errors import CheckpointError, OutputError
from lightning_expedite.models.hub import parse_reference
from lightning_expedite.reducers import EViT, ToMe

FILES = {"README.md", "config.json", "model.safetensors"}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    return FakeHub(tmp_path / "hub").install(monkeypatch)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """The real client without a network; gives its cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_references_are_read():
    assert parse_reference("owner/na.me-1") == ("owner/na.me-1", None)
    assert parse_reference("hf://owner/name@refs/pr/1") == ("owner/name", "refs/pr/1")


@torch.inference_mode()
def test_what_is_sent_is_what_is_fetched(hub):
    model = tiny_model(EViT([2], 0.6))
    address = model.push_to_hub("owner/name", private=True, message="first", classes=list("abcde"))
    assert address == "https://huggingface.co/owner/name/commit/1"
    assert (hub.private, hub.messages) == ({"owner/name": True}, ["first"])
    assert {path.name for path in hub.place("owner/name").iterdir()} == FILES
    images = noise(2, 3, 64, 64)
    for name in ("owner/name", "hf://owner/name"):
        loaded = Segmenter.from_pretrained(name)
        assert torch.equal(loaded(images), model(images))
        assert loaded.classes == tuple("abcde")
    assert load("hf://owner/name").reducer is None


def test_a_revision_is_pinned(hub):
    for revision, seed in ((None, 0), ("v2", 1)):
        tiny_model(seed=seed).push_to_hub("owner/name", revision=revision)
    expected = tiny_model(seed=1).decoder.cls_emb
    for loaded in (
        lambda: Segmenter.from_pretrained("owner/name", revision="v2"),
        lambda: Segmenter.from_pretrained("owner/name@v2"),
        lambda: load("hf://owner/name@v2"),
    ):
        assert torch.equal(loaded().decoder.cls_emb, expected)
    assert not torch.equal(load("hf://owner/name").decoder.cls_emb, expected)
    assert {revision for _, revision, _ in hub.fetched} == {"main", "v2"}
    with pytest.raises(CheckpointError, match=r"revision is 'v2'.*leave revision out"):
        Segmenter.from_pretrained(OFFICIAL, revision="v2")


def test_a_card_that_is_there_already_stays(hub):
    tiny_model().push_to_hub("owner/name")
    card = hub.place("owner/name") / "README.md"
    card.write_text("written by hand")
    with pytest.warns(FutureWarning, match="repository is deprecated: write repo_id"):
        tiny_model(seed=1).push_to_hub(repository="owner/name")
    assert card.read_text() == "written by hand"
    assert torch.equal(load("hf://owner/name").decoder.cls_emb, tiny_model(seed=1).decoder.cls_emb)


def test_the_weights_of_another_librarys_model_are_not_fetched(hub):
    place = hub.place("nvidia/segformer")
    place.mkdir(parents=True)
    (place / "config.json").write_text('{"model_type": "segformer"}')
    (place / "model.safetensors").write_bytes(b"large")
    with pytest.raises(CheckpointError, match="another library's"):
        load("hf://nvidia/segformer")
    assert hub.fetched == [("nvidia/segformer", "main", "config.json")]


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_an_incomplete_repository_is_named_and_pickles_are_not_fetched(hub, missing):
    tiny_model().push_to_hub("owner/name")
    (hub.place("owner/name") / missing).unlink()
    shutil.copyfile(OFFICIAL / "checkpoint.pth", hub.place("owner/name") / "checkpoint.pth")
    with pytest.raises(CheckpointError, match=f"hf://owner/name(@main)? has no {missing}"):
        load("hf://owner/name")
    assert {name for _, _, name in hub.fetched} <= {"config.json", "model.safetensors"}


def test_what_is_not_there_is_told(hub):
    with pytest.raises(
        CheckpointError, match=r"hf://owner/none could not be downloaded: there is no such model.*hf auth login"
    ):
        load("hf://owner/none")
    tiny_model().push_to_hub("owner/name")
    with pytest.raises(CheckpointError, match="owner/name has no branch, tag or commit v9"):
        load("hf://owner/name@v9")


def test_the_client_without_a_network_is_told_apart(offline):
    with pytest.raises(CheckpointError, match=r"HF_HUB_OFFLINE.*`hf download owner/name --revision v2`") as raised:
        load("hf://owner/name@v2")
    assert "\n" not in str(raised.value)
    with pytest.raises(OutputError, match=r"hf://owner/name could not be written.*hf auth login"):
        tiny_model().push_to_hub("owner/name")


def test_what_was_fetched_before_needs_no_network(offline):
    cache, commit = offline / "models--owner--name", "0123456789" * 4
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit)
    tiny_model(ToMe(0.3)).save_pretrained(cache / "snapshots" / commit)
    for name in ("owner/name", f"owner/name@{commit}"):
        assert repr(Segmenter.from_pretrained(name).reducer) == "ToMe(ratio=0.3)"


def test_test_gives_the_scores_of_the_original(hub, run, data):
    model = load(OFFICIAL, reducer=EViT([2], 0.6))
    model.push_to_hub("owner/name")
    model.save_pretrained("folder")
    scores = {}
    for number, checkpoint in enumerate((str(OFFICIAL), "hf://owner/name", "folder")):
        config = make_config(data, checkpoint=checkpoint)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            status, _, err = run("test", "--config", config, "--output", f"out{number}", "--data.short_side", 64)
        assert status == 0, err
        told = [one for one in caught if "was stored with the reducer EViT(" in str(one.message)]
        assert bool(told) == (number > 0)
        scores[checkpoint] = json.loads(Path(f"out{number}/results.json").read_text())["scores"]
    assert len({json.dumps(one) for one in scores.values()}) == 1


def test_a_mistake_in_the_name_ends_with_one_line(fails, config, offline):
    assert "write hf://owner/name" in fails("test", "--config", config, "--model.checkpoint", "hf://name")
    assert "hf download owner/name" in fails("predict", "--config", config, "--model.checkpoint", "hf://owner/name")
