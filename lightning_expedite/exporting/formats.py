"""A model's forward pass over windows as one graph, and the two file formats that it is written to."""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..errors import ExportError
from ..models.segmenter.model import Segmenter
from .checking import Run

FormatName = Literal["torch", "onnx"]
Batch = int | Literal["dynamic"]
INPUT, OUTPUT = "images", "logits"
_MOST_INSIDE = 1 << 30  # bytes of weights in an ONNX file itself, which must stay below 2 GiB


class WindowPass(nn.Module):
    """The exported module: windows ``(B, 3, H, W)`` to logits ``(B, K, rows, columns)``, or ``(B, K, H, W)``."""

    def __init__(self, model: Segmenter, upsample: bool) -> None:
        super().__init__()
        self.model = model
        self.upsample = upsample

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.model(images) if self.upsample else self.model.segment_patches(images).logits


@torch.no_grad()
def capture(window_pass: WindowPass, crops: Tensor, batch: Batch) -> ExportedProgram:
    """Trace the pass over windows of the size of ``crops`` ``(n, 3, H, W)``.

    Raises:
        ExportError: The pass depends on more than the shape of its input.
    """
    reducer = window_pass.model.reducer
    if reducer is not None and reducer.shapes_depend_on_content:
        raise ExportError(
            f"{type(reducer).__name__} cannot be exported: its number of tokens or queries depends on an image's "
            "content, which a graph of fixed shapes cannot hold; export the model without it, or with TokenClustering, "
            "EViT or ToMe"
        )
    size = 2 if batch == "dynamic" else batch  # a graph traced with one window would hold for one only
    example = crops[torch.arange(size) % len(crops)]
    window_pass(example)  # caches the reducers' tables for this window size, which become constants of the graph
    shapes = {INPUT: {0: Dim("batch", min=1)}} if batch == "dynamic" else None
    try:
        return torch.export.export(window_pass, (example,), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # what cannot be traced fails in many ways
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(
            f"the model with {reducer} cannot be traced ({reason}): shapes and control flow must depend on the size of "
            "the windows only"
        ) from error


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
