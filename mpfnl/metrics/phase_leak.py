"""Phase leak: drift of an organ's brightness in an enhanced scan toward another contrast phase.

A network that sees several phases may carry contrast from one into another: the paper's authors saw an aorta
that was too bright for the portal venous phase (arXiv 2501.14013, discussion). The drift is the mean HU of an
organ's core in the enhanced scan minus that in the clean scan of the same phase; it is compared with the
distance to the other phases. `docs/phase_leak.md` describes the rule and its limits.
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
from mpfnl.window import COVERED_FROM_HU, Window

Scan = NDArray[Any]
"""HU (x, y, z), whole or floating-point numbers."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class LeakRule:
    """Thresholds of a drift and depths of the zones in which it is measured.

    20 HU is the threshold of true enhancement on CT: in the Bosniak classification, version 2019 (Silverman
    et al., Radiology 2019;292:475-488), a rise of 20 HU or more is unequivocal, one of 10 to 19 is not. The
    other numbers are judgement; none was fitted to scans.

    Args:
        least_drift_hu: Smallest drift that counts, in HU.
        least_fraction: Smallest fraction of the distance to the other phase that counts.
        least_gap_hu: Smallest difference in HU at which an organ distinguishes two phases.
        core_mm: Depth of the core below the organ's surface, in mm; at least one voxel.
        deep_mm: Depth of the deep core, in mm; at least two voxels. Usual blur hardly reaches it.
        least_ml: Smallest volume of a core, in mL. At 45 HU of noise, independent between voxels of 3 x 3 x
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
    """Interpretation of a drift."""

    NONE = "none"
    """Smaller than the smallest drift that counts."""
    LEAK = "leak"
    """A drift toward another phase; a warning."""
    SHIFT = "shift"
    """A drift toward no other phase; a warning."""
    INPUT = "input"
    """A drift that the degraded scan has already."""
    BLUR = "blur"
    """A drift toward the organ's surroundings that its deep core does not share."""
    UNCLEAR = "unclear"
    """A drift toward the surroundings of an organ without a deep core: leak or blur."""


WARNINGS = (Verdict.LEAK, Verdict.SHIFT)
"""The verdicts for which the method is responsible."""


