"""The LightningModule that wires model, windows and metrics together."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass
from pytorch_lightning import LightningModule
from torch import Tensor

from ..data.samples import IGNORE_INDEX, Sample
from ..errors import ConfigError, OutputError
from ..models import Segmenter, load, read_protocol, resolve_checkpoint, warn_pack_weights, with_reducer
from ..protocol import Protocol, choose_windows, require_positive
from ..reducers import Reducer
from ..regions import region
from .compiling import CompiledWindows, CompileMode, one_graph, require_compiler
from .device_memory import predict_in_memory
from .finite import require_finite
from .inference import Prediction, SlidingWindow, StageContext, Views, WindowForward, run_windows
from .metrics import SUMMARY, Scores, SegmentationScores, class_counts, scores_of
from .notices import FirstImages, Notices, gather

Count = Annotated[int, Field(strict=True, ge=0)]


@dataclass(frozen=True)
class ImageResult:
    """Pixel counts of one image, from which its scores and those of any subset follow."""

    index: Count
    name: str
    size: tuple[Count, Count]
    windows: Count
    windows_unreduced: Count
    counts: list[list[Count]]  # intersection, prediction, label pixels per class
    digest: str | None = None  # of the image and its label as they were read, where the data module computes one

    @field_validator("counts")
    @classmethod
    def _are_possible(cls, counts: list[list[int]], info: ValidationInfo) -> list[list[int]]:
        intersection, prediction, label = counts
        if any(hit > min(pixels) for hit, *pixels in zip(intersection, prediction, label, strict=True)):
            raise ValueError("an intersection is larger than its prediction or label")
        if max(sum(prediction), sum(label)) > math.prod(info.data.get("size", ())):
            raise ValueError("more pixels than the image has")
        return counts


class SegmenterModule(LightningModule):
    """Evaluates a Segmenter with a token reducer by sliding windows.

    Args:
        checkpoint: A file or folder of any known layout, the name of known weights (``demo`` is bundled), or
            ``hf://owner/name`` (``hf://owner/name@revision``) for a model of the Hugging Face hub.
        reducer: Token reducer; ``null`` runs all tokens through all layers (the baseline).
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
        warn_pack_weights(pack_weights)
        self.model: Segmenter | None = None
        self.sliding_window: SlidingWindow | None = None
        self.scores: SegmentationScores | None = None
        self.result: Scores | None = None
        self.images: list[ImageResult] = []
        self.finished: list[ImageResult] = []  # by an interrupted run; on the first process only
        self.stage: StageContext = region  # a profiler may put its own here
        self.notices = Notices()
        self._first_images = FirstImages()
        self._protocol: Protocol | None = None

    @property
    def protocol(self) -> Protocol:
        """Evaluation settings that come with the weights; data modules ask for it."""
        if self._protocol is None:
            self._protocol = read_protocol(self.checkpoint, self.weights_folder, self.convention)
        return self._protocol

    def prepare_data(self) -> None:
        """Download known weights where they are missing, on one process."""
        resolve_checkpoint(self.checkpoint, self.weights_folder)

    def configure_model(self) -> None:
        """Load the model and build its windows; Lightning calls it on every process.

        Raises:
            CheckpointError: The checkpoint is missing or damaged.
            ReducerError: The reducer cannot apply to the model.
            ConfigError: The windows or the number of classes do not fit.
        """
        if self.model is not None:
            return
        self.model = self.load_model()
        self.sliding_window = self.build_sliding_window(self.model)
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.trainer.testing:
            self.check_classes(data)
            self.scores = SegmentationScores(self.model.num_classes)
        elif self.trainer.predicting and data is not None and data.num_classes != self.model.num_classes:
            self.notices.add(
                f"checkpoint {self.checkpoint} predicts {self.model.num_classes} classes, {type(data).__name__} has "
                f"{data.num_classes}: label maps hold the model's, whose names and colours are not the data set's"
            )

    def load_model(self) -> Segmenter:
        """Load the model with its reducer; no trainer is needed.

        Raises:
            CheckpointError: The checkpoint is missing or damaged.
            ReducerError: The reducer cannot apply to the model.
        """
        model = load(self.checkpoint, self.reducer, convention=self.convention, weights_folder=self.weights_folder)
        if model.stored_reducer is not None and self.reducer is None:
            self.notices.add(
                f"{self.checkpoint} was stored with the reducer {model.stored_reducer}, which is not applied here: "
                "choose one with --model.reducer"
            )
        return model

    def build_sliding_window(self, model: Segmenter) -> SlidingWindow:
        """Build the sliding window from the window and stride given here, else from the weights' own.

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
            forward = CompiledWindows(window, self.window_batch_size, self.compile_mode, one_graph(model.reducer))
        return SlidingWindow(window, stride, self.window_batch_size, model.convention.name, forward)

    def on_test_epoch_start(self) -> None:
        """Start counting from what an interrupted run has finished.

        Raises:
            OutputError: That was counted for another number of classes.
        """
        scores = self._require_scores()
        scores.reset()
        for image in self.finished:
            counts = torch.tensor(image.counts)
            if counts.shape[1] != scores.num_classes:
                raise OutputError(
                    f"an interrupted run has counted {image.name} for {counts.shape[1]} classes, but the model has "
                    f"{scores.num_classes}: use --overwrite to start again"
                )
            scores.add_counts(counts)
        self.images, self.result = list(self.finished), None

    def test_step(self, batch: list[Sample], batch_index: int) -> None:
        """Predict the images of a batch and count their pixels.

        Raises:
            NumericalError: Logits are NaN or infinite.
            DeviceMemoryError: Memory does not suffice, not even for half the windows at once.
        """
        scores = self._require_scores()
        for sample in batch:
            if sample["index"] < 0:
                continue  # the placeholder of a process without images
            prediction = self.predict(sample)
            assert sample["label"] is not None, "test data have labels"
            with self.stage("score"):
                labels, target = prediction.labels[None], sample["label"].to(prediction.labels.device)[None]
                counts = class_counts(labels, target, scores.num_classes, scores.ignore_index)[0]
                scores.add_counts(counts)
            self._check_outputs(sample, prediction)
            self.images.append(
                ImageResult(
                    sample["index"],
                    sample["name"],
                    sample["size"],
                    prediction.windows,
                    prediction.windows_unreduced,
                    counts.tolist(),
                    sample.get("digest"),
                )
            )

    def on_test_epoch_end(self) -> None:
        """Sum the counts over all processes."""
        scores = self._require_scores()
        with scores.sync_context():
            self.result = scores_of(scores.counts.cpu())  # compute() would make scalars of a single class's scores
        self.log_dict({name: self.result[name].float() for name in SUMMARY}, sync_dist=True)
        self.images = sorted(gather(self.images), key=lambda image: image.index)
        for text in self._first_images.finish():
            self.notices.add(text)
        self.notices.gather()

    def predict_step(self, batch: list[Sample], batch_index: int) -> list[tuple[str, Tensor]]:
        """Predict the images of a batch: names and label maps ``(H, W)`` on the CPU.

        Raises:
            NumericalError: Logits are NaN or infinite.
            DeviceMemoryError: Memory does not suffice, not even for half the windows at once.
        """
        maps = []
        for sample in batch:
            if sample["index"] < 0:
                continue  # the placeholder of a process without images
            prediction = self.predict(sample)
            maps.append((sample["name"], prediction.labels.cpu()))
            self._check_outputs(sample, prediction)
        return maps

    def predict(self, sample: Sample) -> Prediction:
        """Predict one image at its stored size."""
        model, views, size = self._require_model(), views_of(sample), (sample["size"][0], sample["size"][1])
        return self._fit_memory(lambda windows: windows.predict(model, views, size, self.stage))

    def predict_baseline(self, sample: Sample) -> Prediction:
        """Predict one image without the reducer, uncompiled, by the same windows.

        Raises:
            NumericalError: Logits are NaN or infinite.
        """
        model, views = with_reducer(self._require_model(), None), views_of(sample)
        size = (sample["size"][0], sample["size"][1])
        prediction = self._fit_memory(lambda windows: replace(windows, forward=run_windows).predict(model, views, size))
        require_finite(prediction.finite, model, sample["name"])
        return prediction

    def check_classes(self, data: Any) -> None:
        """Raise `ConfigError` if a data module has another number of classes than the model."""
        model = self._require_model()
        if data is not None and data.num_classes != model.num_classes:
            raise ConfigError(
                f"checkpoint {self.checkpoint} predicts {model.num_classes} classes, {type(data).__name__} has "
                f"{data.num_classes}: choose weights that were trained on this data set"
            )

    def _fit_memory(self, predict: Callable[[SlidingWindow], Prediction]) -> Prediction:
        """Predict an image; where memory runs out, with half as many windows at once from then on."""
        assert self.sliding_window is not None, "configure_model() comes first"
        before = self.sliding_window
        prediction, self.sliding_window = predict_in_memory(predict, before, self.window_batch_size)
        if self.sliding_window is not before:
            size = self.sliding_window.batch_size
            self.notices.add(
                f"memory ran out with {self.window_batch_size} windows at once, so {size} went through the model from "
                f"then on: set --model.window_batch_size {size}",
                every_process=True,
            )
        return prediction

    def _check_outputs(self, sample: Sample, prediction: Prediction) -> None:
        """Check an image's logits, and pixels and labels of the first images, once the device has been waited for."""
        require_finite(prediction.finite, self._require_model(), sample["name"])
        for warning in sample.get("warnings", ()):
            self.notices.add(warning)
        if self.global_rank == 0:  # all processes read by the same data module
            image, target = sample["views"][0]["image"], sample["label"]
            for text in self._first_images.check(image, prediction.labels, target, IGNORE_INDEX):
                self.notices.add(text)

    def _require_model(self) -> Segmenter:
        assert self.model is not None, "configure_model() comes first"
        return self.model

    def _require_scores(self) -> SegmentationScores:
        assert self.scores is not None, "configure_model() comes first"
        return self.scores


def views_of(sample: Sample) -> Views:
    """Return the views of a sample as `SlidingWindow` takes them."""
    return [(view["image"], view["mirrored"]) for view in sample["views"]]
