"""What one call of each PyTorch operator costs: the convention of the true FLOPs.

==============  ======================================================================================
matrix          2 per multiply-add of products and convolutions
attention       2 per multiply-add of the two products of every query with every key
normalisation   5 per element of a softmax (attention's included) or LayerNorm
activation      5 per element of a GELU, 1 of a ReLU
elementwise     1 per element of the result: arithmetic, comparisons, selections, biases, scaled attention weights
reduction       1 per element that is summed, averaged, compared or scattered into a sum; 2 of a norm or weighted sum
sorting         n log2(n) comparisons per row of n that is sorted or searched for its largest k
interpolation   2 per source pixel that takes part in a pixel of the result
==============  ======================================================================================

Moving data (copies, views, gathering, conversions of the number format) costs nothing, nor does making constants.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

SOFTMAX = 5
NORM = 5
GELU = 5

Cost = Callable[[Sequence[Any], Mapping[str, Any], Any], int]  # of positional and named arguments and the result


class Priced(NamedTuple):
    """A kind of work in an operator, and what a call costs of it."""

    kind: str
    cost: Cost


def elements(result: Any) -> int:
    """Count the elements of a result, of the first tensor where there are several."""
    if isinstance(result, Tensor):
        return result.numel()
    return next((part.numel() for part in result if isinstance(part, Tensor)), 0)


def per_output(each: int) -> Cost:
    """Charge every element of the result."""
    return lambda args, named, result: each * elements(result)


def per_input(each: int) -> Cost:
    """Charge every element of the first argument."""
    return lambda args, named, result: each * args[0].numel()


def _registered(packet: Any, operands: int | None = None) -> Cost:
    """Charge what torch's own counter charges for the first arguments, the operands; it knows no others."""
    count: Any = flop_registry[packet]
    return lambda args, named, result: int(count(*args[:operands], out_val=result))


def _convolution_bias(args: Sequence[Any], named: Mapping[str, Any], result: Any) -> int:
    return elements(result) if args[2] is not None else 0


def _scaled_addition(args: Sequence[Any], named: Mapping[str, Any], result: Any) -> int:
    """Charge ``beta * input + alpha * product``; factors of 1 are no work."""
    return elements(result) * (1 + sum(named.get(factor, 1) != 1 for factor in ("alpha", "beta")))


def _packed_linear(bias_at: int) -> tuple[Priced, ...]:
    """Charge a linear layer on packed weights, whose shape says nothing."""
    return (
        Priced("matrix", lambda args, named, result: 2 * args[0].numel() * result.shape[-1]),
        Priced("elementwise", lambda args, named, result: elements(result) if args[bias_at] is not None else 0),
    )


def _attention_products(args: Sequence[Any], named: Mapping[str, Any], result: Any) -> int:
    return int(sdpa_flop_count(*(tensor.shape for tensor in args[:3])))


def _attention_weights(each: int) -> Cost:
    """Charge every weight of a query for a key."""
    return lambda args, named, result: each * math.prod(args[0].shape[:-1]) * args[1].shape[-2]


def _sorting(dim_at: int) -> Cost:
    """Charge the comparisons along the dimension that is the argument at ``dim_at``, or the last."""

    def cost(args: Sequence[Any], named: Mapping[str, Any], result: Any) -> int:
        dim = named.get("dim", args[dim_at] if len(args) > dim_at else -1)
        along = args[0].shape[dim] if args[0].dim() else 1
        return round(args[0].numel() * math.log2(max(along, 1)))

    return cost


def _summed_bags(args: Sequence[Any], named: Mapping[str, Any], result: Any) -> int:
    """Charge every row that ``embedding_bag(rows, indices, offsets)`` sums, twice where rows have weights."""
    weights = named.get("per_sample_weights", args[6] if len(args) > 6 else None)
    return int(args[1].numel() * args[0].shape[1]) * (1 if weights is None else 2)


def _scattered(args: Sequence[Any], named: Mapping[str, Any], result: Any) -> int:
    """Charge every addition of ``scatter_add(into, dim, index, source)`` and its like."""
    return int(args[2].numel())


def _indexed_sum(args: Sequence[Any], named: Mapping[str, Any], result: Any) -> int:
    """Charge every addition of ``index_add(into, dim, index, source)``."""
    return int(args[3].numel())


def _pooled(args: Sequence[Any], named: Mapping[str, Any], result: Any) -> int:
    return int(args[0].numel()) + elements(result)