@dataclass(frozen=True)
class OrganDrift:
    """Brightness of one organ: means over its core, of HU clipped to the window.

    Args:
        core_ml: Volume of the core in mL.
        reference_hu: Mean HU of the clean scan of the target phase.
        enhanced_hu: Mean HU of the enhanced scan.
        degraded_hu: Mean HU of the degraded scan; NaN without a degraded scan.
        others_hu: Mean HU of the clean scan of each other phase.
        surroundings_hu: Mean HU of the reference within `deep_mm` around the organ; NaN without surroundings.
        deep_drift_hu: Drift in the deep core; NaN if the deep core is too small.

    >>> drift = OrganDrift(2.0, reference_hu=150.0, enhanced_hu=190.0, others_hu={Phase.ARTERIAL: 350.0})
    >>> drift.drift_hu, drift.fraction(Phase.ARTERIAL), drift.verdict().value
    (40.0, 0.2, 'leak')
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
        """Degraded minus reference; NaN without a degraded scan."""
        return self.degraded_hu - self.reference_hu

    def fraction(self, phase: Phase, rule: LeakRule | None = None) -> float:
        """Leak fraction: the drift over the distance to another phase.

        For a voxel-wise mixture `(1 - a) reference + a other` inside the window it is a.

        Args:
            phase: The other phase.
            rule: Thresholds of a drift.

        Returns:
            The fraction, negative if the drift leads away from that phase; NaN if the phases are too alike,
            or the study lacks that phase.
        """
        gap = self.others_hu.get(phase, math.nan) - self.reference_hu
        return self.drift_hu / gap if abs(gap) >= (rule or LeakRule()).least_gap_hu else math.nan

    def toward(self, rule: LeakRule | None = None) -> tuple[Phase, ...]:
        """The phases toward which the drift is large enough to count."""
        rule = rule or LeakRule()
        return tuple(p for p in self.others_hu if self.fraction(p, rule) >= rule.least_fraction)

    def verdict(self, rule: LeakRule | None = None) -> Verdict:
        """The first verdict that applies, of NONE, BLUR, UNCLEAR, INPUT, LEAK, SHIFT."""
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
    """Zones in which an organ's brightness is measured.

    Args:
        box: Part of the grid that the masks cover.
        core: Core of the organ, without voxels near its surface.
        deep: Deep core.
        around: Surroundings of the organ.
        voxel_ml: Volume of a voxel in mL.
    """

    box: tuple[slice, slice, slice]
    core: Mask
    deep: Mask
    around: Mask
    voxel_ml: float

    @property
    def core_ml(self) -> float:
        """Volume of the core in mL."""
        return float(np.count_nonzero(self.core) * self.voxel_ml)

    @property
    def deep_ml(self) -> float:
        """Volume of the deep core in mL."""
        return float(np.count_nonzero(self.deep) * self.voxel_ml)


def organ_zones(mask: Mask, spacing: Sequence[float], rule: LeakRule | None = None) -> OrganZones:
    """The core, the deep core and the surroundings of an organ.

    An organ that reaches the border of the grid is assumed to continue beyond it.

    Args:
        mask: Mask of the organ, (x, y, z), boolean.
        spacing: Distance between voxel centres along x, y and z in mm.
        rule: Depths of the cores.

    Raises:
        ValueError: The mask is empty or not 3-D, or the spacing is not usable.
        TypeError: The mask is not boolean.

    >>> organ = np.zeros((20, 20, 20), dtype=bool)
    >>> organ[4:16, 4:16, 4:16] = True
    >>> organ_zones(organ, spacing=(1.0, 1.0, 1.0)).core_ml  # a cube of 12 mm without 3 mm of depth: 6^3 mm^3
    0.216
    """
    rule = rule or LeakRule()
    if mask.dtype != np.bool_:
        raise TypeError(f"the mask must be boolean, not {mask.dtype}: compare labels first (labels == 52)")
    if mask.ndim != 3 or not mask.any():
        raise ValueError(f"the mask must be one volume's (x, y, z) and hold a voxel; it is {mask.shape}")
    if len(spacing) != 3 or not all(0 < step < math.inf for step in spacing):
        raise ValueError(f"the spacing is {tuple(spacing)}; it must be three positive numbers of mm")
    box = box_around(mask, spacing, rule.deep_mm)
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
    *,
    window: Window,
    rule: LeakRule | None = None,
) -> OrganDrift | None:
    """Measures the brightness of one organ in an enhanced scan, its reference and the other phases.

    All scans are clipped to the window first, as the network sees them: outside the window an enhanced scan
    keeps its input's HU, which a degraded input may have lost there. The mean is linear, unlike the median:
    the leak fraction of a mixture is exact even in an organ of two tissues, such as the kidney.

    Args:
        enhanced: HU (x, y, z) of the enhanced scan.
        reference: HU of the clean scan of the same phase.
        others: HU of the clean scan of each other phase, on the same grid; one that does not cover
            the core is not compared.
        organ: Zones of the organ, see `organ_zones`.
        degraded: HU of the degraded scan that was enhanced, if there is one.
        window: HU window of the network.
        rule: Rule whose smallest core volume applies.

    Returns:
        The drift; None if the organ's core is too small to be measured.

    Raises:
        ValueError: The shapes differ.

    >>> organ = organ_zones(np.ones((10, 10, 10), dtype=bool), spacing=(1.0, 1.0, 1.0))
    >>> reference, arterial = np.full((10, 10, 10), 150.0), np.full((10, 10, 10), 250.0)
    >>> drift = organ_drift(reference + 30, reference, {Phase.ARTERIAL: arterial}, organ, window=Window())
    >>> drift.drift_hu, drift.verdict().value
    (30.0, 'leak')
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
        hu = scan[organ.box][zone].astype(np.float64)
        if (hu < COVERED_FROM_HU).any():
            return math.nan
        return float(hu.clip(window.lower, window.upper).mean())

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


def box_around(mask: Mask, spacing: Sequence[float], margin_mm: float = 0.0) -> tuple[slice, slice, slice]:
    """The smallest box around a mask and a margin, and a voxel more on each side, within the grid."""
    slices = []
    for axis, step in enumerate(spacing):
        occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = math.ceil(margin_mm / step) + 1
        last = min(mask.shape[axis], int(occupied[-1]) + 1 + margin)
        slices.append(slice(max(0, int(occupied[0]) - margin), last))
    x, y, z = slices
    return x, y, z


def _distance(inside: Mask, spacing: Sequence[float]) -> NDArray[np.float64]:
    """Distance in mm of each voxel inside to the nearest one outside; infinite if there is none outside."""
    if inside.all():
        return np.full(inside.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(inside, sampling=list(spacing)))


def _eroded(organ: Mask, voxels: int) -> Mask:
    # The outermost layer of thick slices is a mixture of tissues although its centres lie deep in mm.
    faces = ndimage.generate_binary_structure(3, 1)
    return np.asarray(ndimage.binary_erosion(organ, faces, iterations=voxels, border_value=1))
