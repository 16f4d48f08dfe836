"""Settings files beside the tensors: `variant.yml` of the official code, and ``config.json`` of `save_pretrained`."""

import inspect
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AliasPath, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ...errors import CheckpointError, ReducerError
from ...files import parse_yaml, read_text, write_atomically
from ...protocol import Normalization, Positive, Protocol
from ...reducers import Reducer
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


def _at(*place: str) -> Any:
    return Field(default=None, validation_alias=AliasPath(*place))


class _Settings(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class VariantFile(_Settings):
    """What is read from a `variant.yml`, by the names of `Architecture` and `Protocol`, and where it stands there."""

    width: Positive | None = _at("net_kwargs", "d_model")
    depth: Positive | None = _at("net_kwargs", "n_layers")
    heads: Positive | None = _at("net_kwargs", "n_heads")
    num_classes: Positive | None = _at("net_kwargs", "n_cls")
    patch_size: Positive | None = _at("net_kwargs", "patch_size")
    image_size: SizePair | None = _at("net_kwargs", "image_size")
    distilled: bool | None = _at("net_kwargs", "distilled")
    normalization: Normalization | None = _at("net_kwargs", "normalization")
    decoder: DecoderName | None = _at("net_kwargs", "decoder", "name")
    decoder_heads: Positive | None = _at("net_kwargs", "decoder", "n_heads")
    decoder_depth: Positive | None = _at("net_kwargs", "decoder", "n_layers")
    data_set: str | None = _at("dataset_kwargs", "dataset")
    data_size: SizePair | None = _at("dataset_kwargs", "image_size")
    data_crop: SizePair | None = _at("dataset_kwargs", "crop_size")
    data_normalization: Normalization | None = _at("dataset_kwargs", "normalization")
    short_side: Positive | None = _at("inference_kwargs", "im_size")
    long_side: Positive | None = _at("inference_kwargs", "im_size_max")
    window: Positive | None = _at("inference_kwargs", "window_size")
    stride: Positive | None = _at("inference_kwargs", "window_stride")
    convention: ConventionName | None = None  # written by `save_segmenter`
    # A section that is not a mapping would pass for an empty one.
    net_kwargs: dict[str, Any] = {}
    dataset_kwargs: dict[str, Any] = {}
    inference_kwargs: dict[str, Any] = {}
    decoder_section: dict[str, Any] = Field(default={}, validation_alias=AliasPath("net_kwargs", "decoder"))


VARIANT_KEYS: dict[str, list[str]] = {
    name: [str(key) for key in field.validation_alias.path]
    for name, field in VariantFile.model_fields.items()
    if isinstance(field.validation_alias, AliasPath)
}
"""Where `VariantFile` finds what in a `variant.yml`, from the outermost key to the innermost."""


class StoredReducer(_Settings):
    """Name of a reducer's class and its settings, in JSON's types. What a file names is never imported."""

    name: str = Field(alias="class")
    settings: dict[str, Any] = {}

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.settings.items())})"

    def make(self, path: Path, given: Sequence[type[Reducer]] = ()) -> Reducer:
        """Construct the reducer, of a class of this package or one of ``given``; ``path`` is named in messages.

        Raises:
            CheckpointError: The class is neither, or does not take the settings.
        """
        classes = {kind.__name__: kind for kind in (*package_reducers(), *given)}
        if self.name not in classes:
            raise CheckpointError(
                f"{path}: reducer: class is {self.name!r}, which is not a reducer of this package (there are "
                f"{', '.join(sorted(classes))}): "
                f"hand the class over, from_pretrained(..., reducer={self.name.rpartition('.')[2] or 'Class'}), "
                "or load without a reducer, reducer=None"
            )
        try:
            return classes[self.name](**self.settings)
        except (ReducerError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: reducer: {self.name} does not take the settings: {error}") from error


class ModelConfig(_Settings):
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
        count = self.architecture.num_classes
        if self.classes is not None and len(self.classes) != count:
            raise ValueError(f"classes has {len(self.classes)} names, the model {count} classes")
        return self


def package_reducers(kind: type[Reducer] = Reducer) -> Iterator[type[Reducer]]:
    """Return the reducers of this package."""
    for found in kind.__subclasses__():
        if found.__module__.startswith(f"{LIBRARY}.reducers."):
            yield found
        yield from package_reducers(found)


def store_reducer(reducer: Reducer) -> StoredReducer:
    """Describe a reducer by the arguments of its constructor, which it keeps as attributes of the same names.

    Raises:
        ReducerError: An argument is kept under another name, or JSON cannot hold it.
    """
    name = type(reducer).__name__
    try:
        settings = {argument: getattr(reducer, argument) for argument in inspect.signature(type(reducer)).parameters}
        return StoredReducer.model_validate_json(json.dumps({"class": name, "settings": settings}, allow_nan=False))
    except AttributeError as error:
        raise ReducerError(
            f"{name} keeps no attribute {error.name} for its argument of that name, so it cannot be stored: "
            "keep it, or store the model without its reducer (model.reducer = None)"
        ) from error
    except (TypeError, ValueError) as error:
        raise ReducerError(f"{name} cannot be stored: its settings are not of JSON's types ({error})") from error


def read_variant(weights: Path) -> VariantFile:
    """Read the `variant.yml` beside a weights file; a missing one is empty.

    Raises:
        CheckpointError: It is not a YAML mapping, or holds an impossible value.
    """
    path = weights.with_name(VARIANT_FILE)
    if not is_file(path):
        return VariantFile()
    try:  # the official training script writes pairs with a tag of Python's, which a safe loader does not know
        content = parse_yaml(read_text(path).replace("!!python/tuple", ""))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} is not readable YAML ({reason}); restore it from where it came") from error
    return validated(VariantFile, content, path)


