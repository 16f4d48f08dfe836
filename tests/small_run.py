"""A small data set with a config for it, and the command line in this process."""

from pathlib import Path

import yaml
from data_files import class_map, picture, save
from reference import DATA

SIZES = ((64, 64), (70, 90), (100, 140), (50, 129), (128, 64))
CLASSES = ["sky", "wall", "tree", "road", "door"]


def make_data(folder: Path, count: int = 4) -> Path:
    for number, size in enumerate(SIZES[:count]):
        save(folder / f"images/part{number % 2}/{number}.png", picture(*size, seed=number))
        label = class_map(*size, classes=4, seed=number)  # nothing is labelled door
        label[:5] = 255
        save(folder / f"labels/part{number % 2}/{number}.png", label)
    return folder


def make_config(folder: Path, name: str = "small.yaml", **model) -> Path:
    content = {
        "data": {
            "class_path": "Folder",
            "init_args": {
                "images": str(folder / "images"),
                "labels": str(folder / "labels"),
                "classes": CLASSES,
                "num_workers": 0,
            },
        },
        "model": {
            "checkpoint": str(DATA / "parity" / "official_mask"),
            "window": 64,
            "stride": 48,
            **model,
        },
        "trainer": {"accelerator": "cpu", "devices": 1},
    }
    path = folder / name
    path.write_text(yaml.safe_dump(content))
    return path


def command_line(capsys, *words):
    """Run the command line; returns its exit status and what it printed to both streams."""
    from lightning_expedite.cli import main

    try:
        status = main([str(word) for word in words])
    except SystemExit as stop:  # how argparse ends
        status = stop.code
    printed = capsys.readouterr()
    return status, printed.out, printed.err
