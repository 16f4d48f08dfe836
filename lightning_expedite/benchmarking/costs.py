"""What the baseline and the reduced model cost, counted rather than timed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ..models import Segmenter, with_reducer
from .flops import Counts, count

TRUE_FLOPS_CONVENTION = (
    "torch.utils.flop_counter: 2 FLOPs per multiply-add of matrix products, convolutions and attention; norms, "
    "softmax, activations, top-k and elementwise operations are left out"
)
# torch's counter only knows the attention kernels of GPUs.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *args, **kwargs: (
        sdpa_flop_count(query, key, value)
    )
}


def count_costs(model: Segmenter, image: Tensor) -> dict[str, Any]:
    """Count both variants of a model, on the ``meta`` device unless the reduced shapes depend on the image.

    Args:
        model: The model with its reducer.
        image: One real crop ``(1, 3, H, W)`` on the model's device, in float32 as the model.

    Returns:
        The part of a row of ``benchmark.json`` that is counted: ``gflops`` (giga multiply-adds in the published
        convention), ``true_gflops`` (see `TRUE_FLOPS_CONVENTION`), ``counted_on`` and ``tokens``.
    """
    hollow, empty = on_meta(model), image.to("meta")
    by_content = model.reducer is not None and model.reducer.shapes_depend_on_content
    before, true_before = _count(with_reducer(hollow, None), empty)
    counts, operators = {"unreduced": before}, {"unreduced": true_before}
    if model.reducer is not None:
        reduced = _count(model, image) if by_content else _count(hollow, empty)
        counts["reduced"], operators["reduced"] = reduced
    after = counts.get("reduced", before)
    return {
        "gflops": _in_giga({name: variant.multiply_adds for name, variant in counts.items()}),
        "true_gflops": {
            **_in_giga({name: sum(flops.values()) for name, flops in operators.items()}),
            "convention": TRUE_FLOPS_CONVENTION,
            "by_operator": {
                name: {operator: value / 1e9 for operator, value in flops.items()} for name, flops in operators.items()
            },
        },
        "counted_on": "the first crop" if by_content else "shapes alone",
        "tokens": {
            "unreduced": before.attention[0],
            "attention": after.attention,
            "mlp": after.mlp,
            "decoder": after.decoder,
        },
    }


def on_meta(model: Segmenter) -> Segmenter:
    """Return a model of the same architecture, convention and reducer whose weights hold no numbers."""
    with torch.device("meta"):
        return Segmenter(model.architecture, model.convention.name, model.reducer).eval()


def count_operators(call: Callable[[], object]) -> dict[str, int]:
    """Return the true FLOPs of a call by ATen operator, such as ``aten.addmm``; see `TRUE_FLOPS_CONVENTION`."""
    with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        call()
    return {str(operator): flops for operator, flops in counter.get_flop_counts().get("Global", {}).items()}


def attention_kernels(call: Callable[[], object]) -> list[str]:
    """Return the implementations of scaled dot-product attention that an uncompiled call uses on its device.

    Returns:
        Operators' names as PyTorch dispatches them, such as ``_scaled_dot_product_flash_attention``.
    """
    names = (operator.removeprefix("aten.") for operator in count_operators(call))
    return sorted(name for name in names if name.startswith("_scaled_dot_product"))


def _count(model: Segmenter, image: Tensor) -> tuple[Counts, dict[str, int]]:
    counts = count(model, image)  # the first pass: what a reducer prepares once for all passes is not counted below
    return counts, count_operators(lambda: model.segment_patches(image))


def _in_giga(counts: dict[str, int]) -> dict[str, float | None]:
    baseline, reduced = counts["unreduced"], counts.get("reduced")
    return {
        "unreduced": baseline / 1e9,
        "reduced": None if reduced is None else reduced / 1e9,
        "ratio": None if reduced is None else baseline / reduced,
    }
