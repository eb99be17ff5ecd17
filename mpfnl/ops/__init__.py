"""Operators that need torch only: the non-local operator and the Sobel gradient."""

from mpfnl.ops.nonlocal_attention import dot_product_attention, nonlocal_attention
from mpfnl.ops.shuffle import depth_to_space, space_to_depth
from mpfnl.ops.sobel import sobel_gradient

__all__ = [
    "depth_to_space",
    "dot_product_attention",
    "nonlocal_attention",
    "sobel_gradient",
    "space_to_depth",
]
