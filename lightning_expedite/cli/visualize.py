"""``visualize``: draw which patches share a token."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.cli import LightningArgumentParser

from ..data.dataset import SampleDataset
from ..errors import ConfigError
from ..evaluation.output import claim_output
from ..evaluation.token_maps import token_maps
from ..files import write_atomically
from ..models.segmenter import build_segmenter, read_checkpoint
from ..models.segmenter.weights import resolve_checkpoint
from ..visualization import draw_token_maps, figure_bytes
from ..visualization.tokens import Style
from .benchmark_options import choose_device
from .settings import EvaluationCLI

TOKENS_FOLDER = "tokens"


class VisualizationCLI(EvaluationCLI):
    """The options of ``visualize``."""

    name = "visualize"

    def add_own_arguments(self, parser: LightningArgumentParser) -> None:
        """Add what to draw, and how."""
        add = parser.add_argument
        add("--images", type=str | None, default=None, help="folder of images instead of the data set's: all are drawn")
        add("--index", type=int | str | None, default=None, help="numbers of images, from 0: 3 or 0,3 (the first one)")
        add("--layers", type=int | str | None, default=None, help="layers, from 1: 4 or 4,8 (up to five that reduce)")
        add("--head", type=int, default=1, help="head, from 1, where each groups queries for itself (ACT)")
        add("--style", type=Style, default="both", help="groups in their mean colour, borders between them, or both")
        add("--svg", action="store_true", help="also write SVG files")
        add("--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="auto takes a GPU where there is one")

    def instantiate_trainer(self, **_: Any) -> Any:
        """Make no trainer: what is drawn here runs without one."""
        return None


def run(arguments: Sequence[str]) -> int:
    """Draw the groups of every image asked for."""
    cli = VisualizationCLI(arguments)
    config = cli.config
    layers, device = read_numbers("layers", config.layers, 1), choose_device(config.device)
    images = read_numbers("index", config.index, 0) or (None if config.images else [0])
    claim_output(cli.output, cli.output / TOKENS_FOLDER, config.overwrite)
    write_atomically(cli.output / "visualize.yaml", cli.resolved_config().encode())
    samples = open_images(cli)
    module = cli.model
    checkpoint = read_checkpoint(resolve_checkpoint(module.checkpoint, module.weights_folder))
    model = build_segmenter(checkpoint, module.reducer, module.convention).to(device)
    windows = module.build_sliding_window(model)
    for number in images if images is not None else range(len(samples)):
        if number >= len(samples):
            raise ConfigError(f"--index {number} does not exist: there are {len(samples)} images, counted from 0")
        sample = samples[number]
        view = sample["views"][0]["image"].to(device)
        maps = token_maps(model, view, windows, layers, config.head)
        figure = draw_token_maps(cli.datamodule.read_image(number), maps, config.style, f"{model.reducer}")
        for kind in ("png", "svg") if config.svg else ("png",):
            path = cli.output / TOKENS_FOLDER / f"{sample['name']}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, figure_bytes(figure, kind))
    print(f"pictures are in {cli.output / TOKENS_FOLDER}")
    return 0


def open_images(cli: VisualizationCLI) -> SampleDataset:
    """List the images, resized as an evaluation does.

    Raises:
        DataError: The data set or the folder is missing or damaged.
    """
    data = cli.datamodule
    if cli.config.images:
        data.read_images_from(Path(cli.config.images))
    data.protocol = cli.model.protocol
    return data.open_dataset(labels=False)


def read_numbers(option: str, value: int | str | None, least: int) -> list[int] | None:
    """Turn ``4`` or ``4,8`` into numbers.

    Raises:
        ConfigError: It is no list of whole numbers of at least ``least``.
    """
    if value is None:
        return None
    try:
        numbers = [int(part) for part in str(value).strip("[]()").split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < least:
        raise ConfigError(f"--{option} is {value!r}: give whole numbers of {least} or more, such as 4 or 4,8")
    return numbers
