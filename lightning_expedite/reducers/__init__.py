"""Training-free token reducers for ViT encoders.

Every module of this package is imported, so that the command line finds a reducer in a new file by its class name.
"""

import importlib
import pkgutil

from .act import ACT
from .base import EncoderShape, Reducer, Reduction, TokenLayout
from .clustering import TokenClustering
from .evit import EViT
from .grouping import DROPPED, Grouping, GroupRecorder
from .tome import ToMe

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "ACT",
    "DROPPED",
    "EViT",
    "EncoderShape",
    "GroupRecorder",
    "Grouping",
    "Reducer",
    "Reduction",
    "ToMe",
    "TokenClustering",
    "TokenLayout",
]
