"""Stop at logits that are NaN or infinite."""

import torch
from torch import Tensor
from torch.amp.autocast_mode import is_autocast_available

from ..errors import NumericalError
from ..models.segmenter.model import Segmenter

_PRECISIONS = {torch.float64: "64", torch.float32: "32", torch.bfloat16: "bf16", torch.float16: "16"}


def require_finite(finite: bool | Tensor, model: Segmenter, image: str) -> None:
    """Raise `NumericalError` if the logits of an image are not all finite; reading ``finite`` waits for the device."""
    if finite:
        return
    weights = next(model.parameters())
    autocast = is_autocast_available(weights.device.type) and torch.is_autocast_enabled(weights.device.type)
    dtype = torch.get_autocast_dtype(weights.device.type) if autocast else weights.dtype
    precision = f"{_PRECISIONS[dtype]}-{'mixed' if autocast else 'true'}"
    advice = "check the image and the weights" if dtype.itemsize > 2 else "use --trainer.precision 32-true"
    raise NumericalError(f"{image}: the model's logits are NaN or infinite at precision {precision}: {advice}")
