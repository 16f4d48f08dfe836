"""Train the small Segmenter that comes with the package, on drawn road scenes.

    python scripts/train_demo.py

trains from scratch in about 40 minutes on two CPU cores, prints the mIoU on the validation
scenes and writes the weights that ``--model.checkpoint demo`` loads. Where other programs use the same cores,
set ``OMP_WAIT_POLICY=PASSIVE``: threads that spin while they wait for each other slow the training tenfold.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_expedite.data.scenes import CLASSES, SIZE, TRAINING, VALIDATION, draw_scene
from lightning_expedite.data.transforms import normalize
from lightning_expedite.evaluation import SlidingWindow
from lightning_expedite.evaluation.metrics import SegmentationScores
from lightning_expedite.models import Architecture, Segmenter, save_segmenter
from lightning_expedite.protocol import Protocol

WINDOW = 128  # attention over 16 x 16 patches is cheap, and a window shows enough of a scene
STRIDE = 64
CROPS_PER_SCENE = 4  # drawing a scene takes a third of the time that a crop's training takes
ARCHITECTURE = Architecture(
    image_size=(WINDOW, WINDOW),
    patch_size=8,
    width=128,
    depth=12,
    heads=2,
    num_classes=len(CLASSES),
    decoder="mask_transformer",
    decoder_width=128,
    decoder_depth=2,
    decoder_heads=2,
)
ASSETS = Path(__file__).resolve().parents[1] / "lightning_expedite" / "assets" / "demo_segmenter"

Sample = tuple[Tensor, Tensor]


class TrainingScenes(Dataset[Sample]):
    """Random crops of training scenes, mirrored half of the time.

    Args:
        scenes: Number of scenes; each is seen once.
        seed: Seed of the crops; the scenes themselves depend on their index alone.
    """

    def __init__(self, scenes: int, seed: int) -> None:
        if scenes > len(TRAINING):
            raise ValueError(f"{scenes} scenes are more than the {len(TRAINING)} training scenes")
        self.scenes = scenes
        self.seed = seed

    def __len__(self) -> int:
        return self.scenes

    def __getitem__(self, item: int) -> Sample:
        """Return the crops ``(C, 3, S, S)`` and labels ``(C, S, S)`` of one scene."""
        index = TRAINING[item]
        image, labels = draw_scene(index)
        rng = np.random.default_rng([self.seed, index])
        crops = [_crop(image, labels, rng) for _ in range(CROPS_PER_SCENE)]
        images, targets = zip(*crops, strict=True)
        return to_tensor(np.stack(images)), torch.from_numpy(np.stack(targets)).long()


class ValidationScenes(Dataset[Sample]):
    """Full validation scenes: images ``(3, H, W)`` and labels ``(H, W)``."""

    def __len__(self) -> int:
        return len(VALIDATION)

    def __getitem__(self, item: int) -> Sample:
        """Return one scene."""
        image, labels = draw_scene(VALIDATION[item])
        return to_tensor(image), torch.from_numpy(labels).long()


def _crop(image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cut a random square of a scene, mirrored half of the time."""
    top, left = (int(rng.integers(0, side - WINDOW + 1)) for side in SIZE)
    rows, columns = slice(top, top + WINDOW), slice(left, left + WINDOW)
    turn = slice(None, None, int(rng.choice((-1, 1))))
    return image[rows, columns][:, turn], labels[rows, columns][:, turn]


def to_tensor(images: np.ndarray) -> Tensor:
    """Turn RGB pictures ``(..., H, W, 3)`` in uint8 to normalised tensors ``(..., 3, H, W)``."""
    return torch.from_numpy(np.moveaxis(normalize(images, "vit"), -1, -3).copy())


