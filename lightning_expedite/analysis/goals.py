"""Names until their users import them from `recommend`."""

from .recommend import COSTS, Goal

__all__ = ["COSTS", "Goal"]
