"""The published weights: their names, where they come from, and where they lie on disk."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import CheckpointError
from ...files import expand_home
from ...protocol import Protocol
from .architecture import Architecture
from .downloads import NoAnswerError, download

WEIGHTS_VARIABLE = "LIGHTNING_EXPEDITE_WEIGHTS"
DEMO = "demo"
DEMO_FOLDER = Path(__file__).parents[2] / "assets" / "demo_segmenter"
_OFFICIAL = "https://www.rocq.inria.fr/cluster-willow/rstrudel/segmenter/checkpoints"
_MMSEG = "https://download.openmmlab.com/mmsegmentation/v0.5/segmenter"
CHECKPOINT_FILE = "checkpoint.pth"
VARIANT_FILE = "variant.yml"

_ADE_640 = Protocol(short_side=640, long_side=2560, window=640, stride=640)
_ADE_640_MMSEG = Protocol(short_side=640, long_side=2560, window=640, stride=608)
_ADE_512 = Protocol(short_side=512, long_side=2048, window=512, stride=480)
_ADE_512_DEIT = replace(_ADE_512, normalization="deit")
_CITYSCAPES = Protocol(window=768, stride=512)
_PASCAL_CONTEXT = Protocol(short_side=520, long_side=4160, window=480, stride=320)

_TINY = Architecture((512, 512), 16, width=192, depth=12, heads=3, num_classes=150)
_SMALL = Architecture((512, 512), 16, width=384, depth=12, heads=6, num_classes=150)
_BASE = Architecture((512, 512), 16, width=768, depth=12, heads=12, num_classes=150)
_LARGE = Architecture((640, 640), 16, width=1024, depth=24, heads=16, num_classes=150)
_DEIT = replace(_BASE, distilled=True)


@dataclass(frozen=True)
class KnownWeights:
    """Weights that somebody published.

    ``files`` maps local names to URLs; ``sha256`` is the start of the weights file's checksum, where known;
    ``miou`` is the published single-scale mIoU in percent, ``protocol`` how it was measured. ``alternative``
    names weights for the same data set elsewhere. ``architecture`` is what the files hold: it lets a model be built,
    and its speed be measured, without them.
    """

    name: str
    data_set: str
    files: tuple[tuple[str, str], ...]
    miou: float | None
    protocol: Protocol
    sha256: str | None = None
    alternative: str | None = None
    architecture: Architecture | None = None


def _official(
    name: str, miou: float | None, protocol: Protocol, architecture: Architecture, alternative: str | None = None
) -> KnownWeights:
    files = tuple((file, f"{_OFFICIAL}/{name}/{file}") for file in (VARIANT_FILE, CHECKPOINT_FILE))
    return KnownWeights(name, name.split("/")[0], files, miou, protocol, None, alternative, architecture)


def _mmseg(
    name: str, stamp: str, sha256: str, miou: float, protocol: Protocol, architecture: Architecture
) -> KnownWeights:
    files = ((CHECKPOINT_FILE, f"{_MMSEG}/{name}/{name}_{stamp}-{sha256}.pth"),)
    return KnownWeights(f"ade20k/{name}", "ade20k", files, miou, protocol, sha256, None, architecture)


_ZOO = "ade20k/segmenter_vit-{}_8x1_512x512_160k_ade20k"
KNOWN_WEIGHTS: dict[str, KnownWeights] = {
    weights.name: weights
    for weights in (
        _official("ade20k/seg_tiny_mask", 38.1, _ADE_512, _TINY, _ZOO.format("t_mask")),
        _official("ade20k/seg_small_mask", 45.3, _ADE_512, _SMALL, _ZOO.format("s_mask")),
        _official("ade20k/seg_base_mask", 48.5, _ADE_512, _BASE, _ZOO.format("b_mask")),
        _official("ade20k/seg_base_patch8", 49.5, _ADE_512, replace(_BASE, patch_size=8), _ZOO.format("b_mask")),
        _official(
            "ade20k/seg_base_deit_linear", 47.1, _ADE_512_DEIT, replace(_DEIT, decoder="linear"), _ZOO.format("b_mask")
        ),
        _official("ade20k/seg_base_deit_mask", 48.7, _ADE_512_DEIT, _DEIT, _ZOO.format("b_mask")),
        _official(
            "ade20k/seg_large_mask", None, _ADE_512, replace(_LARGE, image_size=(512, 512)), _ZOO.format("l_mask")
        ),
        _official("ade20k/seg_large_mask_640", 51.82, _ADE_640, _LARGE, _ZOO.format("l_mask")),
        _official(
            "cityscapes/seg_large_mask",
            79.14,
            _CITYSCAPES,
            replace(_LARGE, image_size=(768, 768), num_classes=19, decoder_depth=1),
        ),
        _official(
            "pascal_context/seg_large_mask",
            58.07,
            _PASCAL_CONTEXT,
            replace(_LARGE, image_size=(480, 480), num_classes=60),
        ),
        _mmseg(
            "segmenter_vit-t_mask_8x1_512x512_160k_ade20k",
            "20220105_151706",
            "ffcf7509",
            39.99,
            _ADE_512,
            _TINY,
        ),
        _mmseg(
            "segmenter_vit-s_linear_8x1_512x512_160k_ade20k",
            "20220105_151713",
            "39658c46",
            45.75,
            _ADE_512,
            replace(_SMALL, decoder="linear"),
        ),
        _mmseg(
            "segmenter_vit-s_mask_8x1_512x512_160k_ade20k",
            "20220105_151706",
            "511bb103",
            46.19,
            _ADE_512,
            _SMALL,
        ),
        _mmseg(
            "segmenter_vit-b_mask_8x1_512x512_160k_ade20k",
            "20220105_151706",
            "bc533b08",
            49.6,
            _ADE_512,
            _BASE,
        ),
        _mmseg(
            "segmenter_vit-l_mask_8x1_512x512_160k_ade20k",
            "20220105_162750",
            "7ef345be",
            52.16,
            _ADE_640_MMSEG,
            _LARGE,
        ),
    )
}


def weights_folder(folder: str | Path | None = None) -> Path:
    """Give the folder of downloaded weights: the argument, the environment variable, or the user's cache."""
    chosen = folder or os.environ.get(WEIGHTS_VARIABLE) or Path("~/.cache/lightning_expedite/weights")
    return expand_home(chosen)


