"""The LightningModule that wires model, windows and metrics together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from ..data.samples import Sample
from ..errors import ConfigError, OutputError
from ..models.segmenter import Segmenter, build_segmenter, read_checkpoint, read_protocol, with_reducer
from ..models.segmenter.checkpoint import warn_pack_weights
from ..models.segmenter.weights import resolve_checkpoint
from ..protocol import Protocol, choose_windows, require_positive
from ..reducers import Reducer
from ..regions import region
from .compiling import CompiledWindows, CompileMode, one_graph, require_compiler
from .finite import require_finite
from .halving import halved_notice, predict_in_memory
from .inference import Prediction, SlidingWindow, Stage, Views, WindowForward, run_windows
from .input_range import InputRange
from .metrics import SUMMARY, Scores, SegmentationScores, class_counts
from .notices import Notices, gather


@dataclass(frozen=True)
class ImageResult:
    """Counts of one image, from which every score of it or of a subset follows."""

    index: int
    name: str
    size: tuple[int, int]
    windows: int
    windows_unreduced: int
    counts: list[list[int]]  # intersection, prediction, label pixels per class

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "ImageResult":
        """Make one of its fields, as they come back from JSON; other keys are left out.

        Raises:
            KeyError, TypeError, ValueError: A field is missing or of another kind.
        """
        height, width = record["size"]
        known = {field.name: record[field.name] for field in fields(cls)}
        whole = [record["index"], height, width, record["windows"], record["windows_unreduced"]]
        intersection, prediction, label = record["counts"]
        if not len(intersection) == len(prediction) == len(label):
            raise ValueError("counts of different numbers of classes")
        if not all(type(number) is int and number >= 0 for number in (*whole, *intersection, *prediction, *label)):
            raise TypeError("a number that counts nothing")
        return cls(**{**known, "size": (height, width)})


class SegmenterModule(LightningModule):
    """Evaluates a Segmenter with a token reducer by sliding windows.

    Args:
        checkpoint: A file or folder of any known layout, the name of known weights (``demo`` is bundled), or
            ``hf://owner/name`` (``hf://owner/name@revision``) for a model of the Hugging Face hub.
        reducer: Token reducer; ``null`` runs all tokens through all layers.
        convention: Whose normalisation constants, interpolation and windows to follow: ``mmseg`` (the
            reference implementation of the published tables), ``official``, or ``null`` for the layout's own.
        window: Side of a sliding window in pixels; by default the known weights' or the checkpoint's.
        stride: Distance of windows in pixels; by default the known weights' or the checkpoint's.
        window_batch_size: Windows of one image that go through the model at once.
        weights_folder: Folder of downloaded weights; by default ``$LIGHTNING_EXPEDITE_WEIGHTS`` or the user's cache.
        compile: Whether the model is compiled, once before the first image, and in which mode of ``torch.compile``
            (``true``: ``default``). With ``reduce-overhead`` a GPU replays CUDA graphs.
        pack_weights: Deprecated and ignored.
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
        pack_weights: bool | None = None,
    ) -> None:
        super().__init__()
        require_positive(window=window, stride=stride, window_batch_size=window_batch_size)
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
        if pack_weights is not None:
            warn_pack_weights()
        self.model: Segmenter | None = None
        self.sliding_window: SlidingWindow | None = None
        self.scores: SegmentationScores | None = None
        self.result: Scores | None = None
        self.images: list[ImageResult] = []
        self.finished: list[ImageResult] = []  # by an interrupted run; on the first process alone
        self.stage: Stage = region  # entered around the parts of the work; a profiler may put its own here
        self.notices = Notices()
        self._inputs = InputRange()
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
        if checkpoint.reducer is not None and self.reducer is None:
            self.notices.add(
                f"{self.checkpoint} was stored with the reducer {checkpoint.reducer}, which is not applied here: "
                "--model.reducer says what is"
            )
        self.sliding_window = self.settle_windows(self.model)
        if self.trainer.testing:
            self.check_classes(self.trainer.datamodule)  # type: ignore[attr-defined]
            self.scores = SegmentationScores(self.model.num_classes)
        elif self.trainer.predicting:
            self._note_other_classes(self.trainer.datamodule)  # type: ignore[attr-defined]

    def settle_windows(self, model: Segmenter) -> SlidingWindow:
        """Choose window and stride: those that were given, else the weights' own.

        Raises:
            ConfigError: No stride is known, or it leaves gaps; or this PyTorch does not compile reducers.
        """
        trained = model.architecture.image_size
        window, stride = choose_windows(self.window, self.stride, self.protocol, trained)
        if trained != (window, window):
            self.notices.add(
                f"the position embeddings of {self.checkpoint} are for {trained[0]} x {trained[1]} pixels, "
                f"windows are {window} x {window}: the embeddings are resampled"
            )
        forward: WindowForward = run_windows
        if self.compile_mode is not None:
            require_compiler(model.reducer)
            whole = one_graph(model.reducer)
            forward = CompiledWindows(window, self.window_batch_size, self.compile_mode, whole)
        return SlidingWindow(window, stride, self.window_batch_size, model.convention.name, forward)

    def on_test_start(self) -> None:
        """Look at the first images of this run."""
        self._inputs = InputRange()

    def on_predict_start(self) -> None:
        """Look at the first images of this run."""
        self._inputs = InputRange()

    def on_test_epoch_start(self) -> None:
        """Start counting anew, from what an interrupted run has finished.

        Raises:
            OutputError: That was counted for another number of classes.
        """
        counter = self._counter()
        counter.reset()
        for image in self.finished:
            counts = torch.tensor(image.counts)
            if len(counts[0]) != counter.num_classes:
                raise OutputError(
                    f"an interrupted run has counted {image.name} for {len(counts[0])} classes, but the model has "
                    f"{counter.num_classes}: give --overwrite to begin anew"
                )
            counter.add_counts(counts)
        self.images, self.result = list(self.finished), None

    def test_step(self, batch: list[Sample], batch_index: int) -> None:
        """Label the images of a batch and count their pixels.

        Raises:
            NumericalError: Logits are NaN or infinite.
            DeviceMemoryError: Memory does not suffice, not even for half the windows at once.
        """
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
            self._watch(sample, prediction)
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
        self.notices.gather()

    def predict_step(self, batch: list[Sample], batch_index: int) -> list[tuple[str, Tensor]]:
        """Label the images of a batch: names and maps ``(H, W)`` on the CPU.

        Raises:
            NumericalError: Logits are NaN or infinite.
            DeviceMemoryError: Memory does not suffice, not even for half the windows at once.
        """
        maps = []
        for sample in batch:
            if sample["index"] < 0:
                continue  # the placeholder of a process without images
            prediction = self.label(sample)
            maps.append((sample["name"], prediction.labels.cpu()))
            self._watch(sample, prediction)
        return maps

    def label(self, sample: Sample) -> Prediction:
        """Label one image at its stored size."""
        model, views, size = self._ready(), views_of(sample), (sample["size"][0], sample["size"][1])
        return self._predict(lambda windows: windows.predict(model, views, size, self.stage))

    def label_unreduced(self, sample: Sample) -> Prediction:
        """Label one image at its stored size without the reducer, uncompiled, by the same windows.

        Raises:
            NumericalError: Logits are NaN or infinite.
        """
        model, views = with_reducer(self._ready(), None), views_of(sample)
        size = (sample["size"][0], sample["size"][1])
        prediction = self._predict(lambda windows: replace(windows, forward=run_windows).predict(model, views, size))
        require_finite(prediction.finite, model, views, replace(self._windows(), forward=run_windows), sample["name"])
        return prediction

    def _predict(self, predict: Callable[[SlidingWindow], Prediction]) -> Prediction:
        """Label an image with the windows, from now on with half as many at once where memory runs out."""
        before = self._windows()
        prediction, self.sliding_window = predict_in_memory(predict, before, self.window_batch_size)
        if self.sliding_window is not before:
            text = halved_notice(self.sliding_window, self.window_batch_size)
            self.notices.add(text, every_process=True)
        return prediction

    def _watch(self, sample: Sample, prediction: Prediction) -> None:
        """Look at an image's numbers, once the device has been waited for: at logits, and the first pixels of a run."""
        views = views_of(sample)
        require_finite(prediction.finite, self._ready(), views, self._windows(), sample["name"])
        if self.global_rank == 0:  # all processes read by the same data module
            text = self._inputs.look(views[0][0])
            if text is not None:
                self.notices.add(text)

    def _ready(self) -> Segmenter:
        assert self.model is not None, "configure_model() comes first"
        return self.model

    def _windows(self) -> SlidingWindow:
        assert self.sliding_window is not None, "configure_model() comes first"
        return self.sliding_window

    def _counter(self) -> SegmentationScores:
        assert self.scores is not None, "configure_model() comes first"
        return self.scores

    def check_classes(self, data: Any) -> None:
        """Raise `ConfigError` where a data module has another number of classes than the model."""
        assert self.model is not None, "configure_model() comes first"
        if data is not None and data.num_classes != self.model.num_classes:
            raise ConfigError(
                f"checkpoint {self.checkpoint} predicts {self.model.num_classes} classes, {type(data).__name__} has "
                f"{data.num_classes}: choose weights that were trained on this data set"
            )

    def _note_other_classes(self, data: Any) -> None:
        model = self._ready()
        if data is not None and data.num_classes != model.num_classes:
            self.notices.add(
                f"checkpoint {self.checkpoint} predicts {model.num_classes} classes, {type(data).__name__} has "
                f"{data.num_classes}: label maps hold the model's, whose names and colours are not the data set's"
            )


def views_of(sample: Sample) -> Views:
    """Give the views of a sample as `SlidingWindow` takes them."""
    return [(view["image"], view["mirrored"]) for view in sample["views"]]


def gather_images(images: list[ImageResult]) -> list[ImageResult]:
    """Collect the images of all processes, in the order of the data set."""
    return sorted(gather(images), key=lambda image: image.index)
