"""What several test modules share."""

import os
import shutil
from pathlib import Path

import pytest
import yaml

if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: before any import of torch
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Python's typing gives Union[float, int] for Union[int, float] where the former was made before, and 1 would then be
# read as the fraction 1.0 of all batches. Commands import Lightning before anything that does; so do tests.
import pytorch_lightning  # noqa: F401

SHARED = Path(__file__).parents[2] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the reference data set of expected values is not here")


@pytest.fixture
def model_folder(tmp_path):
    from stored_models import OFFICIAL

    folder = tmp_path / "weights"
    folder.mkdir()
    for file in ("checkpoint.pth", "variant.yml"):
        shutil.copyfile(OFFICIAL / file, folder / file)
    return folder


@pytest.fixture
def variant(model_folder):
    """A function that edits the folder's variant.yml."""

    def edit(change):
        path = model_folder / "variant.yml"
        content = yaml.safe_load(path.read_text())
        change(content)
        path.write_text(yaml.safe_dump(content))
        return path

    return edit


@pytest.fixture(scope="session")
def https_server(tmp_path_factory):
    from secure_server import SecureServer

    with SecureServer(tmp_path_factory.mktemp("https")) as server:
        yield server


@pytest.fixture
def https(https_server, monkeypatch):
    """A server on this machine whose certificate is trusted during the test; see `secure_server.Handler`."""
    monkeypatch.setenv("SSL_CERT_FILE", str(https_server.authority))
    monkeypatch.setenv("no_proxy", "*")
    https_server.content, https_server.asked, https_server.location = b"", [], ""
    return https_server


@pytest.fixture
def data(tmp_path):
    from small_run import make_data

    return make_data(tmp_path)


@pytest.fixture
def config(data):
    from small_run import make_config

    return make_config(data)


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    from small_run import command_line

    monkeypatch.chdir(tmp_path)
    return lambda *words: command_line(capsys, *words)


@pytest.fixture
def fails(run):
    """Runs what must end with status 2 and one line of error; returns that line."""

    def check(*words):
        status, out, err = run(*words)
        assert status == 2
        assert "Traceback" not in out + err
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert err.splitlines()[-1] == errors[0]
        return errors[0]

    return check


@pytest.fixture
def no_gradients():
    import torch

    with torch.inference_mode():
        yield


@pytest.fixture
def stop(monkeypatch):
    """A function that lets so many images be labelled, and no more; gives the list of those that were."""
    from lightning_expedite.evaluation.module import SegmenterModule

    predict = SegmenterModule.predict

    def after(images, error=KeyboardInterrupt):
        labelled = []

        def counted(module, sample):
            if len(labelled) == images:
                raise error
            labelled.append(sample["name"])
            return predict(module, sample)

        monkeypatch.setattr(SegmenterModule, "predict", counted)
        return labelled

    return after


@pytest.fixture
def refuses_weights(fails, tmp_path):
    """Checks that a checkpoint is refused, in one line that names its file, and that nothing is written."""

    def check(checkpoint, named=None, *words):
        message = fails("convert", "--checkpoint", checkpoint, "--output", tmp_path / "out")
        for word in (str(named or checkpoint), *words):
            assert word in message
        assert len(message) < 2100
        assert not (tmp_path / "out").exists()
        return message

    return check
