"""Linear layers whose weights are packed for the CPU's matrix products once, not in every call.

A CPU's libraries bring both factors of a product into blocks before they multiply. In ``torch.nn.functional.linear``
they do so with the weights in every call, which costs the same for few tokens as for many: the fewer tokens a reducer
leaves, the more it weighs. These are the operators that PyTorch's own compiler uses for weights that do not change.
"""

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KEPT = 2
"""Packed copies of one layer's float32 weights: MKL's are for one number of tokens each, and a batch has its
remainder, a reduced model its unreduced counterpart."""


class PackedLinear(nn.Linear):
    """A linear layer that keeps a packed copy of its weights for inference on a CPU.

    Results are those of `torch.nn.Linear` on contiguous tokens: the same to the bit in bfloat16, in float32 but for the
    place at which the bias is added. Where there is no packed product (training, compilation, autocast, other devices
    and types, other builds of PyTorch), it is `torch.nn.Linear`. The copies take as much memory as the weights in
    bfloat16 and up to `KEPT` times as much in float32; they are no part of the state and are made anew when the weights
    change.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, **options: Any) -> None:
        super().__init__(in_features, out_features, bias, **options)
        self._packed: OrderedDict[int, Tensor] = OrderedDict()
        self._source: tuple[int, int] | None = None

    @classmethod
    def sharing(cls, layer: nn.Linear) -> "PackedLinear":
        """Make one on the parameters of another layer."""
        packed = cls(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        packed.weight, packed.bias = layer.weight, layer.bias
        return packed.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer: ``(..., in_features)`` to ``(..., out_features)``."""
        if torch.compiler.is_compiling() or not self._can_pack(input):
            return F.linear(input, self.weight, self.bias)
        source = self._state_of_weight()
        if source != self._source:
            self._packed.clear()
            self._source = source
        if input.dtype == torch.float32:
            return self._multiply_mkl(input)
        return self._multiply_onednn(input)

    def _can_pack(self, input: Tensor) -> bool:
        weight = self.weight
        return (
            input.device.type == "cpu" == weight.device.type
            and input.dtype == weight.dtype
            and ((_MKL and input.dtype == torch.float32) or (_ONEDNN_BF16 and input.dtype == torch.bfloat16))
            and input.numel() > 0
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and torch.backends.mkldnn.matmul.fp32_precision in _EXACT  # type: ignore[attr-defined]
        )

    def _multiply_mkl(self, input: Tensor) -> Tensor:
        tokens = input.numel() // self.in_features
        weight = self._packed.pop(tokens, None)
        if weight is None:
            weight = torch.ops.mkl._mkl_reorder_linear_weight(self.weight, tokens)
            while len(self._packed) >= KEPT:
                self._packed.popitem(last=False)
        self._packed[tokens] = weight  # at the end: the first one is the one not used for longest
        return torch.ops.mkl._mkl_linear(input, weight, self.weight, self.bias, tokens)

    def _multiply_onednn(self, input: Tensor) -> Tensor:
        if 0 not in self._packed:  # one for all numbers of tokens
            self._packed[0] = torch.ops.mkldnn._reorder_linear_weight(self.weight)
        return torch.ops.mkldnn._linear_pointwise(input, self._packed[0], self.bias, "none", [], "")

    def _state_of_weight(self) -> tuple[int, int]:
        """Tell the weights apart from what they were before a change in place, or an exchange."""
        weight = self.weight
        return weight.data_ptr(), 0 if weight.is_inference() else weight._version

    def _apply(self, fn: Any, recurse: bool = True) -> "PackedLinear":
        super()._apply(fn, recurse)
        self._packed.clear()
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave the packed copies out: they can be neither copied nor stored."""
        return {**self.__dict__, "_packed": OrderedDict()}


def pack_linear_layers(model: nn.Module) -> None:
    """Make every `torch.nn.Linear` inside a model a `PackedLinear` on the same parameters."""
    for name, layer in list(model.named_modules()):
        if type(layer) is nn.Linear:
            model.set_submodule(name, PackedLinear.sharing(layer))


def packed_products() -> dict[str, str]:
    """Name the library that multiplies packed weights on this CPU, for each type that one does."""
    return {
        **({"float32": "MKL"} if _MKL else {}),
        **({"bfloat16": "oneDNN"} if _ONEDNN_BF16 else {}),
    }


def _has(namespace: str, *names: str) -> bool:
    return all(hasattr(getattr(torch.ops, namespace), name) for name in names)


_EXACT = ("none", "ieee")  # what float32 products may be set to, but for those of fewer bits
_MKL = torch.backends.mkl.is_available() and _has("mkl", "_mkl_linear", "_mkl_reorder_linear_weight")
_ONEDNN_BF16 = (
    torch.backends.mkldnn.is_available()
    and _has("mkldnn", "_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")
    and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
)
