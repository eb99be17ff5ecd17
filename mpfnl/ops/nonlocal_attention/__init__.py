"""The non-local operator: attention over all positions of a volume, without a scale.

Softmax form (modes `gaussian` and `embedded_gaussian` of Wang et al., "Non-local neural networks",
CVPR 2018, eq. 2 to 4):

    y_i = sum_j softmax_j(q_i . k_j) v_j

Dot-product form (eq. 5):

    y_i = 1/N sum_j (q_i . k_j) v_j

Neither form stores the N x N matrix: memory is O(N), forward and backward. README.md in this folder has the
mathematics and the analysis of the error.
"""

from mpfnl.ops.nonlocal_attention.attention import dot_product_attention, nonlocal_attention
from mpfnl.ops.nonlocal_attention.dispatch import (
    Implementation,
    ImplementationName,
    choose_implementation,
    use_implementation,
)

__all__ = [
    "Implementation",
    "ImplementationName",
    "choose_implementation",
    "dot_product_attention",
    "nonlocal_attention",
    "use_implementation",
]
