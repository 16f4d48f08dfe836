import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from data_files import make_ade20k, make_camvid, make_folder, make_pascal_context, picture, save
from jsonargparse import ArgumentParser

import lightning_expedite.data
from lightning_expedite.data import ADE20K, CamVid, Demo, Folder, PascalContext, SegmentationDataModule
from lightning_expedite.data.dataset import ShardedSampler
from lightning_expedite.data.transforms import view_image
from lightning_expedite.errors import DataError
from lightning_expedite.protocol import Protocol


def opened(data, protocol=None):
    """The images as a model with this protocol gets them."""
    data.protocol = protocol
    return data.open_dataset()


def view_size(dataset):
    return tuple(dataset[0]["views"][0]["image"].shape[1:])


@pytest.mark.parametrize(
    ("data_set", "settings", "protocol", "expected"),
    [
        (ADE20K, {}, None, (12, 16)),
        (ADE20K, {}, Protocol(), (12, 16)),
        (ADE20K, {}, Protocol(long_side=24), (12, 16)),
        (ADE20K, {}, Protocol(short_side=24), (24, 32)),
        (ADE20K, {}, Protocol(short_side=24, long_side=28), (21, 28)),
        (ADE20K, {"short_side": 36}, Protocol(short_side=24, long_side=28), (36, 48)),
        (ADE20K, {"short_side": 36, "long_side": 40}, Protocol(short_side=24), (30, 40)),
        (ADE20K, {"long_side": 24}, Protocol(short_side=24, long_side=28), (18, 24)),
        (ADE20K, {"short_side": 36}, None, (36, 48)),
        (CamVid, {}, Protocol(short_side=24), (12, 16)),  # evaluated as stored
        (CamVid, {"short_side": 36}, Protocol(short_side=24), (36, 48)),
    ],
)
def test_sizes_come_from_arguments_then_the_model_then_the_files(tmp_path, data_set, settings, protocol, expected):
    make = make_ade20k if data_set is ADE20K else make_camvid
    dataset = opened(data_set(make(tmp_path), **settings), protocol)
    assert view_size(dataset) == expected
    assert dataset[0]["label"].shape == dataset[0]["size"] == (12, 16)


@pytest.mark.parametrize(
    ("data_set", "make", "expected"),
    [(ADE20K, make_ade20k, (8, 80)), (PascalContext, make_pascal_context, (16, 160))],
)
def test_default_limit_of_the_long_side(tmp_path, data_set, make, expected):
    make(tmp_path)
    for path in [*tmp_path.rglob("*.jpg"), *tmp_path.rglob("*.png")]:
        save(path, picture(10, 100) if path.suffix == ".jpg" else np.zeros((10, 100), np.uint8))
    assert view_size(opened(data_set(tmp_path, short_side=20))) == expected


@pytest.mark.parametrize(
    ("argument", "protocol", "expected"),
    [(None, None, "vit"), (None, "deit", "deit"), ("vit", "deit", "vit"), ("deit", None, "deit")],
)
def test_normalisation_comes_from_the_argument_then_the_model(tmp_path, argument, protocol, expected):
    data = CamVid(make_camvid(tmp_path), normalization=argument)
    (view,) = opened(data, Protocol(normalization=protocol) if protocol else None)[0]["views"]
    assert torch.equal(view["image"], view_image(picture(), (12, 16), False, expected))


def test_views_of_several_scales_each_with_its_mirror(tmp_path):
    scales = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    views = opened(CamVid(make_camvid(tmp_path / "camvid"), scales=scales, mirror=True))[0]["views"]
    assert [view["mirrored"] for view in views] == [False, True] * 6
    sizes = [tuple(view["image"].shape[1:]) for view in views]
    assert sizes[::2] == sizes[1::2] == [(6, 8), (9, 12), (12, 16), (15, 20), (18, 24), (21, 28)]
    for plain, mirrored in zip(views[::2], views[1::2], strict=True):
        assert torch.equal(mirrored["image"], plain["image"].flip(2))
        assert mirrored["image"].is_contiguous()
    views = opened(ADE20K(make_ade20k(tmp_path), short_side=25, scales=[0.5, 1.0]))[0]["views"]
    assert [tuple(view["image"].shape[1:]) for view in views] == [(12, 16), (25, 33)]  # the limits are multiplied


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_lists_in_order(tmp_path, num_workers):
    images, labels = make_folder(tmp_path)
    save(images / "nested/deep/a.png", picture(30, 20))
    save(labels / "nested/deep/a.png", np.zeros((30, 20), np.uint8))
    data = Folder(images, labels, ["a", "b", "c"], batch_size=2, num_workers=num_workers)
    batches = list(data.test_dataloader())
    assert [[sample["name"] for sample in batch] for batch in batches] == [
        ["b", "nested/deep/a"],
        ["with.dot"],
    ]
    assert [sample["size"] for sample in batches[0]] == [(12, 16), (30, 20)]
    assert batches[0][1]["label"].dtype == torch.uint8


def test_processes_share_the_images(tmp_path):
    make_camvid(tmp_path, count=5)
    found = []
    for rank in range(3):
        data = CamVid(tmp_path, num_workers=0)
        data.trainer = SimpleNamespace(world_size=3, global_rank=rank, accelerator=None)
        found += [sample["index"] for batch in data.test_dataloader() for sample in batch]
    assert found == [0, 3, 1, 4, 2]


