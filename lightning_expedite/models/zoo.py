"""Published weights: their names, where they come from, and where they lie on disk."""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
from filelock import FileLock
from rich.console import Console
from rich.progress import Progress

from ..errors import CheckpointError, nearest
from ..files import expand_home, whole_file
from ..protocol import Protocol, official_stride
from .checkpoints.settings import CHECKPOINT_FILE, VARIANT_FILE
from .hub import PREFIX, fetch
from .segmenter.architecture import Architecture, ConventionName

WEIGHTS_VARIABLE = "LIGHTNING_EXPEDITE_WEIGHTS"
DEMO = "demo"
DEMO_FOLDER = Path(__file__).parents[1] / "assets" / "demo_segmenter"
_OFFICIAL = "https://www.rocq.inria.fr/cluster-willow/rstrudel/segmenter/checkpoints"
_MMSEG = "https://download.openmmlab.com/mmsegmentation/v0.5/segmenter"
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
_LARGE_CITYSCAPES = replace(_LARGE, image_size=(768, 768), num_classes=19, decoder_depth=1)
_LARGE_PASCAL_CONTEXT = replace(_LARGE, image_size=(480, 480), num_classes=60)


@dataclass(frozen=True)
class KnownWeights:
    """Published weights: the name to load them by, and what is known about them."""

    name: str
    data_set: str  # that they were trained on
    files: tuple[tuple[str, str], ...]  # local names and their addresses
    miou: float | None  # published, single-scale, in percent
    protocol: Protocol  # of the published tables
    sha256: str | None = None  # start of the weights file's checksum
    alternative: str | None = None  # name of other weights for the same data set
    architecture: Architecture | None = None  # with which the speed can be measured without the weights

    def protocol_in(self, convention: ConventionName | None) -> Protocol:
        """Return the evaluation settings in a convention: the official stride is always 32 pixels below the window."""
        window = self.protocol.window
        if convention != "official" or window is None:
            return self.protocol
        return replace(self.protocol, stride=official_stride(window))


def _official(
    name: str, miou: float | None, protocol: Protocol, architecture: Architecture, other: str
) -> KnownWeights:
    """Return weights of rstrudel/segmenter; ``other`` is the kind of mmsegmentation's for the same data set."""
    files = tuple((file, f"{_OFFICIAL}/{name}/{file}") for file in (VARIANT_FILE, CHECKPOINT_FILE))
    alternative = f"ade20k/segmenter_vit-{other}_8x1_512x512_160k_ade20k" if other else None
    return KnownWeights(name, name.split("/")[0], files, miou, protocol, None, alternative, architecture)


def _mmseg(kind: str, stamp: str, miou: float, protocol: Protocol, architecture: Architecture) -> KnownWeights:
    """Return weights of mmsegmentation, whose file names end with the start of their checksum."""
    name = f"segmenter_vit-{kind}_8x1_512x512_160k_ade20k"
    files = ((CHECKPOINT_FILE, f"{_MMSEG}/{name}/{name}_{stamp}.pth"),)
    return KnownWeights(f"ade20k/{name}", "ade20k", files, miou, protocol, stamp.rpartition("-")[2], None, architecture)


_TABLE = (
    _official("ade20k/seg_tiny_mask", 38.1, _ADE_512, _TINY, "t_mask"),
    _official("ade20k/seg_small_mask", 45.3, _ADE_512, _SMALL, "s_mask"),
    _official("ade20k/seg_base_mask", 48.5, _ADE_512, _BASE, "b_mask"),
    _official("ade20k/seg_base_patch8", 49.5, _ADE_512, replace(_BASE, patch_size=8), "b_mask"),
    _official("ade20k/seg_base_deit_linear", 47.1, _ADE_512_DEIT, replace(_DEIT, decoder="linear"), "b_mask"),
    _official("ade20k/seg_base_deit_mask", 48.7, _ADE_512_DEIT, _DEIT, "b_mask"),
    _official("ade20k/seg_large_mask", None, _ADE_512, replace(_LARGE, image_size=(512, 512)), "l_mask"),
    _official("ade20k/seg_large_mask_640", 51.82, _ADE_640, _LARGE, "l_mask"),
    _official("cityscapes/seg_large_mask", 79.14, _CITYSCAPES, _LARGE_CITYSCAPES, ""),
    _official("pascal_context/seg_large_mask", 58.07, _PASCAL_CONTEXT, _LARGE_PASCAL_CONTEXT, ""),
    _mmseg("t_mask", "20220105_151706-ffcf7509", 39.99, _ADE_512, _TINY),
    _mmseg("s_linear", "20220105_151713-39658c46", 45.75, _ADE_512, replace(_SMALL, decoder="linear")),
    _mmseg("s_mask", "20220105_151706-511bb103", 46.19, _ADE_512, _SMALL),
    _mmseg("b_mask", "20220105_151706-bc533b08", 49.6, _ADE_512, _BASE),
    _mmseg("l_mask", "20220105_162750-7ef345be", 52.16, _ADE_640_MMSEG, _LARGE),
)
KNOWN_WEIGHTS: dict[str, KnownWeights] = {known.name: known for known in _TABLE}


