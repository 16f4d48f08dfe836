"""Names until their users import them from `recommend`."""

from .recommend import BASELINE as UNREDUCED

__all__ = ["UNREDUCED"]
