"""``config.json``: what a folder or a repository of the Hugging Face hub says about the model in it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import CheckpointError
from ...files import read_text
from ...protocol import Protocol
from ...version import __version__
from .architecture import CONVENTIONS, Architecture, ConventionName
from .decoders import DECODERS
from .sizes import architecture_of
from .stored_reducer import StoredReducer, read_reducer
from .variant import LARGEST, NORMALIZATIONS, Section, is_there
from .weights import VARIANT_FILE

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
LIBRARY = "lightning_expedite"
FORMAT = 1

_WHOLE = ("patch_size", "width", "depth", "heads", "num_classes", "decoder_width", "decoder_depth", "decoder_heads")
_RATIOS = ("mlp_ratio", "decoder_mlp_ratio")
_FLAGS = ("class_token", "distilled")
_OF_TENSORS = ("patch_size", "width", "depth", "num_classes", "decoder", "class_token", "distilled")
_OF_MASK_TENSORS = ("decoder_width", "decoder_depth")


@dataclass(frozen=True)
class ModelConfig:
    """The content of a ``config.json``.

    ``classes`` are the class names in the order of the logits, where they are known.
    """

    architecture: Architecture
    convention: ConventionName
    protocol: Protocol
    classes: tuple[str, ...] | None = None
    reducer: StoredReducer | None = None

    def to_json(self) -> str:
        """Give the file's text."""
        content = {
            "library_name": LIBRARY,
            "model_type": "segmenter",
            "format": FORMAT,
            "made_with": f"{LIBRARY} {__version__}",
            "architecture": asdict(self.architecture),
            "convention": self.convention,
            "protocol": asdict(self.protocol),
            "classes": self.classes,
            "reducer": self.reducer and {"class": self.reducer.name, "settings": self.reducer.settings},
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def config_beside(weights: Path) -> ModelConfig | None:
    """Read the ``config.json`` that belongs to a weights file.

    Args:
        weights: Path of the weights.

    Returns:
        ``None`` where there is none: beside weights of another name, and where a `variant.yml` speaks for the weights
        and ``config.json`` is another project's.

    Raises:
        CheckpointError: The file is damaged, or another project's with nothing else beside it.
    """
    path = weights.parent / CONFIG_FILE
    if weights.name != WEIGHTS_FILE or not is_there(path):
        return None
    content = _read_json(path)
    if content.get("library_name") != LIBRARY and is_there(weights.parent / VARIANT_FILE):
        return None
    return parse_config(content, path)


def read_config(path: Path) -> ModelConfig:
    """Read a ``config.json``.

    Raises:
        CheckpointError: It is damaged, another project's, or holds a value that cannot be.
    """
    return parse_config(_read_json(path), path)


def parse_config(content: Mapping[str, Any], path: Path) -> ModelConfig:
    """Check the content of a ``config.json``; see `read_config`."""
    top = Section(str(path), content)
    if content.get("library_name") != LIBRARY:
        raise CheckpointError(
            f"{path} is another library's: its library_name is {content.get('library_name')!r}, not {LIBRARY!r}. "
            f"Models are stored by Segmenter.save_pretrained, or converted with `python -m {LIBRARY} convert`"
        )
    if content.get("format") != FORMAT:
        raise top.error("format", f"{FORMAT}; the file was made with {content.get('made_with')}: update {LIBRARY}")
    architecture = _read_architecture(top.section("architecture"))
    return ModelConfig(
        architecture,
        _given(top, "convention", top.choice("convention", tuple(CONVENTIONS))),
        _read_protocol(top.section("protocol")),
        _read_classes(top, architecture.num_classes),
        read_reducer(top.section("reducer")) if top.values.get("reducer") is not None else None,
    )


def require_agreement(config: ModelConfig, state: Mapping[str, Tensor], weights: Path) -> None:
    """Raise `CheckpointError` where stored tensors contradict the config, or are missing."""
    said = config.architecture
    place = str(weights.parent / CONFIG_FILE)
    decoder = {"n_heads": said.decoder_heads}
    network = {"image_size": list(said.image_size), "n_heads": said.heads, "decoder": decoder}
    found = architecture_of(state, Section(place, {"net_kwargs": network}), str(weights))
    names = _OF_TENSORS + (_OF_MASK_TENSORS if found.decoder == "mask_transformer" else ())
    section = Section(f"{place}: architecture", asdict(said))
    for name in names:
        if getattr(said, name) != getattr(found, name):
            raise section.error(name, f"{getattr(found, name)!r}, as the tensors in {weights.name} are")


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(read_text(path), object_pairs_hook=_once)
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no readable JSON ({error}); fetch or store the model again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must be a mapping; it holds {type(content).__name__}")
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a mapping, refusing keys that stand twice, of which JSON's reader drops the first."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key stands twice in one mapping")
    return content


def _read_architecture(section: Section) -> Architecture:
    unknown = sorted(section.values.keys() - {field.name for field in fields(Architecture)})
    if unknown:
        raise CheckpointError(f"{section.place}: {unknown[0]} is no size of this model; leave it out")
    values: dict[str, Any] = {name: _given(section, name, section.whole(name)) for name in _WHOLE}
    values |= {name: _positive(section, name) for name in _RATIOS}
    values |= {name: _given(section, name, section.choice(name, (True, False))) for name in _FLAGS}
    values["decoder"] = _given(section, "decoder", section.choice("decoder", tuple(DECODERS)))
    values["image_size"] = _given(section, "image_size", section.size("image_size"))
    for heads, width in (("heads", "width"), ("decoder_heads", "decoder_width")):
        if values[width] % values[heads]:
            raise section.error(heads, f"a divisor of {width}, which is {values[width]}")
    return Architecture(**values)


def _read_protocol(section: Section) -> Protocol:
    sizes = {name: section.whole(name) for name in ("short_side", "long_side", "window", "stride")}
    normalization = section.choice("normalization", NORMALIZATIONS)
    return Protocol(**sizes, normalization=_given(section, "normalization", normalization))


def _read_classes(top: Section, number: int) -> tuple[str, ...] | None:
    names = top.values.get("classes")
    if names is None:
        return None
    if not isinstance(names, list) or len(names) != number or not all(isinstance(name, str) for name in names):
        raise top.error("classes", f"null or a list of {number} names")
    return tuple(names)


def _positive(section: Section, key: str) -> float:
    value = section.values.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= LARGEST:
        raise section.error(key, f"a number above 0, at most {LARGEST:,}")
    return float(value)


def _given(section: Section, key: str, value: Any) -> Any:
    if value is None:
        raise section.error(key, "given")
    return value