def test_prediction_needs_no_labels_and_takes_other_images(tmp_path):
    make_ade20k(tmp_path)
    (tmp_path / "annotations/validation/ADE_val_00000001.png").unlink()
    data = ADE20K(tmp_path, short_side=20, num_workers=0)
    assert [batch[0]["label"] for batch in data.predict_dataloader()] == [None] * 3
    save(tmp_path / "photos/trip/one.png", picture(10, 20))
    save(tmp_path / "photos/two.jpg", picture(20, 10))
    data.read_images_from(tmp_path / "photos")
    samples = [sample for batch in data.predict_dataloader() for sample in batch]
    assert [(sample["name"], sample["label"]) for sample in samples] == [("trip/one", None), ("two", None)]
    assert [tuple(sample["views"][0]["image"].shape[1:]) for sample in samples] == [(20, 40), (40, 20)]
    with pytest.raises(DataError, match=r"photos: these images have no labels"):
        data.setup("test")


def test_a_data_set_opens_without_a_trainer(tmp_path):
    """The protocol decides on sizes and normalisation; digests are those of the files."""
    make_ade20k(tmp_path)
    data = ADE20K(tmp_path)
    data.protocol = Protocol(short_side=24, normalization="deit")
    sample = data.open_dataset()[1]
    assert sample["views"][0]["image"].shape == (3, 24, 32)
    assert data.used_normalization == "deit"
    files = [
        (tmp_path / f"{kind}/validation/ADE_val_00000001").with_suffix(suffix).read_bytes()
        for kind, suffix in (("images", ".jpg"), ("annotations", ".png"))
    ]
    assert sample["digest"] == hashlib.sha256(files[0] + files[1]).hexdigest()[:16]
    assert data.list_images(labels=True)[1] == ("ADE_val_00000001", (len(files[0]), len(files[1])))
    unlabelled = data.open_dataset(labels=False)[1]
    assert unlabelled["label"] is None
    assert unlabelled["digest"] == hashlib.sha256(files[0]).hexdigest()[:16]


def test_drawn_scenes_have_the_digest_of_their_pixels():
    sample = Demo(count=2).open_dataset()[1]
    pixels = [Demo(count=2).source().image(1), Demo(count=2).source().label(1)]
    assert sample["digest"] == hashlib.sha256(b"".join(map(np.ndarray.tobytes, pixels))).hexdigest()[:16]


class Recorder(pl.LightningModule):
    """Notes which samples Lightning hands over."""

    protocol = Protocol(normalization="deit")

    def __init__(self):
        super().__init__()
        self.seen = []

    def test_step(self, batch, batch_idx):
        assert isinstance(self.trainer.test_dataloaders.sampler, ShardedSampler)
        self.seen += [(sample["index"], sample["size"], sample["label"].shape) for sample in batch]

    def predict_step(self, batch, batch_idx):
        self.seen += [(sample["index"], sample["size"], sample["label"]) for sample in batch]


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_lightning_runs_it(stage, tmp_path):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = pl.Trainer(accelerator="cpu", devices=1, default_root_dir=tmp_path, enable_model_summary=False, **quiet)
    recorder, data = Recorder(), Demo(count=5, batch_size=2, num_workers=0)
    if stage == "test":
        trainer.test(recorder, data, verbose=False)
    else:
        trainer.predict(recorder, data, return_predictions=False)
    size = (256, 384)
    assert recorder.seen == [(index, size, size if stage == "test" else None) for index in range(5)]
    assert data.used_normalization == "deit"


def parser():
    made = ArgumentParser(exit_on_error=False)
    made.add_subclass_arguments(SegmentationDataModule, "data")
    return made


def parse(*arguments):
    return parser().instantiate(parser().parse_args(list(arguments))).data


def test_every_option_is_on_the_command_line():
    shared = "--data.short_side=8 --data.long_side=9 --data.batch_size=3 --data.num_workers=0 --data.mirror=true"
    for name in ("ADE20K", "Cityscapes", "PascalContext", "CamVid"):
        data = parse(f"--data={name}", "--data.root=/x", "--data.split=train", *shared.split())
        assert (type(data).__name__, data.root, data.split) == (name, Path("/x"), "train")
        assert (data.short_side, data.long_side, data.batch_size, data.num_workers, data.mirror) == (8, 9, 3, 0, True)
    folder = parse("--data=Folder", "--data.images=/x", "--data.classes=[a,b]", "--data.ignore=[7]", *shared.split())
    assert (folder.classes, folder.labels, folder.ignore) == (("a", "b"), None, (7,))
    demo = parse("--data=Demo", "--data.count=3", "--data.scales=[0.5,1.0]", "--data.normalization=deit")
    assert (demo.count, demo.scales, demo.normalization) == (3, (0.5, 1.0), "deit")
    assert "protocol" not in vars(parser().parse_args(["--data=Demo"]).data.init_args)


def test_class_names_may_come_from_a_file_on_the_command_line(tmp_path):
    names = tmp_path / "classes.txt"
    names.write_text("road\nsky\n")
    assert parse("--data=Folder", "--data.images=/x", f"--data.classes={names}").classes == ("road", "sky")


def test_a_new_file_is_found_and_import_stays_light(tmp_path):
    package = Path(lightning_expedite.data.__file__).parents[1]
    shutil.copytree(package, tmp_path / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / package.name / "data/made_up.py").write_text(
        "from lightning_expedite.data.base import SegmentationDataModule\n\n\n"
        "class MadeUp(SegmentationDataModule):\n    classes = ('one',)\n"
    )
    script = (
        "import sys, lightning_expedite.data as data\n"
        "print([cls.__name__ for cls in data.SegmentationDataModule.__subclasses__()])\n"
        "print(sorted({'cv2'} & set(sys.modules)))\n"
    )
    out = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    found, heavy = out.stdout.splitlines()
    assert "MadeUp" in found
    assert heavy == "[]"
