"""The options of ``benchmark``, and how they are read."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields

from pytorch_lightning.cli import LightningArgumentParser

from ..benchmarking import BenchmarkSettings
from ..benchmarking.variants import parse_precision
from ..errors import ConfigError
from .settings import CONFIG_OPTIONS, EvaluationCLI, config_name

logging.getLogger("lightning_fabric.utilities.seed").setLevel(logging.WARNING)  # else one line per config

PER_CONFIG = ("config", "base", "seed_everything", "trainer", "model", "data")
MOVED = ("--query_scale", "--act_gflops")


class BenchmarkCLI(EvaluationCLI):
    """The options of ``benchmark``, and one config's model and data."""

    name = "benchmark"
    uses_trainer = False

    def add_own_arguments(self, parser: LightningArgumentParser) -> None:
        """Add how to measure."""
        parser.add_class_arguments(BenchmarkSettings, instantiate=False)
        add = parser.add_argument
        add("--input_size", type=int | str | None, default=None, help="side, or H,W, in pixels (the config's window)")
        add("--threads", type=int | None, default=None, help="threads on the CPU (PyTorch's choice)")
        add("--whole_images", type=int, default=2, help="full images to time, including reading; 0 for none")
        add("--untrained", type=bool, default=False, help="random weights instead of the checkpoint's")


@dataclass(frozen=True)
class Options:
    """The options that apply to all configs, checked.

    ``root_given``: whether the user named the data's place, which must then exist.
    """

    settings: BenchmarkSettings
    input_size: tuple[int, int] | None
    whole_images: int
    untrained: bool
    root_given: bool


def split_configs(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate the configs, one row each, from the words that apply to all of them.

    Raises:
        ConfigError: A word belongs to Lightning's trainer, or is an option that has moved.
    """
    configs: list[str] = []
    words: list[str] = []
    given = iter(arguments)
    for word in given:
        option, equals, value = word.partition("=")
        if option in MOVED:
            raise ConfigError(f"{option} is now in benchmarks/scaled_queries.py, which scales the queries for ACT")
        if option in CONFIG_OPTIONS:
            configs.append(value if equals else next(given, ""))
        else:
            words.append(word)
    if any(word.startswith("--trainer") for word in words):
        raise ConfigError("benchmark runs without Lightning's trainer; use --device, --precision or --threads instead")
    return configs, words


def row_name(cli: BenchmarkCLI) -> str:
    """Return the name of a config's row."""
    return config_name(cli.config_files[-1]) if cli.config_files else cli.output.name


def read_options(clis: Sequence[BenchmarkCLI], words: Sequence[str]) -> Options:
    """Check the options that apply to all configs.

    Raises:
        ConfigError: An option is out of range, or two contradict each other.
    """
    require_agreement(clis)
    config = clis[0].config
    for name, least in (("threads", 1), ("whole_images", 0)):
        if config[name] is not None and config[name] < least:
            raise ConfigError(f"--{name} is {config[name]}: it must be {least} or more")
    if any(cli.model.compile_mode is not None for cli in clis):
        raise ConfigError("benchmark compiles both variants or none: use --compile instead of --model.compile")
    return Options(
        BenchmarkSettings(**{field.name: config[field.name] for field in fields(BenchmarkSettings)}),
        read_size(config.input_size),
        config.whole_images,
        config.untrained,
        any(word.startswith(("--data.root", "--data.images")) for word in words),
    )


def require_agreement(clis: Sequence[BenchmarkCLI]) -> None:
    """Raise `ConfigError` where configs differ in an option that applies to all, or ask for another precision."""
    first = clis[0].config
    for cli in clis:
        for name in vars(first):
            if name not in PER_CONFIG and cli.config[name] != first[name]:
                raise ConfigError(
                    f"--{name} is {cli.config[name]} in config {row_name(cli)} and {first[name]} in "
                    f"{row_name(clis[0])}, but applies to all: set it on the command line"
                )
        asked = cli.config.trainer.precision
        if asked is not None and parse_precision(asked) != first.precision:
            raise ConfigError(
                f"config {row_name(cli)} has trainer.precision {asked}, but benchmark runs without Lightning's "
                f"trainer, at --precision {first.precision}: make them agree"
            )


def read_size(value: int | str | None) -> tuple[int, int] | None:
    """Parse ``640`` or ``512,1024`` to height and width."""
    if value is None:
        return None
    try:
        sides = [int(part) for part in str(value).strip("[]()").split(",")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise ConfigError(f"--input_size is {value!r}: it must be a side or H,W in pixels, each 1 or more")
    return sides[0], sides[-1]
