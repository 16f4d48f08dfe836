"""The two file formats, and how a file of each is run."""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch.export import ExportedProgram

from ..errors import ExportError
from .capture import INPUT, OUTPUT
from .checking import Run

FormatName = Literal["torch", "onnx"]

_MOST_INSIDE = 1 << 30  # bytes of weights in an ONNX file itself, which must stay below 2 GiB


@dataclass(frozen=True)
class Format:
    """A file format: ``write`` saves a program, ``open`` loads one to run it; both need ``packages``."""

    file: str
    packages: tuple[str, ...]
    write: Callable[[ExportedProgram, Path], None]
    open: Callable[[Path], Run]

    def require_packages(self) -> None:
        """Raise `ExportError` if a package is missing that the format needs."""
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            raise ExportError(
                f"{self.file} needs {', '.join(missing)}, not installed here: pip install 'lightning-expedite[export]'"
            )


def open_torch(path: Path) -> Run:
    """Load a ``.pt2`` file."""
    module = torch.export.load(path).module()
    return torch.no_grad()(lambda images: module(images))


def write_onnx(program: ExportedProgram, path: Path) -> None:
    """Write an ONNX file; weights above 1 GiB go to a second file beside it, ``model.onnx.data``.

    Raises:
        ExportError: The graph holds an operator that ONNX lacks.
    """
    from torch.onnx import OnnxExporterError

    try:
        converted = torch.onnx.export(program, input_names=[INPUT], output_names=[OUTPUT], dynamo=True, verbose=False)
    except OnnxExporterError as error:
        reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), "no reason given")
        raise ExportError(
            f"the model cannot be written as ONNX ({reason}); --format torch has no such limits"
        ) from error
    assert converted is not None
    size = sum(weight.numel() * weight.element_size() for weight in program.state_dict.values())
    converted.save(path, external_data=size > _MOST_INSIDE)


def open_onnx(path: Path) -> Run:
    """Load an ONNX file in ONNX Runtime on the CPU."""
    runtime: Any = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


FORMATS: dict[str, Format] = {
    "torch": Format("model.pt2", (), torch.export.save, open_torch),
    "onnx": Format("model.onnx", ("onnx", "onnxscript", "onnxruntime"), write_onnx, open_onnx),
}
