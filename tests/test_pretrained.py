"""Models as folders: what is stored is what is loaded, and nothing in a folder is executed."""

import json

import pytest
import torch
import yaml
from stored_models import OFFICIAL
from tiny import noise, tiny_model

from lightning_expedite import Segmenter, load
from lightning_expedite.errors import CheckpointError, OutputError, ReducerError
from lightning_expedite.models import convert_checkpoint, read_protocol, save_segmenter
from lightning_expedite.protocol import Protocol
from lightning_expedite.reducers import ACT, EViT, TokenClustering, ToMe

CLASSES = ("sky", "wall", "tree", "road | path", "door")
PROTOCOL = Protocol(short_side=60, long_side=240, window=64, stride=48, normalization="deit")
REDUCERS = {
    "none": None,
    "ours": TokenClustering(2, (4, 6), iterations=3, temperature=0.5),
    "evit": EViT([3, 2], 0.6, fuse_token=False),
    "tome": ToMe(0.3),
    "act": ACT(4, seed=7),
}


class Halved(ToMe):
    """A reducer that is not in the package."""

    def __init__(self, share: float) -> None:
        super().__init__(share / 2)
        self.share = share


class Forgetful(ToMe):
    """A reducer that does not keep its argument."""

    def __init__(self, amount: float) -> None:
        super().__init__(amount)


def edit(folder, change):
    path = folder / "config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def folder(tmp_path):
    return tiny_model(ToMe(0.3)).save_pretrained(tmp_path / "model", classes=CLASSES, protocol=PROTOCOL)


@pytest.mark.parametrize("name", REDUCERS)
@torch.inference_mode()
def test_what_is_loaded_is_what_was_stored(name, tmp_path):
    model = tiny_model(REDUCERS[name], convention="official")
    model.save_pretrained(tmp_path / "model", classes=CLASSES, protocol=PROTOCOL)
    loaded = Segmenter.from_pretrained(tmp_path / "model")
    assert repr(loaded.reducer) == repr(REDUCERS[name])
    assert (loaded.architecture, loaded.convention) == (model.architecture, model.convention)
    assert (loaded.protocol, loaded.classes) == (PROTOCOL, CLASSES)
    assert not loaded.training
    images = noise(2, 3, 64, 64)
    assert torch.equal(loaded(images), model(images))
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"README.md", "config.json", "model.safetensors"}


@pytest.mark.parametrize(
    "sizes",
    [{"decoder": "linear"}, {"distilled": True}, {"class_token": False}, {"image_size": (32, 64), "patch_size": 16}],
    ids=str,
)
@torch.inference_mode()
def test_models_of_every_kind_are_stored(tmp_path, sizes):
    model, images = tiny_model(**sizes), noise(1, 3, 40, 40)
    described = load(model.save_pretrained(tmp_path / "config"))
    assert (described.architecture, described.classes) == (model.architecture, None)
    for loaded in (described, load(save_segmenter(model, tmp_path / "variant"))):
        assert torch.equal(loaded(images), model(images))


def test_a_loaded_model_carries_its_names_and_protocol_on(folder, tmp_path):
    again = load(folder).save_pretrained(tmp_path / "again", dtype=torch.float16)
    first, second = (json.loads((one / "config.json").read_text()) for one in (folder, again))
    assert second == {**first, "reducer": None}
    assert (again / "model.safetensors").stat().st_size < 0.6 * (folder / "model.safetensors").stat().st_size
    assert load(folder).protocol == PROTOCOL


def test_the_reducer_can_be_left_out_or_exchanged(folder):
    assert Segmenter.from_pretrained(folder, reducer=None).reducer is None
    other = EViT([2], 0.5)
    assert Segmenter.from_pretrained(folder, reducer=other).reducer is other
    assert load(folder).reducer is None
    with pytest.raises(ReducerError, match="location 9"):
        Segmenter.from_pretrained(folder, reducer=TokenClustering(9, (4, 4)))


def test_every_way_to_load_takes_the_folder(folder, tmp_path):
    assert read_protocol(folder) == read_protocol(folder / "model.safetensors") == PROTOCOL
    converted = convert_checkpoint(folder, tmp_path / "converted").parent
    assert read_protocol(converted) == PROTOCOL
    assert load(converted).architecture == load(folder).architecture


def test_known_names_and_other_layouts_are_loaded_too():
    assert Segmenter.from_pretrained("demo").num_classes == 11
    assert Segmenter.from_pretrained(str(OFFICIAL)).convention.name == "official"


def test_a_class_outside_the_package_has_to_be_handed_over(tmp_path):
    folder = tiny_model(Halved(0.6)).save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"'Halved', which is not a reducer of this package .*ToMe.*reducer=Halved"
    ):
        Segmenter.from_pretrained(folder)
    loaded = Segmenter.from_pretrained(folder, reducer=Halved).reducer
    assert type(loaded) is Halved
    assert (loaded.share, loaded.ratio) == (0.6, 0.3)


@pytest.mark.parametrize(
    "settings", [{}, {"ratio": "much"}, {"ratio": 3}, {"ratio": 0.3, "more": 1}, {"ratio": None}, {"ratio": [0.1]}]
)
def test_settings_that_the_reducer_refuses_are_named(folder, settings):
    path = edit(folder, lambda content: content["reducer"].update(settings=settings))
    with pytest.raises(CheckpointError, match="ToMe does not take the settings") as raised:
        Segmenter.from_pretrained(folder)
    assert str(path) in str(raised.value)


def test_a_reducer_that_cannot_be_stored_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ReducerError, match="keeps no attribute amount"):
        tiny_model(Forgetful(0.2)).save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_another_librarys_config_is_refused_unless_a_variant_describes_the_weights(folder, tmp_path):
    converted = convert_checkpoint(folder, tmp_path / "converted").parent
    expected = load(folder).architecture
    for place in (folder, converted):
        (place / "config.json").write_text('{"model_type": "segformer", "architectures": ["Segformer"]}')
    assert load(converted).architecture == expected
    with pytest.raises(CheckpointError, match=r"another library's.*convert"):
        load(folder)


def test_a_model_is_replaced_only_on_demand_and_a_card_never(folder):
    (folder / "README.md").write_text("mine")
    with pytest.raises(OutputError, match=r"config\.json exists already"):
        tiny_model().save_pretrained(folder)
    tiny_model(seed=1).save_pretrained(folder, overwrite=True)
    assert Segmenter.from_pretrained(folder).reducer is None
    assert (folder / "README.md").read_text() == "mine"


def test_a_place_that_is_no_folder_and_names_of_other_classes_are_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file cannot be written to"):
        tiny_model().save_pretrained(tmp_path / "file")
    with pytest.raises(CheckpointError, match="classes has 2 names, the model 5 classes"):
        tiny_model().save_pretrained(tmp_path, classes=["a", "b"])


def test_the_card_says_how_to_load_and_what_is_inside(folder):
    card = (folder / "README.md").read_text()
    head, _, text = card.removeprefix("---\n").partition("---\n")
    assert yaml.safe_load(head)["library_name"] == "lightning_expedite"
    for words in ("4 layers", "width 32", "`ToMe(ratio=0.3)`", "| stride | 48 |", "3. road \\| path", "deit"):
        assert words in text
    assert "reducer=None" in text
    code = text.partition("```python\n")[2].partition("```")[0]
    names: dict[str, object] = {}
    exec(code.replace("owner/name", str(folder)), names)  # what the card tells readers to run
    assert names["model"].reducer is None
