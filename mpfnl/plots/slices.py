"""Slices side by side under one window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

Slice: TypeAlias = NDArray[np.floating]
"""Slice `(x, y)` in [0, 1]; x grows to the right and y downwards."""

ERROR_RANGE = 0.25  # range of the error maps to either side of 0, as a part of the window's width


def montage(
    rows: Sequence[Mapping[str, Slice]],
    *,
    errors: Sequence[str] = (),
    error_rows: Sequence[int] = (),
    title: str | None = None,
) -> Figure:
    """Slices in rows and columns, each on the range [0, 1].

    Args:
        rows: Slices `(x, y)` of each row by panel title. The first row has all panels; panels that a later
            row lacks stay empty.
        errors: Titles of the panels with differences, drawn in blue and red around 0.
        error_rows: Indices of the rows with differences.
        title: Title of the figure.

    Returns:
        Figure, not bound to any display.
    """
    names = list(rows[0])
    sizes = [next(iter(row.values())).shape for row in rows]
    width = 1.9 * len(names)
    height = sum(1.85 * size[1] / size[0] for size in sizes) + 0.25 + (0.25 if title else 0)
    figure = Figure(figsize=(width, height), dpi=110)
    figure.set_layout_engine("constrained", w_pad=0.03, h_pad=0.02, wspace=0.01, hspace=0.01)
    grid = figure.subplots(len(rows), len(names), squeeze=False, height_ratios=[s[1] / s[0] for s in sizes])
    for number, row in enumerate(rows):
        for axes, name in zip(grid[number], names, strict=True):
            if name in row:
                draw_slice(axes, row[name], is_error=name in errors or number in error_rows)
            else:
                axes.set_axis_off()
            if number == 0:
                axes.set_title(name, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=9)
    return figure


def draw_slice(axes: Axes, slice_: Slice, *, is_error: bool = False, aspect: float = 1.0) -> None:
    """Draws one slice in grey, or a difference in blue and red.

    Args:
        axes: Axes to draw on.
        slice_: Slice `(x, y)`.
        is_error: Whether the slice is a difference.
        aspect: Height over width of a voxel.
    """
    limits = (-ERROR_RANGE, ERROR_RANGE) if is_error else (0.0, 1.0)
    colours = "RdBu_r" if is_error else "gray"
    axes.imshow(
        slice_.T, cmap=colours, vmin=limits[0], vmax=limits[1], aspect=aspect, interpolation="nearest"
    )
    axes.set_axis_off()
