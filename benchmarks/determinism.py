"""Measure how much settings that should not affect the scores change them.

    python benchmarks/determinism.py --output benchmarks/results/determinism.json

predicts the same images with the same models repeatedly, with other window batches, numbers of threads and precisions,
and compiled, one change at a time. It counts the pixels with another prediction and computes each mIoU.
``--quick`` uses two images and does not compile.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from lightning_expedite import load, reducers
from lightning_expedite.data import Demo
from lightning_expedite.data.samples import Sample
from lightning_expedite.evaluation import SlidingWindow
from lightning_expedite.evaluation.compiling import CompiledWindows, one_graph
from lightning_expedite.evaluation.environment import processor, source_commit
from lightning_expedite.evaluation.inference import run_windows
from lightning_expedite.evaluation.metrics import SegmentationScores
from lightning_expedite.files import write_atomically
from lightning_expedite.reducers import Reducer

ROOT = Path(__file__).parents[1]
CONFIGS = ("demo_none", "demo_ours", "demo_evit", "demo_tome", "demo_act")
IMAGES = 16


@dataclass(frozen=True)
class Settings:
    """How a model is run."""

    window_batch_size: int = 4
    threads: int = 1
    precision: str = "32-true"
    compile: bool = False


def comparisons(quick: bool) -> Iterator[tuple[str, Settings, Settings]]:
    """Return names of changes, with the settings before and after."""
    for precision in ("32-true", "bf16-true"):
        base = Settings(precision=precision)
        yield f"{precision}: once more", base, base
        for number in (1, 2, 8):
            yield f"{precision}: window_batch_size {number}", base, replace(base, window_batch_size=number)
        yield f"{precision}: 2 threads", base, replace(base, threads=2)
        if not quick:
            yield f"{precision}: compile true", base, replace(base, compile=True)
    yield "bf16-true for 32-true", Settings(), Settings(precision="bf16-true")


def reducer_of(config: str) -> Reducer | None:
    """Return the reducer of a demo config."""
    content = yaml.safe_load((ROOT / "configs" / f"{config}.yaml").read_text(encoding="utf-8"))
    given = content.get("model", {}).get("reducer")
    return getattr(reducers, given["class_path"])(**given["init_args"]) if given else None


def read_scenes(count: int) -> list[Sample]:
    """Return the first scenes of the bundled data set."""
    data = Demo(count=count, num_workers=0)
    data.setup("test")
    return [batch[0] for batch in data.test_dataloader()]


@torch.inference_mode()
def label(config: str, settings: Settings, samples: Sequence[Sample]) -> list[Tensor]:
    """Predict label maps ``(H, W)`` with a demo config's model and reducer."""
    torch.set_num_threads(settings.threads)
    model = load("demo", reducer=reducer_of(config))
    dtype = torch.bfloat16 if settings.precision == "bf16-true" else torch.float32
    model.to(dtype)
    protocol = model.protocol
    assert protocol is not None
    assert protocol.window is not None
    assert protocol.stride is not None
    forward = run_windows
    if settings.compile:
        torch.compiler.reset()
        fullgraph = one_graph(model.reducer)
        forward = CompiledWindows(protocol.window, settings.window_batch_size, "default", fullgraph)  # type: ignore[assignment]
    windows = SlidingWindow(protocol.window, protocol.stride, settings.window_batch_size, forward=forward)
    return [
        windows.predict(model, [(view["image"].to(dtype), view["mirrored"]) for view in sample["views"]], size).labels
        for sample in samples
        for size in [(sample["size"][0], sample["size"][1])]
    ]


def miou(labels: Sequence[Tensor], samples: Sequence[Sample]) -> float:
    """Return the mIoU of label maps in percent."""
    scores = SegmentationScores(len(Demo().classes))
    for one, sample in zip(labels, samples, strict=True):
        assert sample["label"] is not None
        scores.update(one[None], sample["label"][None])
    return float(scores.compute()["mIoU"])


def compare(config: str, samples: Sequence[Sample], quick: bool) -> Iterator[dict[str, Any]]:
    """Measure all changes on one config; settings shared by several are run once."""
    done: dict[Settings, list[Tensor]] = {}
    for name, before, after in comparisons(quick):
        if before not in done:
            done[before] = label(config, before, samples)
        others = label(config, after, samples) if after not in done or after == before else done[after]
        changed = sum(int((one != other).sum()) for one, other in zip(done[before], others, strict=True))
        scores = miou(done[before], samples), miou(others, samples)
        print(f"{config}: {name}: {changed} pixels, mIoU {scores[1] - scores[0]:+.4f}", file=sys.stderr, flush=True)
        yield {
            "config": config,
            "change": name,
            "before": asdict(before),
            "after": asdict(after),
            "pixels": sum(one.numel() for one in others),
            "changed": changed,
            "mIoU": list(scores),
        }


def environment() -> Mapping[str, Any]:
    """Return device, version and commit."""
    return {"device": processor(), "torch": torch.__version__, "commit": source_commit()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the results; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    parser.add_argument("--only", nargs="+", default=CONFIGS, choices=CONFIGS, help="demo configs, instead of all")
    parser.add_argument("--quick", action="store_true", help="two images, no compilation")
    known = parser.parse_args(arguments)
    samples = read_scenes(2 if known.quick else IMAGES)
    rows = [row for config in known.only for row in compare(config, samples, known.quick)]
    content = {"environment": environment(), "images": len(samples), "rows": rows}
    known.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(known.output, json.dumps(content, indent=1, allow_nan=False).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
