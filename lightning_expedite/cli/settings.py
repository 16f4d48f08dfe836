"""Lightning's command line, as ``test`` and ``predict`` use it, and the configs it reads."""

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks a server for its version at import

from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from .. import reducers  # noqa: F401 (imported so that its classes can be named)
from ..analysis.runs import POINT_FILE
from ..data import import_data_sets
from ..data.base import SegmentationDataModule
from ..errors import ConfigError
from ..evaluation import SegmenterModule
from ..evaluation.progress import ImageProgress
from ..files import read_yaml
from .values import check_values

import_data_sets()  # so that their classes can be named

CONFIG_OPTIONS = ("--config", "-c")

# Which devices there are stands in results.json; without this a run opens with a page of Lightning's remarks.
logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", ".*LeafSpec.*", module="pytorch_lightning.*")


class EvaluationCLI(LightningCLI):
    """LightningCLI with the project's model and data, where to write, and composed configs.

    Args:
        arguments: Words of the command line after the subcommand.
    """

    name = "test"
    logs = False  # whether there is a logger where none is named

    def __init__(self, arguments: Sequence[str]) -> None:
        words, self.config_files = expand_configs(arguments)
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
            parser_kwargs={"prog": f"python -m lightning_expedite {self.name}"},
            args=words,
            run=False,
            auto_configure_optimizers=False,
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the words given; Lightning's own version warns that they are not those of the process."""
        self.config = parser.parse_args(args)
        check_values(self.config)
        if self.config.trainer.enable_progress_bar is False:
            del self.trainer_defaults["callbacks"]

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer; raises `ConfigError` for settings that Lightning refuses."""
        try:
            return super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"the trainer's settings cannot work: {error}") from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add where to write."""
        parser.add_argument(
            "--base", type=list[str], default=[], help="configs that a config builds on, read before it"
        )
        parser.add_argument("--output", type=str | None, default=None, help="folder for results (runs/<config name>)")
        parser.add_argument("--overwrite", action="store_true", help="replace results that are there already")
        self.add_own_arguments(parser)

    def add_own_arguments(self, parser: LightningArgumentParser) -> None:
        """Add the options of one subcommand."""

    @property
    def output(self) -> Path:
        """Folder that the run writes to."""
        if self.config.output:
            return Path(self.config.output)
        return Path("runs") / (config_name(self.config_files[-1]) if self.config_files else "unnamed")

    def resolved_config(self) -> str:
        """Give all settings, defaults included, as YAML; which files they came from and what is shown is left out."""
        config = self.config.clone()
        for key in ("config", "base", "output", "overwrite", "resume", "log_images", "log_changes"):
            config.pop(key, None)
        text: str = self.parser.dump(config, skip_none=False, skip_validation=True)
        return text


def config_name(config: Path) -> str:
    """Give a config's name: its file's, or of a sweep's point its folder's, as all these files are named alike."""
    return config.absolute().parent.name if config.name == POINT_FILE else config.stem


def expand_configs(arguments: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Put the configs that a config builds on (its ``base``) before it, each once.

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
            raise ConfigError("--base belongs into a config file; on the command line give --config several times")
        if option not in CONFIG_OPTIONS:
            words.append(word)
            continue
        path = Path(value if equals else next(given, ""))
        named.append(path)
        for config in with_bases(path):
            if config.resolve() not in read:  # a base that two configs share must not undo the first of them
                read.append(config.resolve())
                words += [CONFIG_OPTIONS[0], str(config)]
    return words, named


def with_bases(path: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """Give a config file after all that it builds on; their names are relative to the file that gives them."""
    if "\0" in str(path):
        raise ConfigError(f"--config {str(path)!r} is no name of a file: it has a zero byte in it")
    if path.resolve() in above:
        raise ConfigError(f"{path} builds on itself: {' -> '.join(file.name for file in above)}")
    try:
        content = read_yaml(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {path} cannot be read: {' '.join(str(error).split())}") from error
    bases = (content or {}).get("base", []) if isinstance(content or {}, dict) else None
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"--config {path} must be a mapping, and its base a list of files")
    files = [file for base in bases for file in with_bases(path.parent / base, (*above, path.resolve()))]
    return [*files, path]
