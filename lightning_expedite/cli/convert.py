"""``convert``: write safetensors and `variant.yml`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ..errors import OutputError
from .parser import Parser


def make_parser() -> Parser:
    """Return the parser of the command's options."""
    return Parser.of_function("convert", convert)


def run(arguments: Sequence[str]) -> int:
    """Convert a checkpoint."""
    convert(**make_parser().parse_args(list(arguments)).as_dict())
    return 0


def convert(
    checkpoint: str,
    output: Path,
    dtype: Literal["float32", "float16", "bfloat16"] | None = None,
    overwrite: bool = False,
) -> None:
    """Convert a checkpoint of any known layout to model.safetensors and variant.yml.

    Args:
        checkpoint: A file or folder of any known layout, or the name of known weights.
        output: Folder to write to.
        dtype: Type of the stored weights; float32 by default.
        overwrite: Replace an existing model.
    """
    # Only here: --help need not wait for torch.
    from ..models import VARIANT_FILE, WEIGHTS_FILE, convert_checkpoint

    for name in (WEIGHTS_FILE, VARIANT_FILE):
        if (output / name).exists() and not overwrite:
            raise OutputError(f"{output / name} exists already; use --overwrite or another --output")
    print(f"wrote {convert_checkpoint(checkpoint, output, dtype)}")
