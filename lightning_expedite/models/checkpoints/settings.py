"""Settings files beside the tensors: `variant.yml` of the official code, and ``config.json`` of `save_pretrained`."""

import inspect
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from ...errors import CheckpointError, ReducerError
from ...files import parse_yaml, read_text
from ...protocol import Normalization, Positive, Protocol, official_stride
from ...reducers.base import Reducer
from ...text import shortened
from ...version import __version__
from ..segmenter.architecture import Architecture, ConventionName, DecoderName

MODEL_CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CHECKPOINT_FILE = "checkpoint.pth"
VARIANT_FILE = "variant.yml"
LIBRARY = "lightning_expedite"
VARIANT_HINT = "Write it into {}, for example: net_kwargs: {{n_heads: 3, normalization: vit, decoder: {{n_heads: 3}}}}"

SizePair = Annotated[
    tuple[Positive, Positive],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list | tuple) else (value, value)),
]
Checked = TypeVar("Checked", bound=BaseModel)


class _Section(BaseModel):
    """A mapping of a settings file; keys that no evaluation needs are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Decoder(_Section):
    """``net_kwargs.decoder`` of a `variant.yml`."""

    name: DecoderName | None = None
    n_heads: Positive | None = None
    n_layers: Positive | None = None


class Network(_Section):
    """``net_kwargs`` of a `variant.yml`."""

    d_model: Positive | None = None
    n_layers: Positive | None = None
    n_heads: Positive | None = None
    n_cls: Positive | None = None
    patch_size: Positive | None = None
    image_size: SizePair | None = None
    distilled: bool | None = None
    normalization: Normalization | None = None
    decoder: Decoder = Decoder()


class TrainingData(_Section):
    """``dataset_kwargs`` of a `variant.yml`."""

    dataset: str | None = None
    image_size: SizePair | None = None
    crop_size: SizePair | None = None
    normalization: Normalization | None = None


class Inference(_Section):
    """``inference_kwargs`` of a `variant.yml`."""

    im_size: Positive | None = None
    im_size_max: Positive | None = None
    window_size: Positive | None = None
    window_stride: Positive | None = None


class VariantFile(_Section):
    """Content of a `variant.yml`."""

    net_kwargs: Network = Network()
    dataset_kwargs: TrainingData = TrainingData()
    inference_kwargs: Inference = Inference()
    convention: ConventionName | None = None  # written by `save_segmenter`

    @property
    def normalization(self) -> Normalization | None:
        """Pixel statistics that the backbone was trained with."""
        return self.dataset_kwargs.normalization or self.net_kwargs.normalization

    def protocol(self, convention: ConventionName, normalization: Normalization, path: Path) -> Protocol:
        """Return the evaluation settings in a convention.

        The official evaluation (``segm/eval/miou.py``) ignores ``inference_kwargs``: its window is
        ``dataset_kwargs.crop_size``, its stride 32 pixels less, and its short side ``dataset_kwargs.image_size``.
        """
        inference, data = self.inference_kwargs, self.dataset_kwargs
        short, window, stride = inference.im_size, inference.window_size, inference.window_stride
        if convention == "official" and data.crop_size is not None:
            short = min(data.image_size) if data.image_size else short
            window, stride = max(data.crop_size), None
        stride = stride or (official_stride(window) if window else None)
        if stride is not None and stride < 1:
            raise CheckpointError(f"{path}: windows of {window} pixels are too small for the official stride, {stride}")
        return Protocol(short, inference.im_size_max, window, stride, normalization)


class StoredReducer(_Section):
    """Name of a reducer's class and its settings, in JSON's types.

    What a file names is never imported: the class is looked up among those of this package and those that the caller
    hands over.
    """

    name: str = Field(alias="class")
    settings: dict[str, Any] = {}

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.settings.items())})"

    def make(self, place: Path, given: Sequence[type[Reducer]] = ()) -> Reducer:
        """Construct the reducer, of a class of this package or one of ``given``.

        Args:
            place: File that it was read from, for messages.
            given: Further classes.

        Raises:
            CheckpointError: The class is neither, or does not take the settings.
        """
        classes = {kind.__name__: kind for kind in (*_package_reducers(), *given)}
        if self.name not in classes:
            raise CheckpointError(
                f"{place}: reducer: class is {self.name!r}, which is not a reducer of this package (there are "
                f"{', '.join(sorted(classes))}): "
                f"hand the class over, from_pretrained(..., reducer={self.name.rpartition('.')[2] or 'Class'}), "
                "or load without a reducer, reducer=None"
            )
        try:
            return classes[self.name](**self.settings)
        except (ReducerError, TypeError, ValueError) as error:
            raise CheckpointError(f"{place}: reducer: {self.name} does not take the settings: {error}") from error


class ModelConfig(_Section):
    """Content of a ``config.json``; ``classes`` are the class names in the order of the logits."""

    library_name: Literal["lightning_expedite"] = "lightning_expedite"
    model_type: Literal["segmenter"] = "segmenter"
    format: Literal[1] = 1
    made_with: str = f"{LIBRARY} {__version__}"
    architecture: Architecture
    convention: ConventionName
    protocol: Protocol
    classes: tuple[str, ...] | None = None
    reducer: StoredReducer | None = None

    @model_validator(mode="after")
    def _one_name_per_class(self) -> "ModelConfig":
        if self.classes is not None and len(self.classes) != self.architecture.num_classes:
            raise ValueError(
                f"classes has {len(self.classes)} names, the model {self.architecture.num_classes} classes"
            )
        return self


def store_reducer(reducer: Reducer) -> StoredReducer:
    """Describe a reducer by the arguments of its constructor, which it keeps as attributes of the same names.

    Raises:
        ReducerError: An argument is kept under another name, or JSON cannot hold it.
    """
    name = type(reducer).__name__
    settings = {}
    for parameter in inspect.signature(type(reducer)).parameters:
        if not hasattr(reducer, parameter):
            raise ReducerError(
                f"{name} keeps no attribute {parameter} for its argument of that name, so it cannot be stored: "
                "keep it, or store the model without its reducer (model.reducer = None)"
            )
        settings[parameter] = getattr(reducer, parameter)
    try:
        return StoredReducer.model_validate(
            {"class": name, "settings": json.loads(json.dumps(settings, allow_nan=False))}
        )
    except (TypeError, ValueError) as error:
        raise ReducerError(f"{name} cannot be stored: its settings are not of JSON's types ({error})") from error


def read_variant(path: Path) -> VariantFile:
    """Read a `variant.yml`; a missing file is an empty one.

    Raises:
        CheckpointError: It is not a YAML mapping, or holds an impossible value.
    """
    if not is_file(path):
        return VariantFile()
    try:  # the official training script writes pairs with a tag of Python's, which a safe loader does not know
        content = parse_yaml(read_text(path).replace("!!python/tuple", ""))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise CheckpointError(
            f"{path} is not readable YAML ({' '.join(str(error).split())}); restore it from where it came"
        ) from error
    return _validated(VariantFile, content, path)


def read_config(path: Path) -> ModelConfig:
    """Read a ``config.json``.

    Raises:
        CheckpointError: It is damaged, another library's, or holds an impossible value.
    """
    content = _read_json(path)
    if content.get("library_name") != LIBRARY:
        raise CheckpointError(
            f"{path} is another library's: its library_name is {content.get('library_name')!r}, not {LIBRARY!r}. "
            f"Models are stored by Segmenter.save_pretrained, or converted with `python -m {LIBRARY} convert`"
        )
    return _validated(ModelConfig, json.dumps(content), path)


def config_beside(weights: Path) -> ModelConfig | None:
    """Read the ``config.json`` that belongs to a weights file.

    Returns:
        ``None`` where there is none: beside weights of another name, and where a `variant.yml` describes the weights
        and ``config.json`` is another library's.

    Raises:
        CheckpointError: See `read_config`.
    """
    path = weights.with_name(MODEL_CONFIG_FILE)
    if weights.name != WEIGHTS_FILE or not is_file(path):
        return None
    if is_file(weights.with_name(VARIANT_FILE)) and _read_json(path).get("library_name") != LIBRARY:
        return None
    return read_config(path)


def is_file(path: Path) -> bool:
    """Return whether there is a file.

    Raises:
        CheckpointError: There is something else, such as a broken link, which must not pass for an absent file.
    """
    if not path.is_file() and os.path.lexists(path):
        raise CheckpointError(f"{path} is not a file, or a broken link; restore it from where it came, or remove it")
    return path.is_file()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = TypeAdapter(dict[str, Any]).validate_json(read_text(path))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path} is not a readable JSON mapping ({reason}); fetch or store the model again"
        ) from error
    return content


def _validated(kind: type[Checked], content: Any, path: Path) -> Checked:
    try:
        return kind.model_validate_json(content) if isinstance(content, str) else kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ": ".join(key for key in first["loc"] if isinstance(key, str) and key.isidentifier()) or "its content"
        if first["type"] in ("missing", "value_error"):
            raise CheckpointError(f"{path}: {place}: {first['msg']}") from error
        expected = first["msg"].replace("Input should be", "it must be")
        raise CheckpointError(f"{path}: {place} is {shortened(repr(first['input']), 120)}; {expected}") from error


def _package_reducers() -> Iterator[type[Reducer]]:
    waiting: list[Any] = [Reducer]
    while waiting:
        found = waiting.pop()
        waiting += found.__subclasses__()
        if found.__module__.startswith(f"{LIBRARY}.reducers.") and not inspect.isabstract(found):
            yield found
