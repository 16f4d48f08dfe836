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
# # A first look at token reduction
#
# The bundled demo model segments a synthetic road scene with all its tokens and with a token reducer. The figures show
# where the predictions differ, which tokens were merged, and how much mIoU that costs. Everything runs on a CPU in
# about a minute; nothing is downloaded.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
import torch

from lightning_expedite import ACT, EViT, TokenClustering, ToMe, load, segment, token_groups, with_reducer
from lightning_expedite.data.scenes import CLASSES, VALIDATION, draw_scene
from lightning_expedite.evaluation.metrics import SegmentationScores

# %% [markdown]
# ## Baseline and reduced model
#
# Three calls: load a model, add a reducer, segment an image. `segment` takes a path, a PIL image or an array and
# predicts what `lightning-expedite predict` does: it slides windows over the image and averages their logits.
# A reducer has no parameters, so both models share their weights.
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

image, target = draw_scene(VALIDATION[3])
baseline = load("demo")
reduced = with_reducer(baseline, reducer)
baseline_result, reduced_result = segment(baseline, image), segment(reduced, image)
print(reducer)
print(baseline_result)
print(f"{100 * np.mean(baseline_result.labels != reduced_result.labels):.1f} % of the pixels change their class")

# %%
baseline_result.compare(reduced_result, label=target)

# %% [markdown]
# ## Which tokens were merged
#
# Patches that share a token are filled with their mean colour and outlined. Reducers work within a window, so no group
# crosses its border. `what_the_clusters_see.ipynb` has more of these figures.

# %%
token_groups(reduced, image)

# %% [markdown]
# ## What it costs
#
# mIoU over eight scenes, which are too few to rank methods. `lightning-expedite test --config configs/demo_ours.yaml`
# and the other demo configs evaluate all 64.

# %%
SCENES = [draw_scene(index) for index in VALIDATION[:8]]


def evaluate(model):
    """Compute the scores of a model over the scenes."""
    metric = SegmentationScores(len(CLASSES))
    for image, target in SCENES:
        prediction = segment(model, image).labels.astype(np.int64)
        metric.update(torch.from_numpy(prediction)[None], torch.from_numpy(target)[None])
    return metric.compute()


baseline_scores = evaluate(baseline)
scores = {name: evaluate(with_reducer(baseline, reducer)) for name, reducer in REDUCERS.items()}

print(f"{'':<12}{'mIoU, %':>8}{'difference':>12}")
print(f"{'baseline':<12}{baseline_scores['mIoU']:>8.2f}")
for name, values in scores.items():
    print(f"{name:<12}{values['mIoU']:>8.2f}{values['mIoU'] - baseline_scores['mIoU']:>+12.2f}")

# %%
positions = np.arange(len(CLASSES))
figure, axes = plt.subplots(figsize=(11, 4.5), layout="constrained")
for number, (name, values) in enumerate(scores.items()):
    difference = (values["IoU"] - baseline_scores["IoU"]).numpy()
    axes.bar(positions + 0.2 * (number - 1.5), difference, width=0.2, label=name)
axes.axhline(0, color="black", linewidth=0.8)
axes.set_xticks(positions, CLASSES)
axes.set_ylabel("difference of IoU, points")
axes.set_title(f"IoU per class compared with the baseline, {len(SCENES)} scenes")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# Next: `compare_reducers.ipynb` evaluates and times many settings, `bring_your_own.ipynb` uses your own model, data and
# reducer.
