"""Prints, as constraints for pip, the oldest versions of the packages that setup.cfg allows."""

import configparser
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

SETUP = Path(__file__).resolve().parents[1] / "setup.cfg"
EXTRAS = ("export", "tensorboard", "wandb")  # what the package imports; the others are tools of developers
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?(?:>=|==)([0-9][0-9.]*)")


def requirements(setup: Path = SETUP, extras: Sequence[str] = EXTRAS) -> Iterator[str]:
    """Give what the package needs, and what its extras need."""
    content = configparser.ConfigParser(interpolation=None)
    content.read_string(setup.read_text(encoding="utf-8"))
    yield from content["options"]["install_requires"].split("\n")[1:]
    for extra in extras:
        yield from content["options.extras_require"][extra].split("\n")[1:]


def constraint(requirement: str) -> str:
    """Give the oldest version that a requirement allows, as ``NAME==VERSION``.

    Raises:
        ValueError: The requirement names none.
    """
    match = _REQUIREMENT.fullmatch(requirement.strip())
    if match is None:
        raise ValueError(f"setup.cfg: {requirement!r} does not say which version is the oldest: write NAME>=VERSION")
    return f"{match[1]}=={match[2]}"


if __name__ == "__main__":
    try:
        print("\n".join(map(constraint, requirements())))
    except ValueError as error:
        sys.exit(f"error: {error}")
