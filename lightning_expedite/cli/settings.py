"""Lightning's command line as this project's commands use it, and the configs it reads."""

import argparse
import logging
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from .. import reducers  # noqa: F401 (imported so that its classes can be named)
from ..data import import_data_sets
from ..data.base import SegmentationDataModule
from ..errors import ConfigError, nearest
from ..evaluation import SegmenterModule
from ..evaluation.progress import ImageProgress
from ..files import POINT_FILE, read_yaml
from . import SUBCOMMANDS
from .parser import PROGRAM, ShortErrors
from .values import check_values

import_data_sets()  # so that their classes can be named

CONFIG_OPTIONS = ("--config", "-c")
BUNDLED_CONFIGS = Path(__file__).parents[1] / "assets" / "configs"
TRAINER_OPTIONS = {
    *("accelerator", "devices", "num_nodes", "strategy", "precision", "plugins", "deterministic", "barebones"),
    *("limit_test_batches", "limit_predict_batches", "fast_dev_run"),
    *("logger", "callbacks", "profiler", "enable_progress_bar"),
}
"""Options of Lightning's trainer that matter to an evaluation; the others are accepted, but not listed."""
_HELP = {
    "config": "config file; may be repeated, later ones override earlier ones",
    "seed_everything": "seed of all random numbers; true draws one",
}

# results.json has the devices; without this, a run starts with a page of Lightning's remarks.
logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", ".*LeafSpec.*", module="pytorch_lightning.*")


class EvaluationParser(ShortErrors, LightningArgumentParser):
    """Lightning's parser with errors in one line."""


class _ParserOnlyError(Exception):
    """Ends the construction of an `EvaluationCLI` once its parser exists."""


class EvaluationCLI(LightningCLI):
    """LightningCLI with the project's model and data, an output folder and composed configs.

    Args:
        arguments: Words of the command line after the command's name.
    """

    name = "test"
    logs = False  # whether there is a logger where none is named
    uses_trainer = True

    def __init__(self, arguments: Sequence[str] | None) -> None:
        words, self.config_files = expand_configs(arguments or ())
        self._is_parser_only = arguments is None
        program = f"{PROGRAM} {self.name}"
        super().__init__(
            SegmenterModule,
            SegmentationDataModule,
            subclass_mode_data=True,
            save_config_callback=None,  # the resolved config is written beside the results
            seed_everything_default=0,
            trainer_defaults={
                "logger": self.logs,
                "enable_checkpointing": False,
                "enable_model_summary": False,
                "callbacks": [ImageProgress()],
            },
            parser_class=EvaluationParser,
            parser_kwargs={"prog": program, "usage": f"{program} [options]", "description": SUBCOMMANDS.get(self.name)},
            args=words,
            run=False,
            auto_configure_optimizers=False,
        )

    @classmethod
    def make_parser(cls) -> LightningArgumentParser:
        """Return the command's parser; neither a model nor a trainer is made."""
        cli = cls.__new__(cls)
        try:
            cls.__init__(cli, None)
        except _ParserOnlyError:
            return cli.parser
        raise AssertionError

    def setup_parser(self, *arguments: Any) -> None:
        """Create the parser, and stop there for `make_parser`."""
        super().setup_parser(*arguments)
        if self._is_parser_only:
            raise _ParserOnlyError

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the words given; Lightning's own version warns that they are not those of the process."""
        self.config = parser.parse_args(args)
        check_values(self.config)
        trainer = self.config.trainer
        if trainer.barebones:  # without anything that Lightning refuses beside it
            trainer.logger = trainer.enable_checkpointing = trainer.enable_model_summary = False
        if trainer.enable_progress_bar is False or trainer.barebones:
            del self.trainer_defaults["callbacks"]

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Create the trainer, ``None`` for commands that need none; raises `ConfigError` for refused settings."""
        if not self.uses_trainer:
            return None  # type: ignore[return-value]
        if "LOCAL_WORLD_SIZE" in os.environ and self.config_init.trainer.devices == "auto":
            # On a CPU, auto is one device: each process that torchrun started would work alone.
            kwargs["devices"] = int(os.environ["LOCAL_WORLD_SIZE"])
            kwargs["num_nodes"] = int(os.environ["WORLD_SIZE"]) // kwargs["devices"]
        try:
            trainer = super().instantiate_trainer(**kwargs)
            environment = getattr(trainer.strategy, "cluster_environment", None)
            if environment is not None:
                environment.validate_settings(trainer.num_devices, trainer.num_nodes)
        except (ValueError, TypeError, RuntimeError) as error:
            raise ConfigError(f"the trainer's settings cannot work: {error}") from error
        tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
        if tasks > 1 and trainer.world_size == 1 and SLURMEnvironment.detect():
            raise ConfigError(
                f"Slurm started {tasks} processes, but the trainer has one device: set --trainer.devices with the "
                "tasks per node, and --trainer.num_nodes"
            )
        return trainer

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add trainer, model and data; in the help the trainer comes last, without its training options."""
        super().add_core_arguments_to_parser(parser)
        shown = {f"trainer.{option}" for option in TRAINER_OPTIONS} if self.uses_trainer else set[str]()
        for action in parser._actions:
            if action.dest.partition(".")[0] == "trainer" and action.dest not in shown:
                action.help = argparse.SUPPRESS
            action.help = _HELP.get(action.dest, action.help)
        groups: list[Any] = parser._action_groups  # type: ignore[assignment]
        for group in [group for group in groups if group.title and "training" in group.title]:
            group.title, group.description = "Lightning's trainer", None
            groups.remove(group)
            groups.append(group)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add where to write."""
        parser.add_argument("--base", type=list[str], default=[], help="in a config: configs that are read before it")
        parser.add_argument("--output", type=str | None, default=None, help="folder for results (runs/<config name>)")
        parser.add_argument("--overwrite", action="store_true", help="replace existing results")
        self.add_own_arguments(parser)

    def add_own_arguments(self, parser: LightningArgumentParser) -> None:
        """Add the options of one command."""

    @property
    def output(self) -> Path:
        """Folder that the run writes to."""
        if self.config.output:
            return Path(self.config.output)
        return Path("runs") / (config_name(self.config_files[-1]) if self.config_files else "unnamed")

    def resolved_config(self) -> str:
        """Return all settings as YAML, defaults included, except where it writes and what it shows."""
        config = self.config.clone()
        for key in ("config", "base", "output", "overwrite", "resume", "log_images", "log_changes"):
            config.pop(key, None)
        text = self.parser.dump(config, skip_none=False, skip_validation=True)
        # jsonargparse names a class by its shortest path; results have always had the reducers' own.
        return re.sub(r"class_path: lightning_expedite\.(?=[A-Z])", "class_path: lightning_expedite.reducers.", text)


def config_name(config: Path) -> str:
    """Return a config's name: its file's, or its folder's for the point of a sweep."""
    return config.absolute().parent.name if config.name == POINT_FILE else config.stem


