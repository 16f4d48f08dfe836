# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Bring your own model, data and reducer
#
# This notebook writes all three: a model in a file, a data set as two folders of images, and a token reducer in 30
# lines, which it then tests, scores and times against the four that are included. Everything is small, runs on a CPU
# in about a minute, and is written to a temporary folder.

# %%
import logging
import tempfile
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from PIL import Image

from lightning_expedite import load_segmenter
from lightning_expedite.benchmarking import BenchmarkSettings, CropSource, compare
from lightning_expedite.data import Folder
from lightning_expedite.data.scenes import CLASSES, VALIDATION, draw_scene
from lightning_expedite.evaluation import SegmenterModule
from lightning_expedite.models import Architecture, Segmenter, convert_checkpoint, save_segmenter
from lightning_expedite.protocol import Protocol
from lightning_expedite.reducers import ACT, EncoderShape, EViT, Reducer, Reduction, TokenClustering, TokenLayout, ToMe
from lightning_expedite.reducers.checks import check_location

logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)  # which devices there are
warnings.filterwarnings("ignore", ".*LeafSpec.*", module="pytorch_lightning.*")

FOLDER = Path(tempfile.mkdtemp(prefix="bring_your_own_"))
_ = torch.manual_seed(0)

# %% [markdown]
# ## A model
#
# A `Segmenter` is described by its sizes. Whatever trained it, `save_segmenter` writes `model.safetensors` and
# `variant.yml`, which every command takes as `--model.checkpoint FOLDER`. The protocol says how it is to be
# evaluated: here, in windows of 64 pixels, 48 apart.

# %%
sizes = Architecture(image_size=(64, 64), patch_size=8, width=48, depth=4, heads=3, num_classes=len(CLASSES))
random_model = Segmenter(sizes).eval()
save_segmenter(random_model, FOLDER / "random", Protocol(window=64, stride=48))
print(*sorted(path.name for path in (FOLDER / "random").iterdir()))

again = load_segmenter(FOLDER / "random")
images = torch.rand(2, 3, 64, 64) * 2 - 1
with torch.inference_mode():
    assert torch.equal(again(images), random_model(images))
print(f"{sum(parameter.numel() for parameter in again.parameters()):,} parameters, the same logits after reading")

# %% [markdown]
# A checkpoint of rstrudel/segmenter, mmsegmentation or the reference implementation is read as it is, or converted
# once. A random model would make every score meaningless, so the rest of this notebook goes on with the bundled one,
# converted to float16 as if it were somebody's own.

# %%
weights = convert_checkpoint("demo", FOLDER / "mine", "float16").parent
print(f"{weights.name}: {sum(path.stat().st_size for path in weights.iterdir()) / 2**20:.1f} MiB")

# %% [markdown]
# ## A data set
#
# Two folders and a list of class names are one. The label of `images/NAME.png` is `labels/NAME.png`, with the values
# 0 to n - 1, and 255 where a pixel is to be ignored. Here they are drawn; the ignored pixels stand for a car's own
# bonnet at the lower border.

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


def score(reducer):
    """mIoU in percent with a reducer, as `test` computes it."""
    module = SegmenterModule(str(weights), reducer=reducer)
    trainer.test(module, datamodule=data, verbose=False)
    return float(module.result["mIoU"])


print(f"mIoU without a reducer: {score(None):.2f} %")

# %% [markdown]
# ## A reducer
#
# One class has the settings, another the state of a forward pass. This one keeps every other column of patches after
# one layer, and gives the patches of the other columns the logits of their left neighbour.


# %%
class EveryOtherColumn(Reducer):
    """Drop every other column of patches after a layer; a dropped patch gets its left neighbour's logits."""

    def __init__(self, location: int) -> None:
        self.location = location

    def check(self, encoder: EncoderShape) -> None:
        check_location(self.location, encoder.depth)

    def start(self, layout: TokenLayout) -> "EveryOtherColumnReduction":
        return EveryOtherColumnReduction(self, layout)


