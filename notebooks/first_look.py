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
# # A first look at token reduction
#
# The bundled demo model labels a drawn road scene twice: with all its tokens, and with a token reducer. The pictures
# show where the two differ, which tokens were joined, and what that costs in mIoU. Everything runs on a CPU in about
# a minute; nothing is downloaded.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
import torch

from lightning_expedite import load_segmenter, segment, token_groups, with_reducer
from lightning_expedite.data.scenes import CLASSES, VALIDATION, draw_scene
from lightning_expedite.metrics import SegmentationScores
from lightning_expedite.reducers import ACT, EViT, TokenClustering, ToMe

# %% [markdown]
# ## One scene, labelled twice
#
# Three calls: load a model, take the same one with a reducer, label an image. `segment` takes a file, a Pillow image
# or an array, and does what `python -m lightning_expedite predict` does: it lays windows over the image and averages
# their logits. A reducer has no parameters, so both models have the same weights.
#
# Choose one of the four reducers here. Fewer `clusters`, a smaller `keep_rate`, fewer `query_hashes` or a larger
# `ratio` reduce more.

# %%
REDUCERS = {
    "clustering": TokenClustering(location=4, clusters=(12, 12)),
    "EViT": EViT(locations=(4, 7, 10), keep_rate=0.5),
    "ToMe": ToMe(ratio=0.5),
    "ACT": ACT(query_hashes=24),
}
reducer = REDUCERS["clustering"]

image, truth = draw_scene(VALIDATION[3])
unreduced = load_segmenter("demo")
reduced = with_reducer(unreduced, reducer)
full, short = segment(unreduced, image), segment(reduced, image)
print(reducer)
print(full)
print(f"{100 * np.mean(full.labels != short.labels):.1f} % of the pixels get another label with the reducer")

# %%
full.compare(short, label=truth)

# %% [markdown]
# ## Which tokens went together
#
# Patches that share a token are drawn in their mean colour, with lines between groups. Reducers work within a window,
# so no group crosses the border of one. `notebooks/what_the_clusters_see.ipynb` looks at this more closely.

# %%
token_groups(reduced, image)

# %% [markdown]
# ## What it costs
#
# mIoU over a few scenes. The eight scenes here are too few to rank methods by; the scores of all 64 come from `python
# -m lightning_expedite test --config configs/demo_ours.yaml` and the other demo configs.

# %%
SCENES = [draw_scene(index) for index in VALIDATION[:8]]


def scores(model):
    counter = SegmentationScores(len(CLASSES))
    for image, truth in SCENES:
        labels = segment(model, image).labels.astype(np.int64)
        counter.update(torch.from_numpy(labels)[None], torch.from_numpy(truth)[None])
    return counter.compute()


without = scores(unreduced)
results = {name: scores(with_reducer(unreduced, method)) for name, method in REDUCERS.items()}

print(f"{'':<14}{'mIoU %':>8}{'difference':>12}")
print(f"{'all tokens':<14}{without['mIoU']:>8.2f}")
for name, result in results.items():
    print(f"{name:<14}{result['mIoU']:>8.2f}{result['mIoU'] - without['mIoU']:>+12.2f}")

# %%
place = np.arange(len(CLASSES))
figure, axis = plt.subplots(figsize=(11, 4.5), layout="constrained")
for number, (name, result) in enumerate(results.items()):
    axis.bar(place + 0.2 * (number - 1.5), (result["IoU"] - without["IoU"]).numpy(), width=0.2, label=name)
axis.axhline(0, color="black", linewidth=0.8)
axis.set_xticks(place, CLASSES)
axis.set_ylabel("change of IoU in points")
axis.set_title(f"IoU of each class against that with all tokens, over {len(SCENES)} scenes")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# Next: `compare_reducers.ipynb` scores and times many settings, `bring_your_own.ipynb` goes on with a model, data and
# a reducer of your own.