class DemoTraining(pl.LightningModule):
    """Cross entropy on random crops; mIoU by sliding windows on the validation scenes.

    Args:
        steps: Length of the learning rate's schedule.
        learning_rate: Its peak, reached after the warm-up.
    """

    def __init__(self, steps: int, learning_rate: float) -> None:
        super().__init__()
        self.steps = steps
        self.learning_rate = learning_rate
        self.model = Segmenter(ARCHITECTURE, convention="mmseg")
        for block in self.model.decoder.blocks:
            # A CPU runs the backward pass of fused attention slower than that of the plain one.
            block.attn.fused_attn = torch.cuda.is_available()
        self.windows = SlidingWindow(WINDOW, STRIDE)
        self.scores = SegmentationScores(len(CLASSES))

    def training_step(self, batch: Sample, batch_index: int) -> Tensor:
        """Return the loss of a batch of crops ``(B, C, 3, S, S)`` with labels ``(B, C, S, S)``."""
        images, labels = (part.flatten(0, 1) for part in batch)
        loss = F.cross_entropy(self.model(images).float(), labels)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Sample, batch_index: int) -> None:
        """Segment full scenes and count their pixels."""
        for image, labels in zip(*batch, strict=True):
            height, width = labels.shape
            prediction = self.windows.predict(self.model, [(image, False)], (height, width))
            self.scores.update(prediction.labels[None], labels[None])

    def on_validation_epoch_end(self) -> None:
        """Report IoU of every class and their mean, in percent."""
        scores = self.scores.compute()
        self.scores.reset()
        self.log("miou", scores["mIoU"].float())
        report = ", ".join(f"{name} {iou:.1f}" for name, iou in zip(CLASSES, scores["IoU"].tolist(), strict=True))
        self.print(f"\nstep {self.global_step}: mIoU {scores['mIoU']:.2f} ({report})")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW without decay of biases, norms and embeddings; warm-up, then a cosine to nothing."""
        decayed = [weight for name, weight in self.model.named_parameters() if _decays(name, weight)]
        others = [weight for name, weight in self.model.named_parameters() if not _decays(name, weight)]
        groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _schedule(self, step: int) -> float:
        warm_up = max(1, self.steps // 20)
        return min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * min(step / self.steps, 1.0))))


def _decays(name: str, weight: Tensor) -> bool:
    """Whether weight decay applies to a parameter."""
    return weight.ndim > 1 and not name.endswith(("pos_embed", "cls_token", "cls_emb"))


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ASSETS, help="folder of the trained model")
    parser.add_argument("--runs", type=Path, default=Path("runs/demo"), help="folder of checkpoints")
    parser.add_argument("--steps", type=int, default=3000, help="training steps")
    parser.add_argument("--batch", type=int, default=16, help="crops in a batch")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--precision", default="bf16-mixed", help="as Lightning's Trainer takes it")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes")
    parser.add_argument("--validate-every", type=int, default=1000, help="steps between validations")
    parser.add_argument("--resume", type=Path, help="checkpoint of an interrupted training")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, validate and save."""
    options = parse_arguments(arguments)
    pl.seed_everything(0, workers=True)
    cv2.setNumThreads(0)  # the cores are busy with training
    scenes_per_batch = max(1, options.batch // CROPS_PER_SCENE)
    training = DataLoader(
        TrainingScenes(options.steps * scenes_per_batch, seed=0),
        batch_size=scenes_per_batch,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
    )
    validation = DataLoader(ValidationScenes(), batch_size=1)
    module = DemoTraining(options.steps, options.learning_rate)
    trainer = pl.Trainer(
        max_steps=options.steps,
        precision=options.precision,
        gradient_clip_val=1.0,
        val_check_interval=min(options.validate_every, options.steps),
        num_sanity_val_steps=0,
        log_every_n_steps=50,
        logger=False,
        callbacks=[
            ModelCheckpoint(options.runs, every_n_train_steps=250, save_last=True, save_top_k=1),
            TQDMProgressBar(refresh_rate=50),
        ],
    )
    trainer.fit(module, training, validation, ckpt_path=options.resume)
    file = save_segmenter(
        module.model,
        options.output,
        Protocol(short_side=None, window=WINDOW, stride=STRIDE, normalization="vit"),
        dtype=torch.float16,
    )
    trainer.validate(module, validation, verbose=False)
    print(f"saved {file} ({file.stat().st_size / 2**20:.2f} MiB)")


if __name__ == "__main__":
    main()
