"""Downloads: over HTTPS alone, whole or not at all, once for all who wait, and with their checksums."""

import hashlib
import resource
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from lightning_expedite import load_segmenter
from lightning_expedite.errors import CheckpointError
from lightning_expedite.models.segmenter import weights
from lightning_expedite.models.segmenter.downloads import NoAnswerError, checksum_file, download
from lightning_expedite.models.segmenter.weights import KnownWeights
from lightning_expedite.protocol import Protocol

pytestmark = pytest.mark.promise("downloads")
CONTENT = bytes(range(256)) * 20_000  # 5 MB: several blocks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def target(tmp_path, https):
    https.content = CONTENT
    return tmp_path / "some" / "weights.pth"


def left(target):
    return sorted(path.name for path in target.parent.iterdir())


def test_a_download_is_whole_and_its_checksum_is_beside_it(target, https):
    download(f"{https.address}/whole/weights.pth", target, SHA256[:8])
    assert target.read_bytes() == CONTENT
    assert checksum_file(target).read_text() == f"{SHA256}  weights.pth\n"
    assert left(target) == ["weights.pth", "weights.pth.sha256"]


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum on the PATH")
def test_sha256sum_checks_it(target, https):
    download(f"{https.address}/whole/weights.pth", target)
    words = ["sha256sum", "--check", "weights.pth.sha256"]
    assert subprocess.run(words, cwd=target.parent, capture_output=True).returncode == 0
    target.write_bytes(CONTENT[:-1])
    assert subprocess.run(words, cwd=target.parent, capture_output=True).returncode == 1


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/x", "file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x", "/etc/hostname"]
)
def test_other_addresses_than_https_are_refused(target, address):
    with pytest.raises(NoAnswerError, match="is no HTTPS address"):
        download(address, target)
    assert left(target) == []


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:9/x", "redirects to 'http://127.0.0.1:9/x', which is no HTTPS address"),
        ("ftp://127.0.0.1/x", "redirects to 'ftp://127.0.0.1/x', which is no HTTPS address"),
        ("file:///etc/hostname", "Redirection to url 'file:///etc/hostname' is not allowed"),
    ],
)
def test_redirects_to_other_addresses_are_refused(target, https, address, words, figure):
    https.location = address
    with pytest.raises(NoAnswerError, match=words):
        download(f"{https.address}/redirect/x", target)
    assert left(target) == []
    assert https.asked == ["/redirect/x"]
    figure("hostile answers refused", 1)


def test_redirects_within_https_are_followed(target, https):
    https.location = "/whole/weights.pth"
    download(f"{https.address}/redirect/x", target)
    assert target.read_bytes() == CONTENT
    assert https.asked == ["/redirect/x", "/whole/weights.pth"]


def test_redirects_without_end_are_refused(target, https):
    https.location = "/redirect/x"
    with pytest.raises(NoAnswerError, match="does not answer"):
        download(f"{https.address}/redirect/x", target)
    assert left(target) == []


def test_a_certificate_of_somebody_else_is_refused(target, https, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(NoAnswerError, match="CERTIFICATE_VERIFY_FAILED"):
        download(f"{https.address}/whole/x", target)
    assert left(target) == []


@pytest.mark.parametrize("kind", ["short", "chunked", "missing", "garbled"])
def test_what_breaks_off_leaves_nothing(target, https, kind, figure):
    with pytest.raises(NoAnswerError, match=r"does not answer|broke off after"):
        download(f"{https.address}/{kind}/x", target)
    assert left(target) == []
    figure("hostile answers refused", 1)


@pytest.mark.parametrize("kind", ["endless", "wrong"])
def test_an_answer_that_does_not_tell_its_length_is_taken_to_its_end(target, https, kind):
    download(f"{https.address}/{kind}/x", target, SHA256)
    assert target.read_bytes() == CONTENT


def test_a_full_disk_leaves_nothing_and_is_named(target, https, monkeypatch):
    entry = KnownWeights("some", "ade20k", ((target.name, f"{https.address}/whole/x"),), None, Protocol())
    monkeypatch.setitem(weights.KNOWN_WEIGHTS, "some", entry)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 21, hard))  # the file grows to 2 MiB: then the system refuses
    try:
        with pytest.raises(
            CheckpointError, match=r"weights\.pth cannot be written: File too large. Put weights\.pth into"
        ):
            load_segmenter("some", weights_folder=target.parents[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert left(target) == []


def test_of_many_who_ask_at_once_one_downloads(target, https):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: download(f"{https.address}/slow/x", target), range(4)))
    assert https.asked == ["/slow/x"]
    assert target.read_bytes() == CONTENT
    assert left(target) == ["weights.pth", "weights.pth.sha256"]


def test_who_waited_tries_where_the_first_failed(target, https):
    def attempt(kind):
        try:
            download(f"{https.address}/{kind}/x", target)
        except NoAnswerError:
            return False
        return True

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(attempt, ("short", "short", "slow"))) in ([False, False, True], [False, True, True])
    assert target.read_bytes() == CONTENT


def test_a_file_of_a_known_checksum_is_not_taken_for_another(target, https):
    with pytest.raises(CheckpointError, match=r"/whole/x: the checksum differs from 0123abcd"):
        download(f"{https.address}/whole/x", target, "0123abcd")
    assert left(target) == []


def test_a_later_download_has_to_be_that_of_before(target, https):
    download(f"{https.address}/whole/x", target)
    target.unlink()
    https.content = CONTENT[:-1]
    with pytest.raises(CheckpointError, match=r"differs from that of an earlier download.*weights\.pth\.sha256 holds"):
        download(f"{https.address}/whole/x", target)
    assert left(target) == ["weights.pth.sha256"]
    https.content = CONTENT
    download(f"{https.address}/whole/x", target)
    assert target.read_bytes() == CONTENT