def find_config(name: str) -> Path:
    """Return the file of a config as named, or one of the package's: ``demo_ours``, ``configs/demo_ours.yaml``."""
    path = Path(name)
    if not path.name or path.is_absolute() or ".." in path.parts or os.path.exists(name):  # noqa: PTH110 (any text)
        return path
    bundled = BUNDLED_CONFIGS / Path(*path.parts[path.parts[0] == "configs" :]).with_suffix(".yaml")
    return bundled if os.path.exists(bundled) else path  # noqa: PTH110


def expand_configs(arguments: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Put the configs that a config builds on (its ``base``) before it, each once, and brackets around ``8,8``.

    Args:
        arguments: Words of the command line.

    Returns:
        The words with every ``--config FILE`` preceded by those of its bases, and the configs named by the user.

    Raises:
        ConfigError: A config is missing, unreadable or builds on itself.
    """
    words: list[str] = []
    named: list[Path] = []
    read: list[Path] = []
    given = iter(arguments)
    for word in given:
        option, equals, value = word.partition("=")
        if option == "--base":
            raise ConfigError("--base belongs in a config file; on the command line repeat --config")
        if option not in CONFIG_OPTIONS:
            words.append(_with_brackets(words[-1] if words else "", word))
            continue
        path = find_config(value if equals else next(given, ""))
        named.append(path)
        for config in with_bases(path):
            if config.resolve() not in read:  # a base that two configs share must not undo the first of them
                read.append(config.resolve())
                words += [CONFIG_OPTIONS[0], str(config)]
    return words, named


def _with_brackets(before: str, word: str) -> str:
    """Write the numbers ``8,8`` of an option of the model or the data as the list ``[8,8]``."""
    option, equals, value = word.rpartition("=")
    is_list = re.fullmatch(r"-?[\d.]+(,-?[\d.]+)+", value)
    return f"{option}{equals}[{value}]" if is_list and (option or before).startswith(("--model.", "--data.")) else word


def with_bases(path: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """Return a config file after all that it builds on; names of bases are relative to the file that names them."""
    if "\0" in str(path):
        raise ConfigError(f"--config {str(path)!r} is not a file name: it contains a zero byte")
    if path.resolve() in above:
        raise ConfigError(f"{path} builds on itself: {' -> '.join(file.name for file in above)}")
    try:
        content = read_yaml(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        hint = nearest(path.stem, (file.stem for file in BUNDLED_CONFIGS.glob("*.yaml"))) if not above else ""
        raise ConfigError(f"--config {path} cannot be read: {reason}{hint}") from error
    bases = (content or {}).get("base", []) if isinstance(content or {}, dict) else None
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"--config {path} must be a mapping, and its base a list of files")
    files = [file for base in bases for file in with_bases(path.parent / base, (*above, path.resolve()))]
    return [*files, path]
