"""What several test modules share."""

import os
import shutil
from pathlib import Path

import pytest
import yaml

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # before any import of albumentations

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

    def check(*words, usage=False):
        status, out, err = run(*words)
        assert status == 2
        assert "Traceback" not in out + err
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert usage or err.splitlines()[-1] == errors[0]
        return " ".join(err[err.index("error: ") :].split()) if usage else errors[0]

    return check


@pytest.fixture
def no_gradients():
    import torch

    with torch.inference_mode():
        yield
