"""Operators that need torch only: the non-local operator, space-to-depth and the Sobel gradient."""

from mpfnl.ops.nonlocal_attention import nonlocal_attention, use_implementation
from mpfnl.ops.shuffle import depth_to_space, space_to_depth
from mpfnl.ops.sobel import sobel_gradient

__all__ = [
    "depth_to_space",
    "nonlocal_attention",
    "sobel_gradient",
    "space_to_depth",
    "use_implementation",
]
