# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Bring your own model, data and reducer
#
# This notebook saves a model, builds a data set from two folders of images, and writes a token reducer in 30 lines,
# which it tests, evaluates and times against the four included ones. Everything is small, runs on a CPU in about a
# minute, and is written to a temporary folder.

# %%
import logging
import tempfile
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from PIL import Image

from lightning_expedite import ACT, EViT, Segmenter, TokenClustering, ToMe, load
from lightning_expedite.benchmarking import BenchmarkSettings, CropSource, compare
from lightning_expedite.data import Folder
from lightning_expedite.data.scenes import CLASSES, VALIDATION, draw_scene
from lightning_expedite.evaluation import SegmenterModule
from lightning_expedite.models import Architecture, convert_checkpoint, save_segmenter
from lightning_expedite.protocol import Protocol
from lightning_expedite.reducers import EncoderShape, Reducer, Reduction, TokenLayout
from lightning_expedite.reducers.checks import check_location

logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)  # available devices
warnings.filterwarnings("ignore", ".*LeafSpec.*", module="pytorch_lightning.*")

FOLDER = Path(tempfile.mkdtemp(prefix="bring_your_own_"))
_ = torch.manual_seed(0)

# %% [markdown]
# ## A model
#
# An `Architecture` holds the sizes of a `Segmenter`. `save_segmenter` writes any trained one as `model.safetensors`
# and `variant.yml`, which every command takes as `--model.checkpoint FOLDER`. The protocol holds the evaluation
# settings: here, windows of 64 pixels with a stride of 48.

# %%
architecture = Architecture(image_size=(64, 64), patch_size=8, width=48, depth=4, heads=3, num_classes=len(CLASSES))
random_model = Segmenter(architecture).eval()
save_segmenter(random_model, FOLDER / "random", Protocol(window=64, stride=48))
print(*sorted(path.name for path in (FOLDER / "random").iterdir()))

loaded = load(FOLDER / "random")
images = torch.rand(2, 3, 64, 64) * 2 - 1
with torch.inference_mode():
    assert torch.equal(loaded(images), random_model(images))
print(f"{sum(parameter.numel() for parameter in loaded.parameters()):,} parameters, the same logits after loading")

# %% [markdown]
# Checkpoints of rstrudel/segmenter, mmsegmentation and the reference implementation are loaded directly, or converted
# once. Scores of a random model mean nothing, so the rest of this notebook uses the bundled one, converted to float16
# as your own might be.

# %%
weights = convert_checkpoint("demo", FOLDER / "mine", "float16").parent
print(f"{weights.name}: {sum(path.stat().st_size for path in weights.iterdir()) / 2**20:.1f} MiB")

# %% [markdown]
# ## A data set
#
# Two folders and a list of class names. The label of `images/NAME.png` is `labels/NAME.png`, with values from 0 to
# K - 1, and 255 for pixels to ignore: here, a car's own bonnet at the lower border of the synthetic scenes.

# %%
for kind in ("images", "labels"):
    (FOLDER / kind).mkdir()
for scene in VALIDATION[:4]:
    image, label = draw_scene(scene)
    label[-24:] = 255
    Image.fromarray(image).save(FOLDER / "images" / f"{scene}.png")
    Image.fromarray(label).save(FOLDER / "labels" / f"{scene}.png")

data = Folder(images=FOLDER / "images", labels=FOLDER / "labels", classes=list(CLASSES), num_workers=0)
trainer = pl.Trainer(
    accelerator="cpu",
    devices=1,
    logger=False,
    enable_checkpointing=False,
    enable_model_summary=False,
    enable_progress_bar=False,
)


def evaluate(reducer):
    """Return the mIoU in percent with a reducer, as `test` computes it."""
    module = SegmenterModule(str(weights), reducer=reducer)
    trainer.test(module, datamodule=data, verbose=False)
    return float(module.result["mIoU"])


baseline_miou = evaluate(None)
print(f"mIoU of the baseline: {baseline_miou:.2f} %")

# %% [markdown]
# ## A reducer
#
# One class holds the settings, another the state of a forward pass. This reducer drops every other column of patches
# after one layer and copies the logits of the left neighbours to them.