def _names(text: str) -> list[str]:
    return text.split()


_ELEMENTWISE = _names("""
    abs add addcdiv addcmul bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor
    ceil clamp clamp_max clamp_min cos div eq exp exp2 expm1 floor floor_divide fmod ge gt isfinite isinf isnan le lerp
    log log1p log2 logical_and logical_not logical_or logical_xor lt masked_fill maximum minimum mul ne neg pow
    reciprocal relu remainder round rsqrt rsub sigmoid sign sin sqrt square sub tanh trunc where xor
    __lshift__ __rshift__ __and__ __or__ __xor__ rand randn rand_like randn_like normal uniform bernoulli random
""")
_REDUCTIONS = _names("all amax amin any argmax argmin cumsum logsumexp max mean min prod sum bincount count_nonzero")
_ATTENTION = _names("""
    scaled_dot_product_attention _scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu
    _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention
    _scaled_dot_product_fused_attention_overrideable
""")
_aten = torch.ops.aten

_ATTENTION_PRICE = (
    Priced("attention", _attention_products),
    Priced("elementwise", _attention_weights(1)),
    Priced("normalisation", _attention_weights(SOFTMAX)),
)
PRICED: dict[str, tuple[Priced, ...]] = {
    "mm": (Priced("matrix", _registered(_aten.mm, 2)),),
    "bmm": (Priced("matrix", _registered(_aten.bmm, 2)),),
    "addmm": (Priced("matrix", _registered(_aten.addmm, 3)), Priced("elementwise", _scaled_addition)),
    "baddbmm": (Priced("matrix", _registered(_aten.baddbmm, 3)), Priced("elementwise", _scaled_addition)),
    "_linear_pointwise": _packed_linear(bias_at=2),
    "_mkl_linear": _packed_linear(bias_at=3),
    "convolution": (Priced("matrix", _registered(_aten.convolution)), Priced("elementwise", _convolution_bias)),
    "dot": (Priced("matrix", per_input(2)),),
    "mv": (Priced("matrix", per_input(2)),),
    **dict.fromkeys(_ATTENTION, _ATTENTION_PRICE),
    "_softmax": (Priced("normalisation", per_output(SOFTMAX)),),
    "_safe_softmax": (Priced("normalisation", per_output(SOFTMAX)),),
    "_log_softmax": (Priced("normalisation", per_output(SOFTMAX)),),
    "native_layer_norm": (Priced("normalisation", per_output(NORM)),),
    "gelu": (Priced("activation", per_output(GELU)),),
    **dict.fromkeys(_ELEMENTWISE, (Priced("elementwise", per_output(1)),)),
    **dict.fromkeys(_REDUCTIONS, (Priced("reduction", per_input(1)),)),
    "linalg_vector_norm": (Priced("reduction", per_input(2)),),
    "_adaptive_avg_pool2d": (Priced("reduction", _pooled),),
    "avg_pool2d": (Priced("reduction", _pooled),),
    "scatter_add": (Priced("reduction", _scattered),),
    "scatter_reduce": (Priced("reduction", _scattered),),
    "index_add": (Priced("reduction", _indexed_sum),),
    "_embedding_bag": (Priced("reduction", _summed_bags),),
    "_embedding_bag_forward_only": (Priced("reduction", _summed_bags),),
    "sort": (Priced("sorting", _sorting(dim_at=1)),),
    "topk": (Priced("sorting", _sorting(dim_at=2)),),
    "kthvalue": (Priced("sorting", _sorting(dim_at=2)),),
    "upsample_bicubic2d": (Priced("interpolation", per_output(2 * 16)),),
    "upsample_bilinear2d": (Priced("interpolation", per_output(2 * 4)),),
}

FREE = frozenset(
    _names("""
    _local_scalar_dense _mkl_reorder_linear_weight _reorder_linear_weight
    _to_copy _unsafe_index _unsafe_view alias arange as_strided cat clone constant_pad_nd contiguous
    copy detach embedding empty empty_like empty_strided expand eye fill flip full full_like gather index index_copy
    index_put index_select lift_fresh lift_fresh_copy linspace masked_scatter new_empty new_empty_strided new_full
    new_ones new_zeros nonzero ones ones_like repeat repeat_interleave resize roll scalar_tensor scatter select_scatter
    slice_scatter split_with_sizes_copy stack tril triu unfold upsample_nearest2d zero zeros zeros_like
""")
)