def write_variant(
    folder: Path,
    architecture: Architecture,
    convention: ConventionName,
    protocol: Protocol,
    official: Protocol | None = None,
) -> None:
    """Write a `variant.yml`, with the settings in the official convention where they differ from ``protocol``."""
    values: dict[str, Any] = {**vars(architecture), **vars(protocol)}
    if official is not None and official != protocol:
        values |= {"data_crop": official.window, "data_size": official.short_side}
    content: dict[str, Any] = {"convention": convention}
    for name, (*sections, key) in VARIANT_KEYS.items():
        if values.get(name) is not None:
            section = content
            for part in sections:
                section = section.setdefault(part, {})
            section[key] = values[name]
    write_atomically(folder / VARIANT_FILE, yaml.safe_dump(content).encode())


def read_config(weights: Path) -> ModelConfig | None:
    """Read the ``config.json`` that belongs to a weights file.

    Returns:
        ``None`` where there is none: beside weights of another name, and where a `variant.yml` describes the weights
        and ``config.json`` is another library's.

    Raises:
        CheckpointError: It is damaged, another library's, or holds an impossible value.
    """
    path = weights.with_name(MODEL_CONFIG_FILE)
    if weights.name != WEIGHTS_FILE or not is_file(path):
        return None
    try:
        text = read_text(path)
        content = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}); fetch or store the model again") from error
    library = content.get("library_name") if isinstance(content, dict) else None
    if library == LIBRARY:
        return validated(ModelConfig, text, path)
    if is_file(weights.with_name(VARIANT_FILE)):
        return None
    raise CheckpointError(
        f"{path} is another library's: its library_name is {library!r}, not {LIBRARY!r}. "
        f"Models are stored by Segmenter.save_pretrained, or converted with `python -m {LIBRARY} convert`"
    )


def is_file(path: Path) -> bool:
    """Return whether there is a file; refuse what must not pass for an absent one, such as a broken link."""
    if not path.is_file() and os.path.lexists(path):
        raise CheckpointError(f"{path} is not a file, or a broken link; restore it from where it came, or remove it")
    return path.is_file()


def validated(kind: type[Checked], content: Any, place: object) -> Checked:
    """Validate a mapping or JSON text; raise `CheckpointError` with the place and the first impossible value."""
    try:
        return kind.model_validate_json(content) if isinstance(content, str) else kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ": ".join(key for key in first["loc"] if isinstance(key, str) and key.isidentifier()) or "its content"
        if first["type"] in ("missing", "value_error"):
            raise CheckpointError(f"{place}: {key}: {first['msg']}") from error
        expected = first["msg"].replace("Input should be", "it must be")
        raise CheckpointError(f"{place}: {key} is {shortened(repr(first['input']), 120)}; {expected}") from error
