"""What can be used without the packages that only data sets, metrics and the command line need."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys

absent = ("cv2", "jsonargparse", "pytorch_lightning", "segmentation_models_pytorch", "torchmetrics")
for name in absent:
    sys.modules[name] = None  # importing it now raises ImportError

import torch
from lightning_expedite import load
from lightning_expedite.evaluation import SlidingWindow
from lightning_expedite.reducers import ToMe

model = load("demo", reducer=ToMe(0.3))
with torch.inference_mode():
    prediction = SlidingWindow(128, 64).predict(model, [(torch.rand(3, 128, 192), False)], (64, 96))
print(tuple(prediction.labels.shape), prediction.windows)
"""


def test_model_reducers_and_windows_need_torch_and_timm_alone() -> None:
    root = Path(__file__).parents[1]
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, cwd=root, timeout=120
    )
    assert answer.stderr == ""
    assert answer.stdout == "(64, 96) 2\n"
