"""The model card that is stored beside a model."""

import re

from .config import LIBRARY, ModelConfig

_HEAD = f"""---
library_name: {LIBRARY}
pipeline_tag: image-segmentation
tags:
- semantic-segmentation
- segmenter
- vision-transformer
- token-reduction
---
"""


def model_card(config: ModelConfig) -> str:
    """Write the card of a model: what it is, how it is evaluated and how it is loaded.

    It claims no scores and no licence: the library knows neither.
    """
    parts = (_HEAD + "# Segmenter", _what(config), _table(config), _use(config), _classes(config), _todo())
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(config: ModelConfig) -> str:
    sizes = config.architecture
    decoder = sizes.decoder.replace("_", " ")
    text = (
        "A [Segmenter](https://arxiv.org/abs/2105.05633) for semantic segmentation with "
        f"{sizes.num_classes} classes: a vision transformer of {sizes.depth} layers and width {sizes.width} with a "
        f"{decoder} decoder."
    )
    if config.reducer is not None:
        text += f" It was stored with a token reducer, `{config.reducer}`, which changes no weights."
    return text


def _table(config: ModelConfig) -> str:
    sizes, protocol = config.architecture, config.protocol
    rows = {
        "trained image size": f"{sizes.image_size[0]} x {sizes.image_size[1]} pixels",
        "patch size": f"{sizes.patch_size} pixels",
        "attention heads": str(sizes.heads),
        "convention": config.convention,
        "normalization": protocol.normalization,
        "window, stride": _pixels(protocol.window, protocol.stride),
        "short side, long side": _pixels(protocol.short_side, protocol.long_side),
        "token reducer": f"`{config.reducer}`" if config.reducer is not None else "none",
    }
    return "\n".join(("| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())))


def _pixels(*sizes: int | None) -> str:
    return ", ".join("not given" if size is None else f"{size} pixels" for size in sizes)


def _use(config: ModelConfig) -> str:
    lines = [
        "## Use",
        "",
        "```python",
        f"from {LIBRARY} import Segmenter",
        "",
        'model = Segmenter.from_pretrained("owner/name")  # or this folder',
    ]
    if config.reducer is not None:
        lines.append('model = Segmenter.from_pretrained("owner/name", reducer=None)  # all tokens through all layers')
    return "\n".join((*lines, "```"))


def _classes(config: ModelConfig) -> str:
    if config.classes is None:
        return ""
    names = "\n".join(f"{number}. {_literal(name)}" for number, name in enumerate(config.classes))
    return f"## Classes\n\nIn the order of the logits:\n\n{names}"


def _literal(name: str) -> str:
    """Write a name in one line in which Markdown takes nothing for markup: neither its own nor HTML's."""
    return re.sub(r"([\\`*_{}\[\]<>#~$@&!+.:-])", r"\\\1", " ".join(name.split()))


def _todo() -> str:
    return "To be added by the owner: the data the weights were trained on, their licence and their scores."
