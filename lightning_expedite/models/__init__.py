"""Dense-prediction models on a ViT encoder, and loading them from every checkpoint layout."""

from .base import require_model, warn_pack_weights, with_reducer
from .checkpoints.reading import Checkpoint, open_checkpoint, read_protocol
from .checkpoints.settings import CHECKPOINT_FILE, MODEL_CONFIG_FILE, VARIANT_FILE, WEIGHTS_FILE, store_reducer
from .load import convert_checkpoint, load, load_segmenter, save_segmenter
from .segmenter.architecture import CONVENTIONS, Architecture, Convention, ConventionName
from .segmenter.model import Segmentation, Segmenter
from .zoo import KNOWN_WEIGHTS, KnownWeights, known_weights, resolve_checkpoint

__all__ = [
    "CHECKPOINT_FILE",
    "CONVENTIONS",
    "KNOWN_WEIGHTS",
    "MODEL_CONFIG_FILE",
    "VARIANT_FILE",
    "WEIGHTS_FILE",
    "Architecture",
    "Checkpoint",
    "Convention",
    "ConventionName",
    "KnownWeights",
    "Segmentation",
    "Segmenter",
    "convert_checkpoint",
    "known_weights",
    "load",
    "load_segmenter",
    "open_checkpoint",
    "read_protocol",
    "require_model",
    "resolve_checkpoint",
    "save_segmenter",
    "store_reducer",
    "warn_pack_weights",
    "with_reducer",
]
