"""The swap test: takes one input phase's own contrast away and sees what changes in the enhanced scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from mpfnl.inference.enhancement import EnhanceOptions, Enhancer, enhance_study
from mpfnl.metrics.phase_leak import LeakRule, organ_zones
from mpfnl.phases import Phase
from mpfnl.volumes import Volume
from mpfnl.window import Window

BODY = "body"
"""The region that stands for all soft tissue."""

BODY_MARGIN_HU = 25.0
"""Soft tissue lies this far above the window's lower end, where air was clipped to."""


@dataclass(frozen=True)
class SwapRow:
    """What one input phase gave to one region of the enhanced scan.

    Args:
        swapped: The phase that was taken away.
        by: The phase whose scan stood in for it.
        region: An organ's core, or `body`.
        given_hu: Mean of enhanced minus enhanced without that phase: above 0 where the phase brightens.
        rms_hu: Root mean square of the same difference.
    """

    swapped: Phase
    by: Phase
    region: str
    given_hu: float
    rms_hu: float


def swap_test(
    model: Enhancer,
    scans: Mapping[Phase, Volume],
    organs: Mapping[str, NDArray[np.bool_]],
    options: EnhanceOptions | None = None,
    by: Phase | None = None,
    rule: LeakRule | None = None,
) -> list[SwapRow]:
    """Enhances a study again with each other input phase replaced in turn, and measures what changes.

    With the target's degraded scan in its place an input phase has no contrast of its own any more. What then
    changes in an organ came from that phase: wanted, where it made up for noise, or leaked. A network has
    never seen such an input, so the numbers are an indication. Where the scan lies outside the window
    nothing changes, since the input's HU are kept.

    Args:
        model: The model; one that takes a single phase has no rows.
        scans: The degraded scan of each phase that the model takes.
        organs: Masks (x, y, z) by organ on the scans' grid; those whose core is too small are left out.
        options: How to enhance.
        by: The phase that stands in; by default the target.
        rule: How deep an organ's core lies, and how small it may be.

    Returns:
        For each swapped phase a row an organ, and one of the body: the soft tissue of the target's scan.

    Raises:
        InputError: As for `enhance_study`.
        ValueError: The model does not take the phase that stands in, or a mask lies on another grid.
    """
    rule = rule or LeakRule()
    stand_in = model.target if by is None else by
    if stand_in not in model.phases:
        raise ValueError(f"the model takes {', '.join(model.phases)}, not {stand_in}")
    swapped = [phase for phase in model.phases if phase not in (model.target, stand_in)]
    if not swapped:
        return []
    regions = _regions(scans[model.target], organs, model.window, rule)
    whole = enhance_study(model, scans, options=options).data.astype(np.float32)
    rows = []
    for phase in swapped:
        replaced = {**scans, phase: replace(scans[stand_in], phase=phase)}
        given = whole - enhance_study(model, replaced, options=options).data
        rows += [_row(phase, stand_in, name, given[mask]) for name, mask in regions.items()]
    return rows


def _row(swapped: Phase, by: Phase, region: str, given: NDArray[np.float32]) -> SwapRow:
    values = given.astype(np.float64)
    return SwapRow(swapped, by, region, float(values.mean()), float(np.sqrt(np.mean(values**2))))


def _regions(
    target: Volume, organs: Mapping[str, NDArray[np.bool_]], window: Window, rule: LeakRule
) -> dict[str, NDArray[np.bool_]]:
    regions = {}
    for name, mask in organs.items():
        if mask.shape != target.shape:
            raise ValueError(f"the mask of {name} is {mask.shape}, the scan is {target.shape}")
        if not mask.any():
            continue
        zones = organ_zones(mask, target.spacing, rule)
        if zones.core_ml >= rule.least_ml:
            regions[name] = np.zeros(mask.shape, dtype=np.bool_)
            regions[name][zones.box] = zones.core
    smooth = gaussian_filter(target.data.clip(window.lower, window.upper).astype(np.float32), 2.0)
    body = smooth > window.lower + BODY_MARGIN_HU
    return {**regions, BODY: body} if body.any() else regions