# %%
class EveryOtherColumn(Reducer):
    """Drop every other column of patches after a layer; a dropped patch gets its left neighbour's logits.

    Args:
        location: Layer, from 1.
    """

    def __init__(self, location: int) -> None:
        self.location = location

    def check(self, encoder: EncoderShape) -> None:
        check_location(self.location, encoder.depth)

    def start(self, layout: TokenLayout) -> "EveryOtherColumnReduction":
        return EveryOtherColumnReduction(self, layout)


class EveryOtherColumnReduction(Reduction):
    """One forward pass of `EveryOtherColumn`."""

    def __init__(self, settings: EveryOtherColumn, layout: TokenLayout) -> None:
        super().__init__(layout)
        self.location = settings.location
        rows, columns = torch.arange(layout.rows)[:, None], torch.arange(layout.columns)
        self.kept = (rows * layout.columns + columns[::2]).flatten()
        self.neighbours = (rows * len(columns[::2]) + columns // 2).flatten()

    def layer(self, layer, block, tokens):
        tokens = super().layer(layer, block, tokens)
        if layer != self.location:
            return tokens
        prefix, patches = tokens[:, : self.layout.prefix], tokens[:, self.layout.prefix :]
        return torch.cat((prefix, patches[:, self.kept]), dim=1)

    def restore_logits(self, logits):
        return logits[:, self.neighbours]

    def is_identity(self):
        return self.layout.columns == 1


# %% [markdown]
# ## Tests
#
# Where no token is dropped, the logits must not change. A batch must give the same logits as its images one by one.
# Any image size must work. Settings that do not fit the model must be refused before the first image.

# %%
reduced = load(weights, reducer=EveryOtherColumn(location=4))
baseline = load(weights)
patch_size = reduced.architecture.patch_size


@torch.inference_mode()
def predict(model, images):
    return model(images)


narrow = torch.rand(1, 3, 64, patch_size) * 2 - 1  # one column of patches
assert torch.equal(predict(reduced, narrow), predict(baseline, narrow))

pair = torch.rand(2, 3, 64, 64) * 2 - 1
one_by_one = torch.cat([predict(reduced, image[None]) for image in pair])
assert torch.allclose(predict(reduced, pair), one_by_one, atol=1e-4)
assert not torch.allclose(predict(reduced, pair), predict(baseline, pair), atol=1e-2)

for height, width in ((64, 72), (40, 100), (9, 31)):
    assert predict(reduced, torch.rand(1, 3, height, width)).shape == (1, len(CLASSES), height, width)

try:
    reduced.reducer = EveryOtherColumn(location=13)
except Exception as error:
    print(f"{type(error).__name__}: {error}")

# %% [markdown]
# ## Is it worth it?
#
# mIoU, FLOPs and speed, next to the included reducers at similar FLOPs. Each is timed alternately with the baseline,
# on crops of the data set, one window at a time. Four images are too few to rank methods, and a small model on two
# cores is not your machine: this shows how to measure, not what to choose.

# %%
REDUCERS = {
    "every other column": EveryOtherColumn(location=4),
    "clustering": TokenClustering(location=4, clusters=(12, 12)),
    "EViT": EViT(locations=(4, 7, 10), keep_rate=0.7),
    "ToMe": ToMe(ratio=0.4),
    "ACT": ACT(query_hashes=24),
}
settings = BenchmarkSettings(device="cpu", batch_size=1, iterations=15, seconds=4)
crops = CropSource(data.open_dataset(), (128, 128), enlarge=False)

print(f"{'':<20}{'mIoU, %':>8}{'loss':>7}{'FLOP ratio':>12}{'speed-up':>10}{'efficiency':>12}")
for name, reducer in REDUCERS.items():
    miou = evaluate(reducer)
    row = compare(load(weights, reducer=reducer), crops, settings)
    ratio, speedup = row["gflops"]["ratio"], row["latency"]["speedup"]["median"]
    print(f"{name:<20}{miou:>8.2f}{baseline_miou - miou:>7.2f}{ratio:>12.2f}{speedup:>10.2f}{row['efficiency']:>12.2f}")

# %% [markdown]
# In a module of your own, the same reducer is an option of every command: `--model.reducer
# my_package.columns.EveryOtherColumn --model.reducer.location 4`. `sweep` varies its settings like any other's.
