"""``convert``: write safetensors and `variant.yml`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ..errors import OutputError
from ..models.segmenter import convert_checkpoint
from ..models.segmenter.config import WEIGHTS_FILE
from ..models.segmenter.weights import VARIANT_FILE
from .plain import run_function


def run(arguments: Sequence[str]) -> int:
    """Convert a checkpoint."""
    return run_function(convert, arguments, "convert")


def convert(
    checkpoint: str,
    output: Path,
    dtype: Literal["float32", "float16", "bfloat16"] | None = None,
    overwrite: bool = False,
) -> None:
    """Turn a checkpoint of any layout into model.safetensors and variant.yml.

    Args:
        checkpoint: A file or folder of any known layout, or the name of known weights.
        output: Folder to write to.
        dtype: Type of the stored weights; as loaded (float32) by default.
        overwrite: Replace a model that is there already.
    """
    for name in (WEIGHTS_FILE, VARIANT_FILE):
        if (output / name).exists() and not overwrite:
            raise OutputError(f"{output / name} exists already; give --overwrite or another --output")
    print(f"wrote {convert_checkpoint(checkpoint, output, dtype)}")
