"""``export``: write a model's forward pass over windows to a file that runs without this package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.cli import LightningArgumentParser

from ..benchmarking.crops import CropSource
from ..data.demo import Demo
from ..errors import ConfigError, DataError
from ..exporting import EXPORT_FILE, export
from ..files import claim_output
from .settings import EvaluationCLI


class ExportCLI(EvaluationCLI):
    """The options of ``export``, and the model and data of a config."""

    name = "export"
    uses_trainer = False

    def add_own_arguments(self, parser: LightningArgumentParser) -> None:
        """Add the options of the file."""
        add = parser.add_argument
        add("--format", type=Literal["torch", "onnx"], default="torch", help="model.pt2 or model.onnx")
        add("--batch", type=int | Literal["dynamic"], default="dynamic", help="batch size, or dynamic for any")
        add("--upsample", action="store_true", help="return logits per pixel instead of per patch")
        add("--crops", type=int, default=8, help="crops of the data set that the file is checked on")


def run(arguments: Sequence[str]) -> int:
    """Export a config's model, checked on crops of its data, or of the demo scenes if the data set is not here."""
    if any(word.startswith("--trainer") for word in arguments):
        raise ConfigError("export runs without Lightning's trainer: leave --trainer options out")
    cli = ExportCLI(arguments)
    config, data = cli.config, cli.datamodule
    if config.crops < 1:
        raise ConfigError(f"--crops is {config.crops}: it must be 1 or more")
    output = Path(config.output or Path("runs") / f"export_{cli.output.name}")
    claim_output(output, output / EXPORT_FILE, config.overwrite)
    model = cli.model.load_model()
    if model.classes is None and len(data.classes) == model.num_classes:
        model.classes = data.classes
    window = cli.model.build_sliding_window(model).window
    data.protocol = model.protocol
    try:
        samples = data.open_dataset(labels=False)
    except DataError:
        if data.root.exists():
            raise
        print(f"{type(data).__name__} is not at {data.root}: the file is checked on the bundled demo scenes")
        data = Demo(short_side=window, normalization=data.normalization)
        data.protocol = model.protocol
        samples = data.open_dataset(labels=False)
    report = export(
        model,
        output,
        CropSource(samples, (window, window), enlarge=True).batch(0, min(config.crops, len(samples))),
        format=config.format,
        batch=config.batch,
        upsample=config.upsample,
        normalization=data.used_normalization,
    )
    print(summary(report, output))
    return 0


def summary(report: dict[str, Any], output: Path) -> str:
    """Describe the file and the result of its check."""
    check = report["check"]
    batches = check["batches"]
    worst = max(batches, key=lambda batch: batch["max_abs_difference"])
    labels, wrong = batches[0]["labels"], max(batch["labels_differing"] for batch in batches)
    sizes = ", ".join(str(batch["batch_size"]) for batch in batches)
    return (
        f"{output / report['file']} computes what the model does: on {check['crops']} crops at batch sizes {sizes}, "
        f"logits differ by at most {worst['max_abs_difference']:.1e} (rounding explains {worst['tolerance']:.1e}), and "
        f"{labels - wrong} of {labels} labels are the same"
    )
