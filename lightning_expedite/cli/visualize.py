"""``visualize``: draw which patches share a token."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pytorch_lightning.cli import LightningArgumentParser

from ..benchmarking.variants import choose_device
from ..errors import ConfigError
from ..evaluation.token_maps import token_maps
from ..files import claim_output, write_atomically
from ..visualization import draw_token_maps, figure_bytes
from ..visualization.tokens import Style
from .settings import EvaluationCLI

TOKENS_FOLDER = "tokens"


class VisualizationCLI(EvaluationCLI):
    """The options of ``visualize``."""

    name = "visualize"
    uses_trainer = False

    def add_own_arguments(self, parser: LightningArgumentParser) -> None:
        """Add what to draw, and how."""
        add = parser.add_argument
        add("--images", type=str | None, default=None, help="draw all images of this folder instead of the data set's")
        add("--index", type=int | str | None, default=None, help="image numbers, from 0: 3 or 0,3 (default: the first)")
        add("--layers", type=int | str | None, default=None, help="layers, from 1: 4 or 4,8 (up to five that reduce)")
        add("--head", type=int, default=1, help="attention head, from 1, where each groups its own queries (ACT)")
        add("--style", type=Style, default="both", help="fill groups with their mean colour, outline them, or both")
        add("--svg", action="store_true", help="also write SVG files")
        add("--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="auto: a GPU if there is one")


def run(arguments: Sequence[str]) -> int:
    """Draw the token maps of the requested images."""
    cli = VisualizationCLI(arguments)
    config, module, data, folder = cli.config, cli.model, cli.datamodule, cli.output / TOKENS_FOLDER
    layers, device = read_numbers("layers", config.layers, 1), choose_device(config.device)
    numbers = read_numbers("index", config.index, 0)
    claim_output(cli.output, folder, config.overwrite)
    write_atomically(cli.output / "visualize.yaml", cli.resolved_config().encode())
    if config.images:
        data.read_images_from(Path(config.images))
    model = module.load_model().to(device)
    windows = module.build_sliding_window(model)
    data.protocol = model.protocol
    samples = data.open_dataset(labels=False)
    for number in numbers or (range(len(samples)) if config.images else [0]):
        if number >= len(samples):
            raise ConfigError(f"--index {number} does not exist: there are {len(samples)} images, counted from 0")
        sample = samples[number]
        maps = token_maps(model, sample["views"][0]["image"].to(device), windows, layers, config.head)
        figure = draw_token_maps(data.read_image(number), maps, config.style, str(model.reducer))
        for kind in ("png", "svg") if config.svg else ("png",):
            path = folder / f"{sample['name']}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, figure_bytes(figure, kind))
    print(f"figures are in {folder}")
    return 0


def read_numbers(option: str, value: int | str | None, least: int) -> list[int] | None:
    """Parse ``4`` or ``4,8``.

    Raises:
        ConfigError: The value is not a list of integers of at least ``least``.
    """
    if value is None:
        return None
    try:
        numbers = [int(number) for number in str(value).strip("[]()").split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < least:
        raise ConfigError(f"--{option} is {value!r}: expected integers of {least} or more, such as 4 or 4,8")
    return numbers
