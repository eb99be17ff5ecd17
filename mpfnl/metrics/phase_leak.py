"""Whether an organ of an enhanced scan drifted in brightness toward another contrast phase.

A network that sees several phases may carry contrast from one into another: the paper's authors saw an aorta
that was too bright for the portal venous phase (arXiv 2501.14013, discussion). Here the mean HU of an
organ's core in the enhanced scan is compared with the clean scan of the same phase, and the difference, the
drift, with the distance to the other phases. The rule and its limits stand in `docs/phase_leak.md`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mpfnl.phases import Phase
from mpfnl.window import ABDOMEN, Window

Scan = NDArray[Any]
"""HU (x, y, z), whole or floating-point numbers."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class LeakRule:
    """From what on a drift counts, and where it is measured.

    The 20 HU are what radiology takes as true enhancement on CT: in the Bosniak classification, version 2019
    (Silverman et al., Radiology 2019;292:475-488), a rise of 20 HU or more is unequivocal, one of 10 to 19
    is not. The other numbers are judgement; none was fitted to scans.

    Args:
        least_drift_hu: The least drift that counts, in HU.
        least_fraction: The least share of the way to the other phase that counts.
        least_gap_hu: Phases that differ by less in an organ cannot be told apart by it.
        core_mm: The core lies deeper than this under the organ's surface, and at least one voxel.
        deep_mm: The deep core lies deeper than this, and at least two voxels; usual blur hardly reaches it.
        least_ml: The least volume of a core, in mL. At 45 HU of noise, independent between voxels of 3 x 3 x
            3 mm, the mean over 1 mL has a standard error of 7 HU.
    """

    least_drift_hu: float = 20.0
    least_fraction: float = 0.10
    least_gap_hu: float = 30.0
    core_mm: float = 3.0
    deep_mm: float = 6.0
    least_ml: float = 1.0

    def __post_init__(self) -> None:
        if not all(0 < value < math.inf for value in vars(self).values()):
            raise ValueError(f"every number of the rule must be positive and finite: {self}")
        if self.deep_mm < self.core_mm:
            raise ValueError(f"the deep core ({self.deep_mm} mm) lies outside the core ({self.core_mm} mm)")


class Verdict(StrEnum):
    """What a drift is taken for."""

    NONE = "none"
    """Below the least drift that counts."""
    LEAK = "leak"
    """Toward another phase; a warning."""
    SHIFT = "shift"
    """As large, and toward no other phase; a warning."""
    INPUT = "input"
    """The degraded scan has it already."""
    BLUR = "blur"
    """Toward the organ's surroundings, and not in its deep core."""
    UNCLEAR = "unclear"
    """Toward the surroundings of an organ without a deep core: leak or blur."""


WARNINGS = (Verdict.LEAK, Verdict.SHIFT)
"""The verdicts that hold the method responsible."""


@dataclass(frozen=True)
class OrganDrift:
    """The brightness of one organ: means over its core, of HU clipped to the window.

    Args:
        core_ml: Volume of the core in mL.
        reference_hu: Of the clean scan of the target phase.
        enhanced_hu: Of the enhanced scan.
        degraded_hu: Of the degraded scan; NaN where it was not given.
        others_hu: Of the clean scan of each other phase.
        surroundings_hu: Of the reference within `deep_mm` around the organ; NaN where there is none.
        deep_drift_hu: Drift in the deep core; NaN where that is too small.
    """

    core_ml: float
    reference_hu: float
    enhanced_hu: float
    degraded_hu: float = math.nan
    others_hu: Mapping[Phase, float] = field(default_factory=dict)
    surroundings_hu: float = math.nan
    deep_drift_hu: float = math.nan

    @property
    def drift_hu(self) -> float:
        """Enhanced minus reference."""
        return self.enhanced_hu - self.reference_hu

    @property
    def degraded_drift_hu(self) -> float:
        """Degraded minus reference; NaN where no degraded scan was given."""
        return self.degraded_hu - self.reference_hu

    def fraction(self, phase: Phase, rule: LeakRule | None = None) -> float:
        """The share of the way to another phase that the drift covers.

        In a voxel-wise mixture `(1 - a) reference + a other` inside the window it is a.

        Returns:
            Below 0 where the drift leads away from that phase; NaN where the phases differ too little.
        """
        gap = self.others_hu[phase] - self.reference_hu
        return self.drift_hu / gap if abs(gap) >= (rule or LeakRule()).least_gap_hu else math.nan

    def toward(self, rule: LeakRule | None = None) -> tuple[Phase, ...]:
        """The phases that the drift leads to, far enough to count."""
        rule = rule or LeakRule()
        return tuple(p for p in self.others_hu if self.fraction(p, rule) >= rule.least_fraction)

    def verdict(self, rule: LeakRule | None = None) -> Verdict:
        """What the drift is taken for; the first that holds of NONE, BLUR, UNCLEAR, INPUT, LEAK, SHIFT."""
        rule = rule or LeakRule()
        sign = math.copysign(1.0, self.drift_hu)
        if sign * self.drift_hu < rule.least_drift_hu:
            return Verdict.NONE
        if sign * (self.surroundings_hu - self.reference_hu) > 0:
            if math.isnan(self.deep_drift_hu):
                return Verdict.UNCLEAR
            if sign * self.deep_drift_hu < rule.least_drift_hu:
                return Verdict.BLUR
        added = sign * (self.enhanced_hu - self.degraded_hu)
        if sign * self.degraded_drift_hu >= rule.least_drift_hu and added < rule.least_drift_hu:
            return Verdict.INPUT
        return Verdict.LEAK if self.toward(rule) else Verdict.SHIFT