def known_weights(checkpoint: str) -> KnownWeights | None:
    """Return the entry of a name in the table of known weights, ``None`` if a path of that name exists."""
    return None if Path(checkpoint).exists() else KNOWN_WEIGHTS.get(checkpoint)


def is_local(name: str) -> bool:
    """Return whether a name is an existing path or a name of this package, rather than one of the hub's."""
    return name == DEMO or name in KNOWN_WEIGHTS or expand_home(name).exists()


def resolve_checkpoint(name: str | Path, folder: str | Path | None = None) -> Path:
    """Return the path of a checkpoint on disk, downloading it where needed.

    Args:
        name: ``"demo"`` for the bundled model (``"./demo"`` for a folder of that name), a file, a folder, a name of
            `KNOWN_WEIGHTS`, or ``hf://owner/name`` (``hf://owner/name@revision``) for a model of the Hugging Face hub.
        folder: Folder of downloaded weights; by default ``$LIGHTNING_EXPEDITE_WEIGHTS`` or the user's cache.

    Raises:
        CheckpointError: There is no such path or name, or the weights are not here and cannot be downloaded.
    """
    text = str(name) if isinstance(name, (str, Path)) else ""
    if not text:
        raise CheckpointError(f"checkpoint is {name!r}: it must be a path or a known name, such as 'demo'")
    if name == DEMO:
        return DEMO_FOLDER
    if text.startswith(PREFIX):
        return fetch(text)
    path = expand_home(name)
    if path.exists():
        return path
    known = KNOWN_WEIGHTS.get(text)
    if known is None:
        raise CheckpointError(
            f"checkpoint {text!r} is neither a path nor a known name{nearest(text, (DEMO, *KNOWN_WEIGHTS))}; "
            f"known names are {DEMO}, {', '.join(KNOWN_WEIGHTS)}; "
            f"models of the Hugging Face hub are named {PREFIX}owner/name"
        )
    folder = folder or os.environ.get(WEIGHTS_VARIABLE) or "~/.cache/lightning_expedite/weights"
    place = expand_home(folder) / known.name
    try:
        for file, url in known.files:
            if not (place / file).is_file():
                download(url, place / file, known.sha256 if file == CHECKPOINT_FILE else None)
    except (OSError, httpx.HTTPError, CheckpointError) as error:
        files = " and ".join(file for file, _ in known.files)
        other = f" Weights for the same data set: --model.checkpoint {known.alternative}." if known.alternative else ""
        raise CheckpointError(
            f"weights {known.name} are not on this machine and {url} cannot be downloaded ({error}). Put {files} into "
            f"{place}, or set {WEIGHTS_VARIABLE} to the folder that holds {known.name}/.{other}"
        ) from error
    return place


def download(url: str, target: Path, sha256: str | None = None) -> None:
    """Download a file over HTTPS with a progress bar; it appears complete or not at all.

    Of several processes that ask for one file, one downloads it and the others wait. ``sha256`` may be the start of the
    checksum.

    Raises:
        CheckpointError: An address is not HTTPS, or the checksum differs.
        OSError, httpx.HTTPError: The file cannot be written, or the host does not answer or breaks off.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    hooks = {"request": [_require_https]}  # called for redirects too
    with FileLock(target.with_name(f".{target.name}.lock")):
        if target.is_file():  # another process was faster
            return
        with (
            httpx.Client(follow_redirects=True, timeout=_TIMEOUT_S, event_hooks=hooks) as client,
            client.stream("GET", url) as answer,
            whole_file(target) as stream,
            Progress(console=Console(stderr=True)) as progress,
        ):
            answer.raise_for_status()
            found, size = hashlib.sha256(), answer.headers.get("Content-Length", "")
            task = progress.add_task(target.name, total=int(size) if size.isdigit() else None)
            for block in answer.iter_bytes(1 << 20):
                found.update(block)
                stream.write(block)
                progress.advance(task, len(block))
            if sha256 is not None and not found.hexdigest().startswith(sha256):
                raise CheckpointError(f"its checksum is {found.hexdigest()}, not {sha256}...; nothing was kept")


def _require_https(request: httpx.Request) -> None:
    if request.url.scheme != "https":
        raise CheckpointError(f"{request.url} is not an HTTPS address")
