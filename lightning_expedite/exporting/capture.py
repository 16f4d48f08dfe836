"""A model's forward pass over windows as one graph, with a fixed or dynamic batch size."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..errors import ExportError
from ..models.segmenter.model import Segmenter

Batch = int | Literal["dynamic"]
INPUT, OUTPUT = "images", "logits"


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
