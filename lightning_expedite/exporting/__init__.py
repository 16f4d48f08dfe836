"""Export of models to files that other programs run, checked against the model they were made from."""

from .writing import EXPORT_FILE, export

__all__ = ["EXPORT_FILE", "export"]
