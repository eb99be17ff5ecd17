"""Sums over the groups of a batch, without concatenations: in PFNL3D a group is a phase. Torch only.

A batch of `groups * batch` feature maps, group-major, stands for `batch` samples of `groups * C` channels. In
`channels_last_3d` it is `groups` matrices of `batch * x * y * z` rows and C columns, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from mpfnl.ops.convolution import computing_dtype
from mpfnl.shapes import CoverageMaps, Features, Reshaped

LAYOUT = torch.channels_last_3d


def convolve_groups_leaky_relu(
    features: Features, weight: Tensor, bias: Tensor, groups: int, slope: float
) -> Reshaped:
    """A convolution over the concatenated groups, without the concatenation, then a leaky ReLU.

    The weights are cut into one slab a group and the products are summed. A 1x1x1 convolution in
    `channels_last_3d` is a chain of matrix products, each adding to the one before.

    Args:
        features: `(groups * batch, C, x, y, z)`, group-major.
        weight: `(out, groups * C, k, k, k)`, k odd; the sides are kept.
        bias: `(out,)`.
        groups: Number of groups.
        slope: Slope of the activation below zero.

    Returns:
        `(batch, out, x, y, z)`.
    """
    in_rows = features.is_contiguous(memory_format=LAYOUT) and not torch.compiler.is_compiling()
    if weight.shape[-1] == 1 and in_rows:
        return _multiply_groups(features, weight, bias, groups, slope)
    return functional.leaky_relu(_sum_over_groups(features, weight, bias, groups), slope, inplace=True)


def convolve_covered_groups_leaky_relu(
    features: Features, covered: CoverageMaps, weight: Tensor, bias: Tensor, groups: int, slope: float
) -> Reshaped:
    """`convolve_groups_leaky_relu` where a group may lack voxels: its weights are left out there.

    The sum over the groups is scaled by `groups / available` at each voxel, with `available` the number of
    groups that cover it, as in a partial convolution (Liu et al., ECCV 2018). A group that covers no voxel is
    a missing one, see `select_groups`.

    Args:
        features: `(groups * batch, C, x, y, z)`, group-major.
        covered: 1 where a group has the voxel, else 0: `(groups * batch, 1, x, y, z)`. Each voxel is covered
            by at least one group.
        weight: `(out, groups * C, k, k, k)`, k odd; the sides are kept.
        bias: `(out,)`.
        groups: Number of groups.
        slope: Slope of the activation below zero.

    Returns:
        `(batch, out, x, y, z)`.
    """
    edge = weight.shape[-1]
    total = _sum_over_groups(features * covered, weight, None, groups)
    shares = covered
    if edge > 1:  # the neighbourhood's share of covered voxels
        shares = functional.avg_pool3d(covered, edge, 1, edge // 2, count_include_pad=False)
    available = shares.unflatten(0, (groups, -1)).sum(0)
    total = total * (groups / available) + bias[:, None, None, None]
    return functional.leaky_relu(total, slope)


def _sum_over_groups(features: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """The sum of each group's convolution with its slab of the weights."""
    padding = weight.shape[-1] // 2
    slabs = weight.chunk(groups, dim=1)
    each = features.chunk(groups, dim=0)
    total = functional.conv3d(each[0], slabs[0], bias, padding=padding)
    for group, slab in zip(each[1:], slabs[1:], strict=True):
        total.add_(functional.conv3d(group, slab, padding=padding))
    return total


def select_groups(
    weight: Tensor, groups: int, available: Sequence[int] | None, *, outputs: bool = False
) -> Tensor:
    """Weights of a convolution over concatenated groups of which only some are available.

    The other groups' weights are omitted, and the rest is scaled by `groups / available`, so that the sum
    over the groups keeps its size, as in a partial convolution (Liu et al., ECCV 2018).

    Args:
        weight: `(out, groups * C, ...)`.
        groups: Number of groups.
        available: Indices of the available groups, ascending; None: all.
        outputs: Whether the outputs are groups as well, of which the same ones are selected.

    Returns:
        `(out, available * C, ...)`; with `outputs` `(available * out / groups, available * C, ...)`.
    """
    if available is None or len(available) == groups:
        return weight
    selected = weight.unflatten(1, (groups, -1))[:, list(available)].flatten(1, 2) * (groups / len(available))
    return select_outputs(selected, groups, available) if outputs else selected


def select_outputs(values: Tensor, groups: int, available: Sequence[int] | None) -> Tensor:
    """The values of the available groups: from `(groups * C, ...)` to `(available * C, ...)`."""
    if available is None or len(available) == groups:
        return values
    return values.unflatten(0, (groups, -1))[list(available)].flatten(0, 1)


def add_to_groups(features: Features, shared: Reshaped, groups: int) -> Features:
    """Adds the same feature maps to every group.

    Args:
        features: `(groups * batch, C, x, y, z)`, group-major; overwritten.
        shared: `(batch, C, x, y, z)`.
        groups: Number of groups.

    Returns:
        `(groups * batch, C, x, y, z)`.
    """
    if torch.compiler.is_compiling():  # the compiler writes its own loop, forward and backward
        return (features.unflatten(0, (groups, -1)) + shared).flatten(0, 1)
    total: Tensor = _AddToGroups.apply(features, shared, groups)
    return total


def _multiply_groups(features: Tensor, weight: Tensor, bias: Tensor, groups: int, slope: float) -> Tensor:
    count, channels, *sides = features.shape
    dtype = computing_dtype(features)
    rows = features.permute(0, 2, 3, 4, 1).reshape(groups, -1, channels).to(dtype)
    slabs = weight.reshape(-1, groups, channels).permute(1, 2, 0).to(dtype)
    product: Tensor = _MultiplyGroups.apply(rows, slabs, bias.to(dtype))
    # Before the view as a volume: the gradient of an in-place operation on a view is copied.
    functional.leaky_relu(product, slope, inplace=True)
    return product.view(count // groups, *sides, -1).permute(0, 4, 1, 2, 3)


class _MultiplyGroups(torch.autograd.Function):
    """`bias + sum_g rows[g] @ slabs[g]`; the gradients are written where they belong, not concatenated."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, slabs: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(rows, slabs)
        total = torch.addmm(bias, rows[0], slabs[0])
        for group in range(1, len(rows)):
            total.addmm_(rows[group], slabs[group])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, slabs = ctx.saved_tensors
        of_rows, of_slabs = torch.empty_like(rows), torch.empty_like(slabs)
        for group in range(len(rows)):
            torch.mm(gradient, slabs[group].mT, out=of_rows[group])
            torch.mm(rows[group].mT, gradient, out=of_slabs[group])
        return of_rows, of_slabs, gradient.sum(0)


class _AddToGroups(torch.autograd.Function):
    """A sum with broadcasting whose gradient adds the groups one by one.

    In bfloat16 on a CPU PyTorch's own, `sum(0)`, takes as long as a 3x3x3 convolution of 64 channels.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, shared: Tensor, groups: int) -> Tensor:
        ctx.groups = groups
        ctx.mark_dirty(features)
        features.unflatten(0, (groups, -1)).add_(shared)
        return features

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        first, *others = gradient.chunk(ctx.groups, dim=0)
        total = first
        for other in others:
            total = total + other
        return gradient, total, None
