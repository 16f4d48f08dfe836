"""Export of a model to a file that other programs run."""

import copy
import json
import tempfile
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.transforms import STATISTICS
from ..errors import ExportError, checks_arguments, is_integer
from ..files import write_atomically
from ..models import Segmenter, require_model, store_reducer
from ..protocol import Normalization
from ..text import plain
from ..version import __version__
from .checking import check_file
from .formats import FORMATS, INPUT, OUTPUT, Batch, FormatName, WindowPass, capture

EXPORT_FILE = "export.json"
BATCH_SIZES = [1, 2, 3, 8]  # at which a file with a dynamic batch size is checked


@checks_arguments
def export(
    model: Segmenter,
    output: str | Path,
    crops: Tensor,
    *,
    format: FormatName = "torch",
    batch: Batch = "dynamic",
    upsample: bool = False,
    normalization: Normalization | None = None,
) -> dict[str, Any]:
    """Export a model's forward pass over windows, with its reducer, to a file that runs without this package.

    The file maps normalised windows ``images`` ``(B, 3, H, W)`` in float32, of one size, to ``logits``. Before it
    appears in ``output``, it is read back and compared with the model on the crops.

    Args:
        model: The model, which is not changed.
        output: Folder for ``model.pt2`` or ``model.onnx``, and ``export.json``; existing files are replaced.
        crops: Normalised windows of real images, ``(n, 3, H, W)``: the file is made for their size and checked on them.
        format: ``"torch"`` for ``torch.export.load``, ``"onnx"`` for ONNX Runtime and others.
        batch: Number of windows per batch, or ``"dynamic"`` for any.
        upsample: Whether the file returns logits per pixel, ``(B, K, H, W)``, or, by default, per patch,
            ``(B, K, rows, columns)``, as sliding windows use them.
        normalization: Pixel statistics to name in ``export.json``; by default those of the model's protocol.

    Returns:
        The content of ``export.json``: input, output, model, reducer, and the results of the check.

    Raises:
        ConfigError: ``model`` is not a model of this package.
        ExportError: The reducer's shapes depend on content, a package is missing, an operator has no counterpart in the
            format, or the file does not compute what the model does; nothing is kept then.
    """
    require_model(model)
    if format not in FORMATS:
        raise ExportError(f"format is {format!r}: it must be one of {', '.join(FORMATS)}")
    if batch != "dynamic" and not (is_integer(batch) and batch >= 1):
        raise ExportError(f"batch is {batch!r}: it must be dynamic or 1 or more")
    if not isinstance(crops, Tensor) or crops.ndim != 4 or crops.shape[1] != 3 or 0 in crops.shape:
        found = f"have shape {tuple(crops.shape)}" if isinstance(crops, Tensor) else f"are {plain(repr(crops), 60)}"
        raise ExportError(f"crops {found}: they must be a tensor (n, 3, H, W), n at least 1")
    chosen = FORMATS[format]
    chosen.require_packages()
    crops = crops.detach().to("cpu", torch.float32)
    window_pass = WindowPass(copy.deepcopy(model).to("cpu", torch.float32), upsample).eval()
    program = capture(window_pass, crops, batch)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".export") as temporary, torch.no_grad():
        path = Path(temporary) / chosen.file
        chosen.write(program, path)
        check = check_file(chosen.open(path), window_pass, crops, BATCH_SIZES if batch == "dynamic" else [batch])
        report = {
            "kind": "export",
            "format": format,
            "file": chosen.file,
            **_describe(window_pass, crops, batch, normalization or model.protocol.normalization),
            "check": check,
            "versions": {"lightning_expedite": __version__}
            | {name: import_module(name).__version__ for name in ("torch", *chosen.packages)},
        }
        for file in Path(temporary).iterdir():
            file.replace(output / file.name)
    write_atomically(output / EXPORT_FILE, (json.dumps(report, indent=1, allow_nan=False) + "\n").encode())
    return report


def _describe(window_pass: WindowPass, crops: Tensor, batch: Batch, normalization: Normalization) -> dict[str, Any]:
    model = window_pass.model
    mean, deviation = (statistic.tolist() for statistic in STATISTICS[normalization])
    reducer = None if model.reducer is None else store_reducer(model.reducer)
    size = "batch" if batch == "dynamic" else batch
    return {
        "input": {
            "name": INPUT,
            "shape": [size, *crops.shape[1:]],
            "dtype": "float32",
            "channels": "RGB, 0 to 255, minus mean, divided by deviation",
            "normalization": {"name": normalization, "mean": mean, "deviation": deviation},
        },
        "output": {
            "name": OUTPUT,
            "shape": [size, *window_pass(crops[:1]).shape[1:]],
            "dtype": "float32",
            "resolution": "pixels" if window_pass.upsample else "patches",
        },
        "model": {"architecture": asdict(model.architecture), "convention": model.convention.name},
        "protocol": asdict(model.protocol),
        "classes": model.classes,
        "reducer": reducer and {"class": reducer.name, "settings": reducer.settings},
    }
