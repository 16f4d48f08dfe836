"""``export``: write a model's window forward as a file that runs without this package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.cli import LightningArgumentParser
from torch import Tensor

from ..benchmarking.crops import CropSource, require_content
from ..data.base import SegmentationDataModule
from ..data.demo import Demo
from ..errors import ConfigError, DataError
from ..evaluation.output import claim_output
from ..exporting import EXPORT_FILE, export
from ..models.segmenter import load_segmenter
from .benchmark import open_data
from .settings import EvaluationCLI


class ExportCLI(EvaluationCLI):
    """The options of ``export``, and the model and data of a config."""

    name = "export"

    def add_own_arguments(self, parser: LightningArgumentParser) -> None:
        """Add what to write."""
        add = parser.add_argument
        add("--format", type=Literal["torch", "onnx"], default="torch", help="model.pt2 or model.onnx")
        add(
            "--batch",
            type=int | Literal["dynamic"],
            default="dynamic",
            help="windows at once, or dynamic for any number",
        )
        add("--upsample", action="store_true", help="give logits for every pixel instead of every patch")
        add("--crops", type=int, default=8, help="crops of the data set that the file is checked on")

    def instantiate_trainer(self, **_: Any) -> Any:
        """Make no trainer: nothing is evaluated."""
        return None


def run(arguments: Sequence[str]) -> int:
    """Export a config's model, checked on crops of its data."""
    if any(word.startswith("--trainer") for word in arguments):
        raise ConfigError("export runs without Lightning's trainer: leave --trainer options out")
    cli = ExportCLI(arguments)
    config, module = cli.config, cli.model
    if config.crops < 1:
        raise ConfigError(f"--crops is {config.crops}: it must be 1 or more")
    output = Path(config.output or Path("runs") / f"export_{cli.output.name}")
    claim_output(output, output / EXPORT_FILE, config.overwrite)
    model = load_segmenter(
        module.checkpoint,
        reducer=module.reducer,
        convention=module.convention,
        weights_folder=module.weights_folder,
    )
    window = module.build_sliding_window(model).window
    data, crops = real_crops(cli, window, config.crops)
    named = cli.datamodule.classes
    model.classes = model.classes or (named if len(named) == model.num_classes else None)
    report = export(
        model,
        output,
        crops,
        format=config.format,
        batch=config.batch,
        upsample=config.upsample,
        normalization=data.used_normalization,
    )
    print(summary(report, output))
    return 0


def real_crops(cli: ExportCLI, window: int, count: int) -> tuple[SegmentationDataModule, Tensor]:
    """Give a config's data and crops ``(count, 3, window, window)`` of them; the demo scenes where there are none."""
    data = cli.datamodule
    try:
        samples = open_data(data, cli.model)
    except DataError:
        if data.root.exists():
            raise
        print(f"{type(data).__name__} is not at {data.root}: the file is checked on the bundled demo scenes")
        data = Demo(short_side=window, normalization=data.normalization)
        samples = open_data(data, cli.model)
    crops = CropSource(samples, (window, window), enlarge=True)
    return data, require_content(crops.batch(0, min(count, len(samples))))


def summary(report: dict[str, Any], output: Path) -> str:
    """Say where the file is and what the check found."""
    check = report["check"]
    batches = check["batches"]
    worst = max(batches, key=lambda one: one["max_abs_difference"])
    labels, wrong = batches[0]["labels"], max(one["labels_differing"] for one in batches)
    sizes = ", ".join(str(one["batch_size"]) for one in batches)
    return (
        f"{output / report['file']} computes what the model does: on {check['crops']} crops at batch sizes {sizes}, "
        f"logits differ by at most {worst['max_abs_difference']:.1e} (rounding explains {worst['tolerance']:.1e}), and "
        f"{labels - wrong} of {labels} labels are the same"
    )
