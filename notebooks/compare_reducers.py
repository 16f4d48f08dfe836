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
# # Compare reducers
#
# How much mIoU does each reducer cost, and how much time does it save? A *sweep* evaluates and benchmarks one model
# with many settings; the *Pareto front* holds the settings that no other beats. This notebook runs a small sweep with
# the bundled model on four bundled scenes, in one to two minutes on a CPU.

# %%
# %matplotlib inline
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import yaml

import lightning_expedite
from lightning_expedite.analysis.front import pareto_front
from lightning_expedite.analysis.results import read_results

ROOT = Path(lightning_expedite.__file__).parents[1]
FOLDER = Path(tempfile.mkdtemp(prefix="compare_reducers_"))


def expedite(*arguments):
    """Run `lightning-expedite` and return what it prints."""
    command = [sys.executable, "-m", "lightning_expedite", *map(str, arguments)]
    kept = {name: value for name, value in os.environ.items() if not name.endswith(("FORCE_COLOR", "COLOR_FORCE"))}
    environment = {**kept, "NO_COLOR": "1", "COLUMNS": "130"}
    process = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if process.returncode != 0:
        raise RuntimeError(process.stdout + process.stderr)
    return process.stdout


# %% [markdown]
# ## The grid
#
# A grid is a YAML file that lists reducers. Values below `grid` are combined, those below `points` are taken as they
# are. The baseline is always a point of its own.

# %%
GRID = [
    {"class_path": "TokenClustering", "init_args": {"location": 4}, "grid": {"clusters": [[8, 8], [12, 12]]}},
    {"class_path": "EViT", "init_args": {"locations": [4, 7, 10]}, "grid": {"keep_rate": [0.6, 0.8]}},
    {"class_path": "ToMe", "grid": {"ratio": [0.25, 0.5]}},
    {"class_path": "ACT", "points": [{"query_hashes": 16}]},
]
grid = FOLDER / "grid.yaml"
grid.write_text(yaml.safe_dump(GRID))

sweep = FOLDER / "sweep"
data = ("--data.count", 4, "--data.num_workers", 0, "--trainer.accelerator", "cpu", "--trainer.devices", 1)
speed = ("--benchmark.device", "cpu", "--benchmark.batch_size", 1, "--benchmark.seconds", 3)
expedite("sweep", "--config", ROOT / "configs/demo_none.yaml", "--grid", grid, "--output", sweep, *data, *speed)
print(*sorted(path.name for path in (sweep / "points").iterdir()), sep="\n")

# %% [markdown]
# Each point has a folder with its config, scores and times. The same command resumes an interrupted sweep.
#
# ## The results
#
# `read_results` returns one pandas table with the scores and times of each setting. The speed-up is relative to the
# baseline, which is timed alternately with each reduced model.

# %%
table = read_results([sweep])
table[["label", "mIoU", "mIoU_difference", "flop_ratio", "speedup"]].round(2)

# %% [markdown]
# ## The Pareto front
#
# A setting is on the front if no other is both faster and more accurate. Which point of the front to choose depends on
# what a point of mIoU is worth to you; a setting below it is never the best choice.

# %%
front = table.iloc[pareto_front(list(zip(1 / table["speedup"], table["mIoU"], strict=True)))]

figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
for method, settings in table.groupby("method", sort=False):
    axes.scatter(settings["speedup"], settings["mIoU"], s=50, label=method, zorder=3)
axes.plot(front["speedup"], front["mIoU"], color="0.5", linewidth=1)
axes.set_xlabel("speed-up over the baseline (latency at batch 1, CPU, float32)")
axes.set_ylabel("mIoU, %")
axes.grid(color="0.92")
axes.set_axisbelow(True)
axes.legend(frameon=False)
axes.set_title("bundled model, four synthetic scenes")
plt.show()

# %% [markdown]
# ## Report and recommendation
#
# `report` writes a page with tables, fronts and figures of the same results; `recommend` names the fastest setting
# within a loss, and how certain the choice is. With four images it has to warn.

# %%
expedite("report", sweep, "--output", FOLDER / "report")
print(*sorted(path.name for path in (FOLDER / "report").iterdir()), sep="\n")

# %%
print(expedite("recommend", sweep, "--max_loss", 8))

# %% [markdown]
# To decide for real: your own model and images (a `--config` of your own), all images instead of four, the machine
# that will run the model, more settings (`configs/grids` has examples), and more than three seconds per benchmark.