def known_weights(checkpoint: str) -> KnownWeights | None:
    """Look a name up in the table of known weights, unless a path of that name exists."""
    return None if Path(checkpoint).exists() else KNOWN_WEIGHTS.get(checkpoint)


def is_here(checkpoint: str) -> bool:
    """Tell whether a name is a path that exists or a known name."""
    return expand_home(checkpoint).exists() or checkpoint == "demo" or checkpoint in KNOWN_WEIGHTS


def resolve_checkpoint(checkpoint: str | Path, folder: str | Path | None = None) -> Path:
    """Turn a path or a known name into a path on disk, downloading where needed.

    Args:
        checkpoint: A file, a folder, ``"demo"`` for the bundled model, a name of `KNOWN_WEIGHTS`, or
            ``hf://owner/name`` (``hf://owner/name@revision``) for a model of the Hugging Face hub.
        folder: Folder of downloaded weights; see `weights_folder`.

    Raises:
        CheckpointError: There is no such path or name, or the weights are not here and cannot be fetched.
    """
    if str(checkpoint).startswith("hf://"):
        from .hub import fetch, hub_reference  # only here: it reads checkpoints' configs, as this module's users do

        return fetch(hub_reference(str(checkpoint)))
    path = expand_home(checkpoint)
    if path.exists():
        return path
    if str(checkpoint) == DEMO:
        return DEMO_FOLDER
    known = KNOWN_WEIGHTS.get(str(checkpoint))
    if known is None:
        raise CheckpointError(
            f"checkpoint {str(checkpoint)!r} is neither a path nor a known name; known names are demo, "
            + ", ".join(KNOWN_WEIGHTS)
            + "; models of the Hugging Face hub are named hf://owner/name"
        )
    place = weights_folder(folder) / known.name
    for file, url in known.files:
        if not (place / file).is_file():
            _fetch(known, url, place / file)
    return place


def _fetch(known: KnownWeights, url: str, target: Path) -> None:
    sha256 = known.sha256 if target.name == CHECKPOINT_FILE else None
    files = " and ".join(file for file, _ in known.files)
    hints = f"Put {files} into {target.parent}, or set {WEIGHTS_VARIABLE} to the folder that holds {known.name}/."
    if known.alternative:
        hints += f" Weights for the same data set: --model.checkpoint {known.alternative}."
    try:
        download(url, target, sha256)
    except NoAnswerError as error:
        raise CheckpointError(f"weights {known.name} are not on this machine and {error}. {hints}") from error
    except OSError as error:
        reason = f"{target} cannot be written: {error.strerror or error}"
        raise CheckpointError(f"weights {known.name} are not on this machine and {reason}. {hints}") from error
