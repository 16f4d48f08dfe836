"""Where loggers write that are named on the command line without a place."""

from pathlib import Path
from typing import Any

OPTION = "--trainer.logger"
HERE = "<output>"
"""Placeholder for the run's folder in a logger's settings: file loggers need a folder when they are named."""

_FILE_LOGGERS = ("TensorBoardLogger", "CSVLogger")
_PLACES = (f"{OPTION}.save_dir", f"{OPTION}.init_args.save_dir")
_ELSEWHERE = "."  # W&B's own default


def with_place(words: list[str]) -> list[str]:
    """Add the run's folder to a file logger that is named without one on the command line."""
    if any(word.partition("=")[0] in _PLACES for word in words):
        return words
    placed: list[str] = []
    for number, word in enumerate(words):
        placed.append(word)
        name = word.partition("=")[2] if word.startswith(f"{OPTION}=") else word
        named = word.startswith(f"{OPTION}=") or (number > 0 and words[number - 1] == OPTION)
        kind = name.rpartition(".")[2]
        if named and kind in _FILE_LOGGERS:
            placed += [
                f"{OPTION}.save_dir={HERE}",
                f"{OPTION}.name=",
                f"{OPTION}.version={kind.removesuffix('Logger').lower()}",
            ]
    return placed


def place_loggers(trainer: Any, output: Path) -> None:
    """Set the folder of loggers that were told none, in the trainer's parsed settings."""
    loggers = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
    for logger in loggers:
        settings = logger.get("init_args") if hasattr(logger, "get") else None
        if settings is not None and settings.get("save_dir") in (HERE, _ELSEWHERE):
            settings["save_dir"] = str(output)
