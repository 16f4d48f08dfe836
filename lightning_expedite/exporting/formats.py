"""The two files that a captured model is written to, and how each is run to be checked."""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.export import ExportedProgram

from ..errors import ExportError
from .capture import INPUT, OUTPUT

FormatName = Literal["torch", "onnx"]
Run = Callable[[Tensor], Tensor]
"""Runs a file: windows ``(B, 3, H, W)`` to logits."""

_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_MOST_INSIDE = 1 << 30  # bytes of weights in an ONNX file itself, which must stay below 2 GiB


@dataclass(frozen=True)
class Format:
    """A file format.

    ``write`` puts a program into a file, ``open`` runs one from there; both need ``packages``.
    """

    file: str
    packages: tuple[str, ...]
    write: Callable[[ExportedProgram, Path], None]
    open: Callable[[Path], Run]

    def require_packages(self) -> None:
        """Raise `ExportError` where a package is missing that the format needs."""
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            raise ExportError(
                f"{self.file} needs {', '.join(missing)}, not installed here: pip install 'lightning-expedite[export]'"
            )

    def versions(self) -> dict[str, str]:
        """Give the versions of the packages that took part."""
        return {name: importlib.import_module(name).__version__ for name in ("torch", *self.packages)}


def write_torch(program: ExportedProgram, path: Path) -> None:
    """Write a ``.pt2`` file, which ``torch.export.load`` reads."""
    torch.export.save(program, path)


def open_torch(path: Path) -> Run:
    """Read a ``.pt2`` file."""
    module = torch.export.load(path).module()

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            return module(images)

    return run


def write_onnx(program: ExportedProgram, path: Path) -> None:
    """Write an ONNX file; weights above 1 GiB go to a second one beside it, ``model.onnx.data``.

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
    """Run an ONNX file with ONNX Runtime on the CPU."""
    runtime: Any = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])

    return run


FORMATS: dict[str, Format] = {
    "torch": Format("model.pt2", (), write_torch, open_torch),
    "onnx": Format("model.onnx", _ONNX_PACKAGES, write_onnx, open_onnx),
}
