"""The forward pass over windows, compiled by ``torch.compile``."""

import copy
import warnings
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ..errors import ConfigError
from ..models.segmenter.model import Segmenter
from ..reducers.base import Reducer
from .inference import WindowForward, run_windows

CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]

BACKEND = "inductor"
# PyTorch 2.11 fails at reducers; with a workaround it silently compiled ToMe to other logits.
OLDEST_COMPILER = "2.14"
GRAPH_MODES = ("reduce-overhead", "max-autotune")  # those that replay CUDA graphs
REPEATS = 3  # a CUDA graph is warmed up, recorded and replayed


def require_compiler(reducer: Reducer | None) -> None:
    """Raise `ConfigError` for a reducer and a PyTorch that is not known to compile it correctly."""
    if reducer is not None and torch.__version__ < OLDEST_COMPILER:
        raise ConfigError(
            f"PyTorch {torch.__version__} is not known to compile {type(reducer).__name__} correctly: use PyTorch "
            f"{OLDEST_COMPILER} or newer, or do not compile"
        )


def one_graph(reducer: Reducer | None) -> bool:
    """Return whether a model with a reducer is compiled as one graph, without Python in between."""
    return reducer is None or not reducer.shapes_depend_on_content


@dataclass
class CompiledWindows:
    """A compiled `WindowForward` for windows of one size, without recompilation from the second call on.

    There are two graphs: one for a single window and one for any larger number. The first call compiles both on noise,
    and with CUDA graphs records them for every number of windows. Windows of another size, from images smaller than the
    window, run uncompiled, with a warning.

    Args:
        window: Side of a window in pixels.
        batch_size: Most windows at once.
        mode: A mode of ``torch.compile``. With ``reduce-overhead`` and ``max-autotune`` a GPU replays CUDA graphs; what
            a call returns is then valid until the next one.
        fullgraph: Whether the model has to be one graph; otherwise graph breaks are allowed.
    """

    window: int
    batch_size: int
    mode: CompileMode = "default"
    fullgraph: bool = True
    _compiled: WindowForward | None = field(default=None, init=False, repr=False)

    def __call__(self, model: Segmenter, windows: Tensor) -> tuple[Tensor, bool | Tensor]:
        """Run the model on windows ``(B, 3, h, w)``; see `WindowForward`."""
        height, width = windows.shape[-2:]
        if (height, width) != (self.window, self.window):
            warnings.warn(f"windows of {height} x {width} pixels are not compiled", stacklevel=2)
            return run_windows(model, windows)
        if self._compiled is None:
            self._compiled = torch.compile(run_windows, fullgraph=self.fullgraph, backend=BACKEND, mode=self._mode())
            self._warm_up(model, windows)
        return self._run(model, windows)

    def with_batch(self, batch_size: int) -> "CompiledWindows":
        """Return the same for fewer windows at once; both graphs are reused.

        Recorded CUDA graphs are dropped, with their memory: the next call records those that fit.
        """
        fewer = copy.copy(self)
        fewer.batch_size = batch_size
        if self.mode in GRAPH_MODES:
            torch._dynamo.reset()
            fewer._compiled = None
        return fewer

    def _mode(self) -> str | None:
        return self.mode if BACKEND == "inductor" else None  # no other backend knows modes

    def _warm_up(self, model: Segmenter, like: Tensor) -> None:
        replayed = self.mode in GRAPH_MODES and like.device.type == "cuda"
        largest = self.batch_size if replayed else min(self.batch_size, 2)
        generator = torch.Generator(like.device).manual_seed(0)  # leaves the process's own numbers as they are
        for number in range(1, largest + 1):
            size = (number, *like.shape[1:])
            noise = torch.randn(size, dtype=like.dtype, device=like.device, generator=generator)
            for _ in range(REPEATS if replayed else 1):
                self._run(model, noise)

    def _run(self, model: Segmenter, windows: Tensor) -> tuple[Tensor, bool | Tensor]:
        assert self._compiled is not None
        if len(windows) > 1:  # one window is a graph of its own: PyTorch specialises on 1 anyway
            torch._dynamo.mark_dynamic(windows, 0)
        if self.mode in GRAPH_MODES:
            torch.compiler.cudagraph_mark_step_begin()  # what the call before returned is no longer needed
        return self._compiled(model, windows)
