"""A model's window forward as one graph, in which the number of windows may stay open."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..errors import ExportError
from ..models.segmenter.model import Segmenter

Batch = int | Literal["dynamic"]
INPUT, OUTPUT = "images", "logits"
_EXAMPLES = 2  # windows that a dynamic batch is traced with: a graph of one would hold for one alone


class WindowPass(nn.Module):
    """What is exported: normalised windows ``(B, 3, H, W)`` to logits.

    Args:
        model: The model.
        upsample: Whether logits are given for every pixel, ``(B, K, H, W)``, or as the model gives them, one for every
            patch, ``(B, K, rows, columns)``.
    """

    def __init__(self, model: Segmenter, upsample: bool) -> None:
        super().__init__()
        self.model = model
        self.upsample = upsample

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits."""
        return self.model(images) if self.upsample else self.model.segment_patches(images).logits


def refuse_content_dependent(model: Segmenter) -> None:
    """Raise `ExportError` for a reducer whose shapes depend on what an image shows."""
    reducer = model.reducer
    if reducer is not None and reducer.shapes_depend_on_content:
        raise ExportError(
            f"{type(reducer).__name__} decides by an image's content how many tokens or queries there are, which no "
            "graph of fixed shapes holds: export the model without it, or with a reducer whose numbers depend on its "
            "settings alone (TokenClustering, EViT, ToMe)"
        )


@torch.no_grad()
def capture(window_pass: WindowPass, crops: Tensor, batch: Batch) -> ExportedProgram:
    """Trace the pass over windows of the size of ``crops`` ``(n, 3, H, W)``.

    The eager pass comes first: it makes the reducers' tables for this size of window, which the graph then holds as
    constants.

    Raises:
        ExportError: The model does something that depends on more than the shapes of its input.
    """
    number = _EXAMPLES if batch == "dynamic" else batch
    example = crops[torch.arange(number) % len(crops)]
    window_pass(example)
    shapes = {INPUT: {0: Dim("batch", min=1)}} if batch == "dynamic" else None
    try:
        return torch.export.export(window_pass, (example,), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # what cannot be traced fails in many ways
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(
            f"the model with {window_pass.model.reducer} cannot be traced ({reason}): its shapes and its program must "
            "depend on the size of the windows alone"
        ) from error
