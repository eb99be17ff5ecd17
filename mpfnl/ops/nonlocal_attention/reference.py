"""The definition of the non-local operator, with the N x N matrix in memory. For tests and small N."""

from __future__ import annotations

import torch

from mpfnl.shapes import AttendedPositions, KeyPositions, Positions, ValuePositions


def nonlocal_attention_reference(
    query: Positions, key: KeyPositions, value: ValuePositions
) -> AttendedPositions:
    """`nonlocal_attention` as it is written down; give float64 for an oracle."""
    return torch.softmax(query @ key.transpose(1, 2), dim=-1) @ value


def dot_product_attention_reference(
    query: Positions, key: KeyPositions, value: ValuePositions
) -> AttendedPositions:
    """`dot_product_attention` as it is written down; give float64 for an oracle."""
    return (query @ key.transpose(1, 2) / key.shape[1]) @ value
