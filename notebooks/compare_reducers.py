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
# # Compare reducers
#
# How much accuracy does each reducer take for the time it gives? A *sweep* scores and times one model with many
# settings; a *Pareto front* shows those that no other beats. This notebook makes a small one with the bundled model
# and four of the bundled scenes, in one or two minutes on a CPU.

# %%
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import yaml

import lightning_expedite
from lightning_expedite.reporting.front import pareto_front
from lightning_expedite.reporting.runs import read_runs

ROOT = Path(lightning_expedite.__file__).parents[1]
FOLDER = Path(tempfile.mkdtemp(prefix="compare_reducers_"))


def expedite(*words):
    """Run `python -m lightning_expedite` with some words."""
    command = [sys.executable, "-m", "lightning_expedite", *map(str, words)]
    plain = {name: value for name, value in os.environ.items() if not name.endswith(("FORCE_COLOR", "COLOR_FORCE"))}
    environment = {**plain, "NO_COLOR": "1", "COLUMNS": "130"}
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if answer.returncode != 0:
        raise RuntimeError(answer.stdout + answer.stderr)
    return answer.stdout


# %% [markdown]
# ## The grid
#
# A grid is a YAML file that lists reducers. Values below `grid` are combined, and those below `points` are taken as
# they are.

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
# Each point has a folder with the config that it stands for, its scores and its times. A sweep that was stopped is
# taken up by the same command.
#
# ## The figures
#
# `read_runs` brings scores and times of the same setting together. Its speed-up is that over the model without a
# reducer, timed in turns with it.

# %%
runs = read_runs([sweep])
unreduced = next(run for run in runs if run.reducer is None)
full = unreduced.test.content["scores"]["mIoU"]
print(f"{'':<50}{'mIoU %':>8}{'lost':>7}{'FLOP ratio':>12}{'speed-up':>10}")
print(f"{unreduced.label:<50}{full:>8.2f}")
points = []
for run in runs:
    if run.reducer is None:
        continue
    miou, row = run.test.content["scores"]["mIoU"], run.speed.row
    speedup = row["latency"]["speedup"]["median"]
    points.append((run, speedup, miou))
    print(f"{run.label:<50}{miou:>8.2f}{full - miou:>7.2f}{row['gflops']['ratio']:>12.2f}{speedup:>10.2f}")

# %% [markdown]
# ## The Pareto front
#
# A setting is on the front when no other is both faster and more accurate. Everything below the line is beaten by
# something on it. Where on the front to be is a question of what a point of mIoU is worth to you; a setting off it is
# never the answer.

# %%
everything = [("none", 1.0, full), *((run.method, speedup, miou) for run, speedup, miou in points)]
front = [everything[index] for index in pareto_front([(1 / speedup, miou) for _, speedup, miou in everything])]

figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
for method in dict.fromkeys(name for name, _, _ in everything):
    places = [(speedup, miou) for name, speedup, miou in everything if name == method]
    axes.scatter(*zip(*places, strict=True), s=50, label=method, zorder=3)
axes.plot([speedup for _, speedup, _ in front], [miou for _, _, miou in front], color="0.5", linewidth=1)
axes.set_xlabel("speed-up over the unreduced model (latency at batch 1, CPU, float32)")
axes.set_ylabel("mIoU, %")
axes.grid(color="0.92")
axes.set_axisbelow(True)
axes.legend(frameon=False)
axes.set_title("the bundled model on four drawn scenes")
plt.show()

# %% [markdown]
# ## The same as a page, and as an answer
#
# `report` makes a page with tables, fronts and pictures of the same results; `recommend` names the fastest setting
# within a loss. With four images it has reason to warn: whether a difference of a point is more than chance, it says
# too.

# %%
expedite("report", sweep, "--output", FOLDER / "report")
print(*sorted(path.name for path in (FOLDER / "report").iterdir()), sep="\n")

# %%
print(expedite("recommend", sweep, "--max_loss", 8))

# %% [markdown]
# For a decision: your own model and images (`--config` of your own), all of them rather than four, the machine that
# will run the model, more settings (`configs/grids` has examples), and more time for each pair than three seconds.
