"""What a model costs."""

from .flops import count_multiply_adds

__all__ = ["count_multiply_adds"]
