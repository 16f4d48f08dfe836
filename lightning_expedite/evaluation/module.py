"""The LightningModule that wires model, windows and metrics together."""

from dataclasses import dataclass
from typing import Any, Literal

from pytorch_lightning import LightningModule
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, distributed

from ..data.samples import Sample
from ..errors import ConfigError
from ..metrics import SUMMARY, Scores, SegmentationScores, class_counts
from ..protocol import Protocol, usual_stride
from ..reducers import Reducer
from ..regions import region
from ..segmenter import Segmenter, build_segmenter, read_checkpoint, read_protocol
from ..segmenter.weights import resolve_checkpoint
from .compiling import CompiledWindows, CompileMode, one_graph
from .inference import Prediction, SlidingWindow, Stage, WindowForward, run_windows


@dataclass(frozen=True)
class ImageResult:
    """Counts of one image, from which every score of it or of a subset follows."""

    index: int
    name: str
    size: tuple[int, int]
    windows: int
    windows_unreduced: int
    counts: list[list[int]]  # intersection, prediction, label pixels per class


class SegmenterModule(LightningModule):
    """Evaluates a Segmenter with a token reducer by sliding windows.

    Args:
        checkpoint: A file or folder of any known layout, or the name of known weights (``demo`` is bundled).
        reducer: Token reducer; ``null`` runs all tokens through all layers.
        convention: Whose normalisation constants, interpolation and windows to follow: ``mmseg`` (the
            reference implementation of the published tables), ``official``, or ``null`` for the layout's own.
        window: Side of a sliding window in pixels; by default the known weights' or the checkpoint's.
        stride: Distance of windows in pixels; by default the known weights' or the checkpoint's.
        window_batch_size: Windows of one image that go through the model at once.
        weights_folder: Folder of downloaded weights; by default ``$LIGHTNING_EXPEDITE_WEIGHTS`` or the user's cache.
        compile: Whether the model is compiled, once before the first image, and in which mode of ``torch.compile``
            (``true``: ``default``). With ``reduce-overhead`` a GPU replays CUDA graphs.
    """

    def __init__(
        self,
        checkpoint: str,
        reducer: Reducer | None = None,
        convention: Literal["official", "mmseg"] | None = "mmseg",
        window: int | None = None,
        stride: int | None = None,
        window_batch_size: int = 4,
        weights_folder: str | None = None,
        compile: bool | CompileMode = False,
    ) -> None:
        super().__init__()
        for name, value in (("window", window), ("stride", stride), ("window_batch_size", window_batch_size)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}: it must be 1 or more")
        self.checkpoint = checkpoint
        self.reducer = reducer
        self.convention = convention
        self.window = window
        self.stride = stride
        self.window_batch_size = window_batch_size
        self.weights_folder = weights_folder
        self.compile_mode: CompileMode | None = (
            ("default" if compile else None) if isinstance(compile, bool) else compile
        )
        self.model: Segmenter | None = None
        self.sliding_window: SlidingWindow | None = None
        self.scores: SegmentationScores | None = None
        self.result: Scores | None = None
        self.images: list[ImageResult] = []
        self.stage: Stage = region  # entered around the parts of the work; a profiler may put its own here
        self._protocol: Protocol | None = None

    @property
    def protocol(self) -> Protocol:
        """What the weights say about their evaluation; data modules ask for it."""
        if self._protocol is None:
            self._protocol = read_protocol(self.checkpoint, self.weights_folder)
        return self._protocol

    def prepare_data(self) -> None:
        """Fetch known weights where they are missing, on one process."""
        resolve_checkpoint(self.checkpoint, self.weights_folder)

    def configure_model(self) -> None:
        """Load the weights and settle the windows.

        Raises:
            CheckpointError: The checkpoint is missing or damaged.
            ReducerError: The reducer cannot apply to the model.
            ConfigError: The windows or the number of classes do not fit.
        """
        if self.model is not None:
            return
        checkpoint = read_checkpoint(resolve_checkpoint(self.checkpoint, self.weights_folder))
        self.model = build_segmenter(checkpoint, self.reducer, self.convention)
        self.sliding_window = self.settle_windows(self.model)
        if self.trainer.testing:
            self._check_classes(self.model)
            self.scores = SegmentationScores(self.model.num_classes)

    def settle_windows(self, model: Segmenter) -> SlidingWindow:
        """Choose window and stride: those that were given, else the weights' own.

        Raises:
            ConfigError: No stride is known, or it leaves gaps.
        """
        trained = model.architecture.image_size
        window = self.window or self.protocol.window or max(trained)
        stride = self.stride or self.protocol.stride or usual_stride(window)
        if stride < 1:
            raise ConfigError(f"no stride is known for windows of {window} pixels; give --model.stride")
        if stride > window:
            raise ConfigError(f"stride {stride} is above window {window}: parts of the image would have no logits")
        if trained != (window, window):
            rank_zero_warn(
                f"the position embeddings of {self.checkpoint} are for {trained[0]} x {trained[1]} pixels, "
                f"windows are {window} x {window}: the embeddings are resampled"
            )
        forward: WindowForward = run_windows
        if self.compile_mode is not None:
            whole = one_graph(model.reducer)
            forward = CompiledWindows(window, self.window_batch_size, self.compile_mode, whole)
        return SlidingWindow(window, stride, self.window_batch_size, model.convention.name, forward)

    def on_test_epoch_start(self) -> None:
        """Start counting anew."""
        self._counter().reset()
        self.images, self.result = [], None

    def test_step(self, batch: list[Sample], batch_index: int) -> None:
        """Label the images of a batch and count their pixels."""
        for sample in batch:
            if sample["index"] < 0:
                continue  # the placeholder of a process without images
            prediction = self.label(sample)
            assert sample["label"] is not None, "test data have labels"
            counter = self._counter()
            with self.stage("score"):
                target = sample["label"].to(prediction.labels.device)
                counts = class_counts(prediction.labels[None], target[None], counter.num_classes, counter.ignore_index)[
                    0
                ]
                counter.add_counts(counts)
            self.images.append(
                ImageResult(
                    sample["index"],
                    sample["name"],
                    (sample["size"][0], sample["size"][1]),
                    prediction.windows,
                    prediction.windows_unreduced,
                    counts.tolist(),
                )
            )

    def on_test_epoch_end(self) -> None:
        """Sum up over all processes."""
        self.result = self._counter().compute()
        self.log_dict({name: self.result[name].float() for name in SUMMARY}, sync_dist=True)
        self.images = gather_images(self.images)

    def predict_step(self, batch: list[Sample], batch_index: int) -> list[tuple[str, Tensor]]:
        """Label the images of a batch: names and maps ``(H, W)`` on the CPU."""
        return [(sample["name"], self.label(sample).labels.cpu()) for sample in batch if sample["index"] >= 0]

    def label(self, sample: Sample) -> Prediction:
        """Label one image at its stored size."""
        assert self.model is not None, "configure_model() comes first"
        assert self.sliding_window is not None
        views = [(view["image"], view["mirrored"]) for view in sample["views"]]
        return self.sliding_window.predict(self.model, views, (sample["size"][0], sample["size"][1]), self.stage)

    def _counter(self) -> SegmentationScores:
        assert self.scores is not None, "configure_model() comes first"
        return self.scores

    def _check_classes(self, model: Segmenter) -> None:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is not None and data.num_classes != model.num_classes:
            raise ConfigError(
                f"checkpoint {self.checkpoint} predicts {model.num_classes} classes, {type(data).__name__} has "
                f"{data.num_classes}: choose weights that were trained on this data set"
            )


def gather_images(images: list[ImageResult]) -> list[ImageResult]:
    """Collect the images of all processes, in the order of the data set."""
    if distributed.is_available() and distributed.is_initialized():
        parts: list[list[ImageResult]] = [[] for _ in range(distributed.get_world_size())]
        distributed.all_gather_object(parts, images)
        images = [image for part in parts for image in part]
    return sorted(images, key=lambda image: image.index)
