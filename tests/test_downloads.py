"""Published weights: where they lie, and downloads that are complete or not there at all."""

import hashlib
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from stored_models import OFFICIAL

from lightning_expedite import load
from lightning_expedite.errors import CheckpointError
from lightning_expedite.models import KNOWN_WEIGHTS, KnownWeights, read_protocol, resolve_checkpoint
from lightning_expedite.models.zoo import download
from lightning_expedite.protocol import Protocol

pytestmark = pytest.mark.promise("downloads")
NAME = "ade20k/seg_tiny_mask"
CHECKED = "ade20k/segmenter_vit-t_mask_8x1_512x512_160k_ade20k"
CONTENT = bytes(range(256)) * 20_000  # 5 MB: several blocks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def no_network(monkeypatch):
    def unreachable(request):
        raise httpx.ConnectError("Name or service not known")

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", lambda _, request: unreachable(request))


@pytest.fixture
def target(tmp_path, https):
    https.content = CONTENT
    return tmp_path / "some" / "weights.pth"


def left(target):
    """Files beside a download's lock."""
    return [path.name for path in target.parent.iterdir() if not path.name.endswith(".lock")]


# --- Known weights -----------------------------------------------------------------------------------


def test_known_weights_lie_in_the_folder_of_the_environment_variable_or_the_argument(tmp_path, monkeypatch, no_network):
    monkeypatch.chdir(tmp_path)
    for folder in ("by_variable", "by_argument"):
        shutil.copytree(OFFICIAL, tmp_path / folder / NAME)
    monkeypatch.setenv("LIGHTNING_EXPEDITE_WEIGHTS", str(tmp_path / "by_variable"))
    assert resolve_checkpoint(NAME) == tmp_path / "by_variable" / NAME
    assert load(NAME).num_classes == 5
    assert load(NAME).data_set == "ade20k"
    assert resolve_checkpoint(NAME, tmp_path / "by_argument") == tmp_path / "by_argument" / NAME
    shutil.copytree(OFFICIAL, tmp_path / NAME)  # an existing path comes before a known name
    assert resolve_checkpoint(NAME) == Path(NAME)
    assert read_protocol(NAME).window == 128


def test_weights_that_cannot_be_downloaded_say_where_to_put_which_file_and_what_else_there_is(tmp_path, no_network):
    with pytest.raises(CheckpointError) as raised:
        load("ade20k/seg_large_mask_640", weights_folder=tmp_path)
    place = tmp_path / "ade20k/seg_large_mask_640"
    for part in (
        "weights ade20k/seg_large_mask_640 are not on this machine",
        "https://www.rocq.inria.fr/cluster-willow/rstrudel/segmenter/checkpoints/ade20k/seg_large_mask_640/",
        "Name or service not known",
        f"Put variant.yml and checkpoint.pth into {place}",
        "LIGHTNING_EXPEDITE_WEIGHTS",
        "--model.checkpoint ade20k/segmenter_vit-l_mask_8x1_512x512_160k_ade20k",
    ):
        assert part in str(raised.value)
    assert left(place / "checkpoint.pth") == []
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"Put variant\.yml and checkpoint\.pth into"):
        load(NAME, weights_folder=tmp_path / "file")


def test_every_name_of_the_tables_has_its_addresses_and_every_alternative_is_known():
    host = "https://www.rocq.inria.fr/cluster-willow/rstrudel/segmenter/checkpoints"
    for name in ("ade20k/seg_large_mask_640", "cityscapes/seg_large_mask", "pascal_context/seg_large_mask"):
        files = {file: f"{host}/{name}/{file}" for file in ("checkpoint.pth", "variant.yml")}
        assert dict(KNOWN_WEIGHTS[name].files) == files
    for known in KNOWN_WEIGHTS.values():
        assert all(url.startswith("https://") for _, url in known.files)
        assert known.alternative is None or known.alternative in KNOWN_WEIGHTS
    assert KNOWN_WEIGHTS[CHECKED].files[0][1].endswith("ade20k_20220105_151706-ffcf7509.pth")
    assert KNOWN_WEIGHTS[CHECKED].protocol == Protocol(512, 2048, 512, 480)


