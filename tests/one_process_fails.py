"""Callbacks that make the second of two processes fail."""

from dataclasses import replace

import torch
from pytorch_lightning import Callback

from lightning_expedite.evaluation.inference import run_windows


def narrow(model, windows):
    if len(windows) > 2:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return run_windows(model, windows)


class OutOfMemory(Callback):
    def on_test_start(self, trainer, pl_module):
        if trainer.global_rank == 1:
            pl_module.sliding_window = replace(pl_module.sliding_window, forward=narrow)


class NaN(Callback):
    def on_test_batch_start(self, trainer, pl_module, batch, *_):
        if trainer.global_rank == 1:
            batch[0]["views"][0]["image"].fill_(torch.nan)
