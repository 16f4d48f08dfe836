"""Nothing that is downloaded or read is executed; ruff's rules (pyproject.toml) keep unsafe calls out of the source."""

import json
import pickle
import re
from pathlib import Path

import huggingface_hub
import pytest
from fake_hub import FakeHub
from tiny import tiny_model

from lightning_expedite import Segmenter, load
from lightning_expedite.analysis.recommend import make_reducer
from lightning_expedite.analysis.schema import ClassSpec
from lightning_expedite.errors import CheckpointError, ExpediteError
from lightning_expedite.reducers import ToMe

pytestmark = pytest.mark.promise("no-code")

# --- The hub -----------------------------------------------------------------------------------------


class Evil:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A repository in which every file but the two that are needed would leave a mark; gives hub and mark."""
    hub = FakeHub(tmp_path / "hub").install(monkeypatch)
    tiny_model(ToMe(0.3)).push_to_hub("owner/name")
    place, mark = hub.place("owner/name"), tmp_path / "mark"
    code = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
    modules = ("__init__", "modeling", "modeling_segmenter", "setup", "handler", "ToMe", "config")
    for name in (f"{module}.py" for module in modules):
        (place / name).write_text(code)
    for name in ("checkpoint.pth", "pytorch_model.bin", "model.pkl", "training_args.bin"):
        (place / name).write_bytes(pickle.dumps(Evil(mark)))
    return hub, mark


def edit_config(hub, change):
    path = hub.place("owner/name") / "config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_of_a_repository_the_two_files_alone_are_fetched_and_nothing_runs(hostile, monkeypatch, tmp_path):
    hub, mark = hostile
    monkeypatch.chdir(hub.place("owner/name"))  # where a module of the repository could be imported by its name
    edit_config(hub, lambda content: content.update(auto_map={"AutoModel": "modeling.Model"}, architectures=["Model"]))
    assert repr(Segmenter.from_pretrained("owner/name").reducer) == "ToMe(ratio=0.3)"
    assert {name for _, _, name in hub.fetched} == {"config.json", "model.safetensors"}
    assert {path.name for path in (tmp_path / "hub/cache").rglob("*.*")} == {"config.json", "model.safetensors"}
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["handler.Evil", "os.system", "builtins.exec", "lightning_expedite.reducers.ToMe", "Evil"]
)
def test_a_reducer_that_a_config_names_is_never_imported(hostile, name, monkeypatch):
    hub, mark = hostile
    monkeypatch.chdir(hub.place("owner/name"))
    edit_config(
        hub, lambda content: content["reducer"].update({"class": name, "settings": {"command": f"touch {mark}"}})
    )
    with pytest.raises(CheckpointError, match=re.escape(f"class is '{name}', which is not a reducer of this package")):
        Segmenter.from_pretrained("owner/name")
    assert not mark.exists()


def test_weights_that_are_a_pickle_in_disguise_are_refused(hostile):
    hub, mark = hostile
    (hub.place("owner/name") / "model.safetensors").write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(CheckpointError, match="is damaged or of another kind"):
        load("hf://owner/name")
    assert not mark.exists()


OUTSIDE = ("../name", "owner/..", "./name", "owner/.name", "owner/na..me", "-o/name", "öwner/name", "owner/name@v1\n")
OUTSIDE += ("owner/name@../../refs", "owner/name@a/../b", "owner/name@/etc/passwd", "owner/name@-v", "owner/name@.git")
NOTHING = ("", "name", "a/b/c", "a/b@", "/b", "a b/c", "a/b@c d", "owner/name@a//b")


@pytest.mark.parametrize("text", [*OUTSIDE, *NOTHING])
def test_names_that_are_none_or_lead_out_of_the_cache_are_refused(text, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("asked the hub"))
    repository, _, revision = text.partition("@")
    with pytest.raises(CheckpointError, match="write hf://owner/name"):
        load(f"hf://{text}")
    if revision:
        with pytest.raises(CheckpointError, match="write hf://owner/name"):
            Segmenter.from_pretrained(repository, revision=revision)


# --- Results -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["os.system", "pathlib.Path", "builtins.exec", "lightning_expedite.files.write_atomically"]
)
def test_what_a_result_names_is_called_only_where_it_is_a_reducer(path, tmp_path):
    spec = ClassSpec(class_path=path, init_args={"command": f"touch {tmp_path / 'mark'}"})
    with pytest.raises(ExpediteError, match="is not a reducer"):
        make_reducer(spec)
    assert not (tmp_path / "mark").exists()
    assert repr(make_reducer(ClassSpec(class_path="ToMe", init_args={"ratio": 0.3}))) == "ToMe(ratio=0.3)"