@pytest.fixture
def served(tmp_path, monkeypatch, https):
    """A function that serves the official model's file in some way; returns where it is to lie."""
    monkeypatch.setenv("LIGHTNING_EXPEDITE_WEIGHTS", str(tmp_path / "weights"))
    https.content = (OFFICIAL / "checkpoint.pth").read_bytes()

    def serve(kind, checksum=None):
        place = tmp_path / "weights" / "some" / "weights"
        place.mkdir(parents=True)
        shutil.copyfile(OFFICIAL / "variant.yml", place / "variant.yml")
        files = (("checkpoint.pth", f"{https.address}/{kind}/checkpoint.pth"),)
        entry = KnownWeights("some/weights", "ade20k", files, None, Protocol(), checksum)
        monkeypatch.setitem(KNOWN_WEIGHTS, "some/weights", entry)
        return place

    return serve


def test_weights_are_downloaded_checked_and_not_downloaded_again(served, https):
    content = (OFFICIAL / "checkpoint.pth").read_bytes()
    place = served("whole", hashlib.sha256(content).hexdigest()[:8])
    assert resolve_checkpoint("some/weights") == place
    assert (place / "checkpoint.pth").read_bytes() == content
    assert load("some/weights").num_classes == 5
    assert len(https.asked) == 1


@pytest.mark.parametrize("kind", ["short", "chunked", "missing", "garbled", "whole"])
def test_a_download_that_fails_leaves_nothing_behind_and_says_where_to_put_the_file(served, kind):
    place = served(kind, "0123abcd")
    with pytest.raises(CheckpointError, match=f"Put checkpoint.pth into {place}") as raised:
        load("some/weights")
    assert kind != "whole" or "its checksum is" in str(raised.value)
    assert left(place / "checkpoint.pth") == ["variant.yml"]


# --- Downloads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/x", "file:///etc/hostname", "ftp://127.0.0.1/x"])
def test_addresses_and_redirects_other_than_https_are_refused(target, https, address):
    for url in (address, f"{https.address}/redirect/x"):
        https.location = address
        with pytest.raises((CheckpointError, httpx.HTTPError, OSError), match=r"not an HTTPS|protocol|[Rr]edirect"):
            download(url, target)
        assert left(target) == []
    assert https.asked == ["/redirect/x"]


def test_redirects_within_https_are_followed_but_not_without_end(target, https):
    https.location = "/whole/weights.pth"
    download(f"{https.address}/redirect/x", target, SHA256[:8])
    assert target.read_bytes() == CONTENT
    assert https.asked == ["/redirect/x", "/whole/weights.pth"]
    target.unlink()
    https.location = "/redirect/x"
    with pytest.raises(httpx.TooManyRedirects):
        download(f"{https.address}/redirect/x", target)
    assert left(target) == []


def test_a_certificate_of_somebody_else_is_refused(target, https, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        download(f"{https.address}/whole/x", target)
    assert left(target) == []


def test_an_answer_that_does_not_tell_its_length_is_read_to_its_end(target, https):
    download(f"{https.address}/endless/x", target, SHA256)
    assert target.read_bytes() == CONTENT


def test_a_full_disk_leaves_nothing_and_is_named(target, https, monkeypatch):
    entry = KnownWeights("some", "ade20k", ((target.name, f"{https.address}/whole/x"),), None, Protocol())
    monkeypatch.setitem(KNOWN_WEIGHTS, "some", entry)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 21, hard))  # the file grows to 2 MiB: then the system refuses
    try:
        with pytest.raises(CheckpointError, match=r"File too large.*Put weights\.pth into"):
            load("some", weights_folder=target.parents[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert left(target) == []


def test_of_many_who_ask_at_once_one_downloads(target, https):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: download(f"{https.address}/slow/x", target), range(4)))
    assert https.asked == ["/slow/x"]
    assert target.read_bytes() == CONTENT


def test_who_waited_tries_where_the_first_failed(target, https):
    def attempt(kind):
        try:
            download(f"{https.address}/{kind}/x", target)
        except httpx.HTTPError:
            return False
        return True

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(attempt, ("short", "short", "slow"))) in ([False, False, True], [False, True, True])
    assert target.read_bytes() == CONTENT
