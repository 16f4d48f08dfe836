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
# # What the clusters see
#
# A reducer decides for every patch whether it keeps its own token. This notebook draws these decisions: which patches
# share a token, where, and what happens to thin objects such as poles. It runs on a CPU in about a minute, on scenes
# that come with the package. Set `IMAGE` to the path of an image and `CHECKPOINT` to your own model to see yours, in
# all cells except the last.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np

from lightning_expedite import ACT, EViT, TokenClustering, ToMe, load, segment, token_groups, with_reducer
from lightning_expedite.data.scenes import CLASSES, VALIDATION, draw_scene
from lightning_expedite.evaluation.one_image import Preparation
from lightning_expedite.evaluation.token_maps import token_maps

CHECKPOINT = "demo"
IMAGE, _ = draw_scene(VALIDATION[5])
model = load(CHECKPOINT)
segment(model, IMAGE)

# %% [markdown]
# ## Expedit clustering
#
# After one layer, all tokens are softly assigned to a grid of clusters. Each patch is drawn in the cluster with its
# largest weight. Clusters start as a regular grid and adapt to the tokens: their borders follow the edge of the road
# and the skyline where the features differ. A token can only join a cluster near its position, so similar regions far
# apart stay separate.

# %%
token_groups(with_reducer(model, TokenClustering(location=4, clusters=(8, 8))), IMAGE)

# %% [markdown]
# With more clusters, fewer patches share one. Where a cluster has a single patch, the image itself is shown.

# %%
token_groups(with_reducer(model, TokenClustering(location=4, clusters=(12, 12))), IMAGE)

# %% [markdown]
# ## EViT
#
# Three layers prune the patches that the class token attends to least. White patches have no token from that layer on;
# after the encoder, each is reconstructed from the most similar patches that were kept.

# %%
token_groups(with_reducer(model, EViT(locations=(4, 7, 10), keep_rate=0.7)), IMAGE)

# %% [markdown]
# ## ToMe
#
# Tokens are merged before each attention and each MLP and copied back after it. Every layer therefore has its own
# groups, anywhere in the window: only similarity counts. An early and a late layer:

# %%
token_groups(with_reducer(model, ToMe(ratio=0.5)), IMAGE, layers=(1, 12))

# %% [markdown]
# ## ACT
#
# Similar queries share one attention result, per head; the number of tokens stays the same. Fewer hashes make larger
# groups.

# %%
token_groups(with_reducer(model, ACT(query_hashes=16)), IMAGE, layers=(1, 6, 12), head=1)

# %% [markdown]
# ## What a group costs
#
# Pixels whose patches share a token get similar logits. If they belong to several classes, the most frequent one is
# likely to win. How many pixels belong to another class than most pixels of their group? The first bars are for single
# patches, without a reducer: thin objects are already outvoted there, and groups add to it. The decoder and the layers
# before the clustering can still separate such pixels, so this shows where losses are likely, not how large they are.

# %%
SCENES = [draw_scene(index) for index in VALIDATION[:6]]


def cluster_map(model, image):
    """Return the group of each pixel (H, W) after clustering."""
    preparation = Preparation.of(model, {})
    view, _ = preparation.views(image, next(model.parameters()))[0]
    return token_maps(model, view, preparation.windows).steps[0].group


def patch_map(image):
    """Return the patch of each pixel (H, W)."""
    rows, columns = (np.arange(side) // model.architecture.patch_size for side in image.shape[:2])
    return rows[:, None] * (columns[-1] + 1) + columns


def outvoted(groups, target):
    """Return whether most pixels of the group belong to another class, for each pixel (H, W)."""
    votes = np.zeros((groups.max() + 1, len(CLASSES)), dtype=int)
    np.add.at(votes, (groups, target), 1)
    return target != votes.argmax(axis=1)[groups]


groupings = {"patches": patch_map}
for side in (12, 8):
    clustered = with_reducer(model, TokenClustering(location=4, clusters=(side, side)))
    groupings[f"{side} x {side} clusters"] = lambda image, clustered=clustered: cluster_map(clustered, image)

positions = np.arange(len(CLASSES))
targets = np.concatenate([target.ravel() for _, target in SCENES])
figure, axes = plt.subplots(figsize=(11, 4.5), layout="constrained")
for number, (name, groups_of) in enumerate(groupings.items()):
    lost = np.concatenate([outvoted(groups_of(image), target).ravel() for image, target in SCENES])
    shares = [100 * lost[targets == index].mean() for index in positions]
    axes.bar(positions + 0.27 * (number - 1), shares, width=0.27, label=name)
axes.set_xticks(positions, CLASSES)
axes.set_ylabel("outvoted pixels, % of the class")
axes.set_title(f"pixels of another class than most of their group, {len(SCENES)} scenes")
axes.legend(frameon=False)
plt.show()