class EveryOtherColumnReduction(Reduction):
    def __init__(self, settings: EveryOtherColumn, layout: TokenLayout) -> None:
        super().__init__(layout)
        self.location = settings.location
        rows, columns = torch.arange(layout.rows)[:, None], torch.arange(layout.columns)
        self.kept = (rows * layout.columns + columns[::2]).flatten()
        self.place = (rows * len(columns[::2]) + columns // 2).flatten()

    def layer(self, layer, block, tokens):
        tokens = super().layer(layer, block, tokens)
        if layer != self.location:
            return tokens
        prefix, patches = tokens[:, : self.layout.prefix], tokens[:, self.layout.prefix :]
        return torch.cat((prefix, patches[:, self.kept]), dim=1)

    def restore_logits(self, logits):
        return logits[:, self.place]

    def is_identity(self):
        return self.layout.columns == 1


# %% [markdown]
# ## Its tests
#
# Where nothing is reduced, nothing may change. A batch must give what its images give alone. Any size must work. A
# setting that cannot apply must be refused when the model is put together, not halfway through a data set.

# %%
mine = load_segmenter(weights, reducer=EveryOtherColumn(location=4))
unreduced = load_segmenter(weights)
patch = mine.architecture.patch_size


@torch.inference_mode()
def logits_of(model, images):
    return model(images)


narrow = torch.rand(1, 3, 64, patch) * 2 - 1  # one column of patches
assert torch.equal(logits_of(mine, narrow), logits_of(unreduced, narrow))

pair = torch.rand(2, 3, 64, 64) * 2 - 1
alone = torch.cat([logits_of(mine, image[None]) for image in pair])
assert torch.allclose(logits_of(mine, pair), alone, atol=1e-4)
assert not torch.allclose(logits_of(mine, pair), logits_of(unreduced, pair), atol=1e-2)

for height, width in ((64, 72), (40, 100), (9, 31)):
    assert logits_of(mine, torch.rand(1, 3, height, width)).shape == (1, len(CLASSES), height, width)

try:
    mine.reducer = EveryOtherColumn(location=13)
except Exception as error:
    print(f"{type(error).__name__}: {error}")

# %% [markdown]
# ## What it is worth
#
# Score, FLOPs and speed, beside the included reducers at similar FLOPs. Each is timed in turns with the same model
# without a reducer, on crops of the data set, one window at a time. Four images are too few to rank methods by, and a
# small model on two cores is not the machine that you will use: this is how to measure, not what to choose.

# %%
REDUCERS = {
    "every other column": EveryOtherColumn(location=4),
    "clustering": TokenClustering(location=4, clusters=(12, 12)),
    "EViT": EViT(locations=(4, 7, 10), keep_rate=0.7),
    "ToMe": ToMe(ratio=0.4),
    "ACT": ACT(query_hashes=24),
}
settings = BenchmarkSettings(device="cpu", batch_size=1, iterations=15, seconds=4)
crops = CropSource(data.test_dataloader().dataset, (128, 128), enlarge=False)

without = score(None)
print(f"{'':<20}{'mIoU %':>8}{'lost':>7}{'FLOP ratio':>12}{'speed-up':>10}{'efficiency':>12}")
for name, reducer in REDUCERS.items():
    miou = score(reducer)
    figures = compare(load_segmenter(weights, reducer=reducer), crops, settings)
    ratio, speedup = figures["gflops"]["ratio"], figures["latency"]["speedup"]["median"]
    print(f"{name:<20}{miou:>8.2f}{without - miou:>7.2f}{ratio:>12.2f}{speedup:>10.2f}{figures['efficiency']:>12.2f}")

# %% [markdown]
# From a file of your own, the same reducer is an option of every command: `--model.reducer
# my_package.columns.EveryOtherColumn --model.reducer.location 4`, and `sweep` varies its settings like any other's.
