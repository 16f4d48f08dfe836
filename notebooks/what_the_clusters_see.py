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
# # What the clusters see
#
# A reducer decides for every patch whether it keeps a token of its own. This notebook draws those decisions: which
# patches share a token, where, and what becomes of thin things such as poles. It runs on a CPU in about a minute, on
# scenes that come with the package; give `IMAGE` the path of a picture and `CHECKPOINT` your own model to look at
# those, in all cells but the last.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np

from lightning_expedite import load_segmenter, segment, token_groups, with_reducer
from lightning_expedite.data.scenes import CLASSES, VALIDATION, draw_scene
from lightning_expedite.evaluation.token_maps import token_maps
from lightning_expedite.one_image import Preparation
from lightning_expedite.reducers import ACT, EViT, TokenClustering, ToMe

CHECKPOINT = "demo"
IMAGE, _ = draw_scene(VALIDATION[5])
model = load_segmenter(CHECKPOINT)
segment(model, IMAGE)

# %% [markdown]
# ## Clustering
#
# Tokens join a grid of clusters softly, after one layer. Each patch is drawn with the cluster that takes its largest
# share. Clusters begin as a regular grid and bend towards what is alike: their borders follow the road's edge and the
# skyline where the layer's tokens tell them apart. A token can only go to a cluster near its place, which keeps
# things apart that look the same far from each other.

# %%
token_groups(with_reducer(model, TokenClustering(location=4, clusters=(8, 8))), IMAGE)

# %% [markdown]
# More clusters leave less to share. Where a cluster has a single patch, the picture shows the image itself.

# %%
token_groups(with_reducer(model, TokenClustering(location=4, clusters=(12, 12))), IMAGE)

# %% [markdown]
# ## EViT
#
# Patches are dropped in three layers, those first to which the class token attends least. White patches have no token
# any more from that layer on; after the encoder they get theirs rebuilt from the most similar patch that was kept.

# %%
token_groups(with_reducer(model, EViT(locations=(4, 7, 10), keep_rate=0.7)), IMAGE)

# %% [markdown]
# ## ToMe
#
# Tokens are merged before each attention and each MLP, and copied back afterwards. So every layer has its own groups,
# which may lie anywhere in the window: similarity decides alone. Two layers, early and late:

# %%
token_groups(with_reducer(model, ToMe(ratio=0.5)), IMAGE, layers=(1, 12))

# %% [markdown]
# ## ACT
#
# Here queries of the attention share a result, for each head apart, and tokens stay as many as they are. Fewer hashes
# make larger groups.

# %%
token_groups(with_reducer(model, ACT(query_hashes=16)), IMAGE, layers=(1, 6, 12), head=1)

# %% [markdown]
# ## What a group costs
#
# Pixels whose patches share a token get much the same logits. Where they belong to several classes, the commonest is
# likely to win. How many pixels are *outvoted*, that is of another class than most pixels of their group? The first
# bars stand for single patches, without any reducer: thin things are outvoted there already, and a group adds to it.
# The decoder and the layers before clustering can still tell such pixels apart, so this is where to look, not what is
# lost.

# %%
SCENES = [draw_scene(index) for index in VALIDATION[:6]]


def groups_of(model, image):
    """Number of each pixel's group (H, W) after clustering."""
    preparation = Preparation.of(model, {})
    view, _ = preparation.views(image, next(model.parameters()))[0]
    return token_maps(model, view, preparation.windows).steps[0].group


def patches_of(image):
    """Number of each pixel's patch (H, W)."""
    rows, columns = (np.arange(side) // model.architecture.patch_size for side in image.shape[:2])
    return rows[:, None] * (columns[-1] + 1) + columns


def outvoted(group, truth):
    """Tell for each pixel (H, W) whether most pixels of its group are of another class."""
    votes = np.zeros((group.max() + 1, len(CLASSES)), dtype=int)
    np.add.at(votes, (group, truth), 1)
    return truth != votes.argmax(axis=1)[group]


ways = {"patches alone": patches_of}
for side in (12, 8):
    clustered = with_reducer(model, TokenClustering(location=4, clusters=(side, side)))
    ways[f"{side} x {side} clusters"] = lambda image, clustered=clustered: groups_of(clustered, image)

place = np.arange(len(CLASSES))
figure, axis = plt.subplots(figsize=(11, 4.5), layout="constrained")
for number, (name, group) in enumerate(ways.items()):
    lost = np.concatenate([outvoted(group(image), truth).ravel() for image, truth in SCENES])
    classes = np.concatenate([truth.ravel() for _, truth in SCENES])
    shares = [100 * lost[classes == index].mean() for index in place]
    axis.bar(place + 0.27 * (number - 1), shares, width=0.27, label=name)
axis.set_xticks(place, CLASSES)
axis.set_ylabel("outvoted pixels, % of the class")
axis.set_title(f"pixels of another class than most of their group, over {len(SCENES)} scenes")
axis.legend(frameon=False)
plt.show()