@dataclass(frozen=True, eq=False)
class OrganZones:
    """Where an organ's brightness is measured.

    Args:
        box: The part of the grid that the masks cover.
        core: The organ without what lies near its surface.
        deep: What lies deeper still.
        around: Its surroundings.
        voxel_ml: The volume of a voxel.
    """

    box: tuple[slice, slice, slice]
    core: Mask
    deep: Mask
    around: Mask
    voxel_ml: float

    @property
    def core_ml(self) -> float:
        """The core's volume in mL."""
        return np.count_nonzero(self.core) * self.voxel_ml

    @property
    def deep_ml(self) -> float:
        """The deep core's volume in mL."""
        return np.count_nonzero(self.deep) * self.voxel_ml


def organ_zones(mask: Mask, spacing: Sequence[float], rule: LeakRule | None = None) -> OrganZones:
    """The core, the deep core and the surroundings of an organ.

    An organ that reaches the border of the grid is taken to go on beyond it.

    Args:
        mask: The organ, (x, y, z), boolean.
        spacing: Distance between voxel centres along x, y and z in mm.
        rule: How deep the cores lie.

    Raises:
        ValueError: The mask is empty or not 3-D, or the spacing is not usable.
        TypeError: The mask is not boolean.
    """
    rule = rule or LeakRule()
    if mask.dtype != np.bool_:
        raise TypeError(f"the mask must be boolean, not {mask.dtype}: compare labels first (labels == 52)")
    if mask.ndim != 3 or not mask.any():
        raise ValueError(f"the mask must be one volume's (x, y, z) and hold a voxel; it is {mask.shape}")
    if len(spacing) != 3 or not all(0 < step < math.inf for step in spacing):
        raise ValueError(f"the spacing is {tuple(spacing)}; it must be three positive numbers of mm")
    box = _box(mask, spacing, rule.deep_mm)
    organ = mask[box]
    depth = _distance(organ, spacing)
    outside = _distance(~organ, spacing)
    return OrganZones(
        box,
        core=(depth > rule.core_mm) & _eroded(organ, 1),
        deep=(depth > rule.deep_mm) & _eroded(organ, 2),
        around=~organ & (outside <= rule.deep_mm),
        voxel_ml=float(math.prod(spacing)) / 1000.0,
    )


def organ_drift(
    enhanced: Scan,
    reference: Scan,
    others: Mapping[Phase, Scan],
    organ: OrganZones,
    degraded: Scan | None = None,
    window: Window = ABDOMEN,
    rule: LeakRule | None = None,
) -> OrganDrift | None:
    """Measures the brightness of one organ in an enhanced scan, its reference and the other phases.

    All scans are clipped to the window first: an enhanced scan keeps its input's HU outside of it, and those
    of a degraded input may have been cut off there. It is also what a network sees of a phase. The mean is
    taken, not the median: it is linear, so that the leak fraction of a mixture is exact even in an organ of
    two tissues, such as the kidney.

    Args:
        enhanced: HU (x, y, z) of the enhanced scan.
        reference: HU of the clean scan of the same phase.
        others: HU of the clean scan of each other phase, on the same grid.
        organ: Where to measure, see `organ_zones`.
        degraded: HU of the degraded scan that was enhanced, if there is one.
        window: The HU window.
        rule: Of which the least volume is used.

    Returns:
        None if the organ's core is too small to be measured.

    Raises:
        ValueError: The shapes differ.
    """
    rule = rule or LeakRule()
    scans = [enhanced, reference, *others.values(), *([] if degraded is None else [degraded])]
    if len({scan.shape for scan in scans}) > 1:
        raise ValueError(f"the scans are of different shapes: {', '.join(str(scan.shape) for scan in scans)}")
    if organ.core_ml < rule.least_ml:
        return None

    def mean(scan: Scan | None, zone: Mask) -> float:
        if scan is None or not zone.any():
            return math.nan
        return float(scan[organ.box][zone].astype(np.float64).clip(window.lower, window.upper).mean())

    deep = math.nan
    if organ.deep_ml >= rule.least_ml:
        deep = mean(enhanced, organ.deep) - mean(reference, organ.deep)
    return OrganDrift(
        core_ml=organ.core_ml,
        reference_hu=mean(reference, organ.core),
        enhanced_hu=mean(enhanced, organ.core),
        degraded_hu=mean(degraded, organ.core),
        others_hu={phase: mean(scan, organ.core) for phase, scan in others.items()},
        surroundings_hu=mean(reference, organ.around),
        deep_drift_hu=deep,
    )


def _box(mask: Mask, spacing: Sequence[float], margin_mm: float) -> tuple[slice, slice, slice]:
    """The smallest box around the mask and a margin, within the grid."""
    slices = []
    for axis, step in enumerate(spacing):
        occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = math.ceil(margin_mm / step) + 1
        slices.append(slice(max(0, int(occupied[0]) - margin), int(occupied[-1]) + 1 + margin))
    x, y, z = slices
    return x, y, z


def _distance(inside: Mask, spacing: Sequence[float]) -> NDArray[np.float64]:
    """How far in mm each voxel inside lies from the next one outside; infinite where all is inside."""
    if inside.all():
        return np.full(inside.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(inside, sampling=list(spacing)))


def _eroded(organ: Mask, voxels: int) -> Mask:
    # Where slices are thick, their outermost layer is a mixture although its centres lie deep in mm.
    faces = ndimage.generate_binary_structure(3, 1)
    return np.asarray(ndimage.binary_erosion(organ, faces, iterations=voxels, border_value=1))
