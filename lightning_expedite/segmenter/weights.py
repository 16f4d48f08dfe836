"""The published weights: their names, where they come from, and where they lie on disk."""

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import CheckpointError
from ..files import whole_file
from ..protocol import Protocol
from .architecture import Architecture

WEIGHTS_VARIABLE = "LIGHTNING_EXPEDITE_WEIGHTS"
DEMO_FOLDER = Path(__file__).parents[1] / "assets" / "demo_segmenter"
_OFFICIAL = "https://www.rocq.inria.fr/cluster-willow/rstrudel/segmenter/checkpoints"
_MMSEG = "https://download.openmmlab.com/mmsegmentation/v0.5/segmenter"
CHECKPOINT_FILE = "checkpoint.pth"
VARIANT_FILE = "variant.yml"
_TIMEOUT_S = 20.0

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
    return Path(chosen).expanduser()


def known_weights(checkpoint: str) -> KnownWeights | None:
    """Look a name up in the table of known weights, unless a path of that name exists."""
    return None if Path(checkpoint).exists() else KNOWN_WEIGHTS.get(checkpoint)


def resolve_checkpoint(checkpoint: str | Path, folder: str | Path | None = None) -> Path:
    """Turn a path or a known name into a path on disk, downloading where needed.

    Args:
        checkpoint: A file, a folder, ``"demo"`` for the bundled model, or a name of `KNOWN_WEIGHTS`.
        folder: Folder of downloaded weights; see `weights_folder`.

    Raises:
        CheckpointError: There is no such path or name, or the weights are not here and cannot be fetched.
    """
    path = Path(checkpoint).expanduser()
    if path.exists():
        return path
    if str(checkpoint) == "demo":
        return DEMO_FOLDER
    known = KNOWN_WEIGHTS.get(str(checkpoint))
    if known is None:
        raise CheckpointError(
            f"checkpoint {str(checkpoint)!r} is neither a path nor a known name; known names are demo, "
            + ", ".join(KNOWN_WEIGHTS)
        )
    place = weights_folder(folder) / known.name
    for file, url in known.files:
        if not (place / file).is_file():
            _fetch(known, url, place / file)
    return place


def _fetch(known: KnownWeights, url: str, target: Path) -> None:
    sha256 = known.sha256 if target.name == CHECKPOINT_FILE else None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = download(url, target, lambda found: not sha256 or found.startswith(sha256))
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        files = " and ".join(file for file, _ in known.files)
        hints = f"Put {files} into {target.parent}, or set {WEIGHTS_VARIABLE} to the folder that holds {known.name}/."
        if known.alternative:
            hints += f" Weights for the same data set: --model.checkpoint {known.alternative}."
        raise CheckpointError(
            f"weights {known.name} are not on this machine and {url} does not answer ({reason}). {hints}"
        ) from error
    if digest is None:
        raise CheckpointError(f"{url}: the checksum differs from {known.sha256}...; nothing was kept, try again")


def download(url: str, target: Path, accept: Callable[[str], bool]) -> str | None:
    """Download a file with a progress bar; it appears whole or not at all.

    Args:
        url: An HTTPS address (or ``file:``, for tests).
        target: Where the file is to stand.
        accept: Told the SHA-256; the file is kept where it answers true.

    Returns:
        The SHA-256, or ``None`` where it was not accepted.

    Raises:
        OSError: The host does not answer or the disk is full.
    """
    from rich.progress import wrap_file

    sha256 = hashlib.sha256()
    try:
        with whole_file(target) as stream, urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            length = int(answer.headers.get("Content-Length") or 0)
            with wrap_file(answer, total=length, description=f"{target.parent.name}/{target.name}") as body:
                while block := body.read(1 << 20):
                    sha256.update(block)
                    stream.write(block)
            if length and stream.tell() != length:
                raise ConnectionError(f"{url} broke off after {stream.tell()} of {length} bytes")
            if not accept(sha256.hexdigest()):
                raise _RefusedError
    except _RefusedError:
        return None
    return sha256.hexdigest()


class _RefusedError(Exception):
    """Leaves the block that writes a file, so that nothing is kept."""
