"""The options of ``benchmark``, and how they are read."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pytorch_lightning.cli import LightningArgumentParser

from ..benchmarking.benchmark import BenchmarkSettings
from ..benchmarking.sides import Compile, Precision
from ..benchmarking.timing import FEWEST_PAIRS
from ..errors import ConfigError
from ..reducers import ACT
from .settings import CONFIG_OPTIONS, EvaluationCLI
from .settings import config_name as name_of_file

logging.getLogger("lightning_fabric.utilities.seed").setLevel(logging.WARNING)  # else it has a word for each config

OF_ONE_CONFIG = ("config", "base", "seed_everything", "trainer", "model", "data")
LIGHTNINGS_SHORT = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}  # what its trainer takes them for


class BenchmarkCLI(EvaluationCLI):
    """The options of ``benchmark``, and one config's model and data."""

    name = "benchmark"

    def add_own_arguments(self, parser: LightningArgumentParser) -> None:
        """Add how to measure."""
        add = parser.add_argument
        add("--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="auto takes a GPU where there is one")
        add("--precision", type=Precision, default="32-true", help="as Lightning's trainer names it")
        add("--batch_size", type=int | Literal["auto"], default="auto", help="images per batch of the throughput")
        add("--input_size", type=int | str | None, default=None, help="side, or H,W, in pixels (the config's window)")
        add("--compile", type=Compile, default=False, help="torch.compile on both sides: false, true or a mode")
        add("--iterations", type=int, default=20, help="pairs of passes to time")
        add("--seconds", type=float, default=60.0, help=f"time per config; {FEWEST_PAIRS} pairs are timed in any case")
        add("--warmup", type=int, default=2, help="passes of each side before any is timed")
        add("--threads", type=int | None, default=None, help="threads on the CPU (PyTorch's choice)")
        add("--whole_images", type=int, default=2, help="images that are labelled whole, with reading; 0 skips that")
        add("--untrained", type=bool, default=False, help="random weights instead of the checkpoint's")
        add("--query_scale", type=float, default=1.0, help="factor of the encoder's query weights")
        add("--act_gflops", type=float | None, default=None, help="find the factor that makes ACT cost so many GFLOPs")

    def instantiate_trainer(self, **_: Any) -> Any:
        """Make no trainer: what is timed here runs without one."""
        return None


@dataclass(frozen=True)
class Options:
    """The options that hold for all configs, checked."""

    settings: BenchmarkSettings
    input_size: tuple[int, int] | None
    whole_images: int
    untrained: bool
    query_scale: float
    act_gflops: float | None
    root_given: bool  # whether the user named the data's place: then it has to be there


def split_configs(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part the configs, each of which makes a row, from the words that apply to all of them.

    Raises:
        ConfigError: There are words for Lightning's trainer.
    """
    configs: list[str] = []
    words: list[str] = []
    given = iter(arguments)
    for word in given:
        option, equals, value = word.partition("=")
        if option in CONFIG_OPTIONS:
            configs.append(value if equals else next(given, ""))
        else:
            words.append(word)
    if any(word.startswith("--trainer") for word in words):
        raise ConfigError("benchmark runs without Lightning's trainer; give --device, --precision or --threads instead")
    return configs, words


def config_name(cli: BenchmarkCLI) -> str:
    """Give the name of a config's row."""
    return name_of_file(cli.config_files[-1]) if cli.config_files else cli.output.name


def read_options(clis: Sequence[BenchmarkCLI], words: Sequence[str]) -> Options:
    """Check the options that hold for all configs.

    Raises:
        ConfigError: One of them is out of its range, or two contradict each other.
    """
    require_agreement(clis)
    config = clis[0].config
    for name, least in (("iterations", FEWEST_PAIRS), ("warmup", 1), ("threads", 1), ("whole_images", 0)):
        value = getattr(config, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name} is {value}: it must be {least} or more")
    if config.batch_size != "auto" and config.batch_size < 1:
        raise ConfigError(f"--batch_size is {config.batch_size}: it must be auto or 1 or more")
    for name in ("seconds", "query_scale", "act_gflops"):
        value = getattr(config, name)
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ConfigError(f"--{name} is {value}: it must be above 0")
    if config.act_gflops is not None and config.query_scale != 1:
        raise ConfigError("--act_gflops finds the factor that --query_scale gives: leave one of them out")
    if config.act_gflops is not None and not any(isinstance(cli.model.reducer, ACT) for cli in clis):
        raise ConfigError("--act_gflops sets what ACT costs, but no config has the reducer ACT: leave it out")
    if any(cli.model.compile_mode is not None for cli in clis):
        raise ConfigError("benchmark compiles both sides or none: give --compile instead of --model.compile")
    return Options(
        BenchmarkSettings(
            choose_device(config.device),
            config.precision,
            config.batch_size,
            config.compile,
            config.iterations,
            config.seconds,
            config.warmup,
        ),
        read_size(config.input_size),
        config.whole_images,
        config.untrained,
        config.query_scale,
        config.act_gflops,
        any(word.startswith(("--data.root", "--data.images")) for word in words),
    )


def require_agreement(clis: Sequence[BenchmarkCLI]) -> None:
    """Raise `ConfigError` where configs differ in an option that holds for all, or from the precision used."""
    first = clis[0].config
    for cli in clis:
        for name in vars(first):
            if name not in OF_ONE_CONFIG and cli.config[name] != first[name]:
                raise ConfigError(
                    f"--{name} is {cli.config[name]} in config {config_name(cli)} and {first[name]} in "
                    f"{config_name(clis[0])}, but holds for all: give it on the command line"
                )
        asked = cli.config.trainer.precision
        if asked is not None and LIGHTNINGS_SHORT.get(str(asked), str(asked)) != first.precision:
            raise ConfigError(
                f"config {config_name(cli)} has trainer.precision {asked}, but benchmark runs without Lightning's "
                f"trainer, at --precision {first.precision}: make them agree"
            )


def choose_device(name: str) -> torch.device:
    """Turn the option into a device that is there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: PyTorch sees no CUDA device here; give --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name, 0) if name == "cuda" else torch.device(name)


def read_size(value: int | str | None) -> tuple[int, int] | None:
    """Turn ``640`` or ``512,1024`` into height and width."""
    if value is None:
        return None
    try:
        sides = [int(part) for part in str(value).strip("[]()").split(",")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise ConfigError(f"--input_size is {value!r}: it must be a side or H,W in pixels, each 1 or more")
    return sides[0], sides[-1]
