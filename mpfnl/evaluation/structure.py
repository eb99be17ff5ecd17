"""Contrast and structure of every scan of an evaluation against the clean one, from the written files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mpfnl.data.manifest import Study, mask_column
from mpfnl.errors import InputError
from mpfnl.evaluation.folder import STRUCTURE_TABLE, write_table
from mpfnl.evaluation.leaks.check import ORGANS
from mpfnl.evaluation.overlap import LABELS
from mpfnl.metrics.contrast import body_rmse, contrast, mean_errors, organ_cores, shell
from mpfnl.metrics.phase_leak import OrganZones, box_around
from mpfnl.metrics.sharpness import Edges, flat_tissue, noise_sd
from mpfnl.metrics.structure import OrganStructure, blob_rate
from mpfnl.phases import Phase
from mpfnl.prepare.cropping import body_mask
from mpfnl.volumes import Volume, read_volume
from mpfnl.volumes.grid import check_same_grid
from mpfnl.volumes.masks import read_label_volume, split_labels
from mpfnl.window import Window

Mask = NDArray[np.bool_]

LIVER, SPLEEN = ORGANS["liver"], ORGANS["spleen"]
LESION = 203
"""Number of liver lesions in the label maps of phantoms; no structure of TotalSegmentator's has it."""

VESSELS = {
    "portal_vein_kept": "portal_vein_and_splenic_vein",
    "vena_cava_kept": "inferior_vena_cava",
    "aorta_kept": "aorta",
}
"""Vessels whose contrast against the liver is measured, by column."""

LARGE_MM = 10.0
"""Equivalent diameter from which a lesion counts as large, in mm."""

CROSS = np.array([[[0], [1], [0]], [[1], [1], [1]], [[0], [1], [0]]], dtype=bool)
"""A voxel and its neighbours in its slice."""

SHELL_MM = 6.0
"""Distance from a lesion of the farthest surroundings in mm."""

LEAST_CONTRAST_HU = 15.0
"""Least contrast of a vessel or a lesion in the clean scan, in HU: below it, noise decides the fraction."""

LEAST_ML = 10.0
"""Least volume of homogeneous tissue in which blobs are counted, in mL."""

SLICES = 24
"""Least number of slices, evenly spaced, in which edges and noise are measured; all of a shorter scan."""

THINNED_MM = 1.5
"""Voxel size up to which voxels are left out of organ means, which do not need them all."""

COARSE_MM = 3.0
"""Voxel size on which the body is found, in mm."""


@dataclass(frozen=True, eq=False)
class Target:
    """A structure whose contrast is measured.

    Args:
        column: Column of `cases.csv` that its fraction enters; fractions of one column are averaged.
        name: Structure.
        box: Part of the grid that the masks cover.
        inside: Mask of the structure.
        around: Mask of its surroundings.
        contrast_hu: Contrast in the clean scan in HU.
        diameter_mm: Equivalent diameter of a lesion in mm; NaN for a vessel.
    """

    column: str
    name: str
    box: tuple[slice, slice, slice]
    inside: Mask
    around: Mask
    contrast_hu: float
    diameter_mm: float = math.nan


@dataclass(frozen=True, eq=False)
class CleanScan:
    """What a study's clean scan shows, found once and measured in the scan of every method.

    Args:
        scan: The clean scan, its axes towards right, anterior and superior.
        hu: HU (x, y, z), clipped to the window.
        body: Mask of the body.
        edges: Strong edges inside the body; None if there is none.
        flat: Homogeneous soft tissue.
        noise_hu: Noise of the homogeneous soft tissue in HU; NaN if there is none.
        cores: Cores of the organs, on thinned voxels (see `THINNED_MM`).
        homogeneous: Homogeneous part of liver and spleen, by label.
        targets: Vessels and lesions.
    """

    scan: Volume
    hu: NDArray[np.float32]
    body: Mask
    edges: Edges | None
    flat: Mask
    noise_hu: float
    cores: Mapping[str, OrganZones] = field(default_factory=dict)
    homogeneous: Mapping[int, Mask] = field(default_factory=dict)
    targets: Sequence[Target] = ()

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm."""
        return self.scan.spacing

    @staticmethod
    def of(scan: Volume, labels: NDArray[np.integer] | None, window: Window) -> CleanScan:
        """Finds body, edges, organs, vessels and lesions.

        Args:
            scan: The clean scan, its axes towards right, anterior and superior.
            labels: Label map on its grid, in TotalSegmentator's numbers; None without one.
            window: HU window to which all scans are clipped.
        """
        body, inner = find_body(scan)
        hu, spacing = clipped(scan, window), scan.spacing
        inner[:, :, np.arange(inner.shape[2]) % _step(inner.shape[2]) > 0] = False
        try:
            edges = Edges.find(hu, spacing, inner)
        except ValueError:
            edges = None
        flat = flat_tissue(hu, spacing, inner, (0.0, min(200.0, window.upper)))
        noise = _noise(hu, spacing, flat)
        if labels is None:
            return CleanScan(scan, hu, body, edges, flat, noise)
        found = {
            number: OrganStructure.find(hu, spacing, labels == number)
            for number in (LIVER, SPLEEN)
            if (labels == number).any()
        }
        voxel_ml = math.prod(spacing) / 1000
        homogeneous = {
            number: each.homogeneous
            for number, each in found.items()
            if np.count_nonzero(each.homogeneous) * voxel_ml >= LEAST_ML
        }
        targets = [
            *(_vessels(hu, labels, found[LIVER]) if LIVER in found else ()),
            *_lesions(hu, labels, spacing),
        ]
        thin = _thinned(spacing)
        coarse = [step * (each.step or 1) for step, each in zip(spacing, thin, strict=True)]
        cores = organ_cores(labels[thin], coarse, ORGANS)
        return CleanScan(scan, hu, body, edges, flat, noise, cores, homogeneous, targets)

    def measure(self, hu: NDArray[np.float32]) -> dict[str, float]:
        """The values of a scan by column of `cases.csv`; those that cannot be measured are missing.

        Args:
            hu: HU (x, y, z), clipped to the window.
        """
        values: dict[str, float] = {}
        if self.body.any():
            values["body_rmse_hu"] = body_rmse(hu, self.hu, self.body)
        if self.edges is not None:
            values["edge_ratio"] = self.edges.ratio(hu)
        if self.noise_hu > 0:
            values["noise_ratio"] = _noise(hu, self.spacing, self.flat) / self.noise_hu
        if self.cores:
            thin = _thinned(self.spacing)
            errors = mean_errors(hu[thin], self.hu[thin], self.cores)
            values["organ_error_hu"] = max(map(abs, errors.values()))
        if self.homogeneous:
            regions = list(self.homogeneous.values())
            rates = [blob_rate(hu, self.hu, self.spacing, region) for region in regions]
            sizes = [np.count_nonzero(region) for region in regions]
            values["blobs_per_100_ml"] = float(np.average(rates, weights=sizes))
        for column in dict.fromkeys(target.column for target in self.targets):
            kept = [self.kept(hu, target) for target in self.targets if target.column == column]
            values[column] = float(np.mean(kept))
        return values

    @staticmethod
    def kept(hu: NDArray[np.float32], target: Target) -> float:
        """Fraction of a target's contrast that a scan keeps."""
        return contrast(hu[target.box], target.inside, target.around) / target.contrast_hu


STRUCTURE_ROW = ("study_id", "method", "structure", "diameter_mm", "clean_hu", "scan_hu", "kept")


def read_clean(study: Study, target: Phase, window: Window) -> CleanScan | None:
    """A study's clean scan and what it shows; None where its file cannot be read.

    A label map that is missing or cannot be used leaves out what needs organs.

    Args:
        study: The study; its scan is the clean one.
        target: The phase that was restored.
        window: HU window to which all scans are clipped.
    """
    try:
        scan = read_volume(study.file(target), target).canonical()
    except InputError:  # the rows of the scans name it
        return None
    return CleanScan.of(scan, _labels(study, scan, target), window)


def measure_scans(
    study: Study, clean: CleanScan, files: Mapping[str, Path], window: Window
) -> tuple[dict[str, dict[str, float]], list[dict[str, object]]]:
    """Measures the scan of each method; one that is missing or cannot be read has no values.

    Args:
        study: The study.
        clean: Its clean scan.
        files: Paths of the scans by method.
        window: HU window to which all scans are clipped.

    Returns:
        Values by method and column of `cases.csv`, and rows of `structure.csv`: the contrast of each vessel
        and lesion.
    """
    values: dict[str, dict[str, float]] = {}
    rows: list[dict[str, object]] = []
    for method, path in files.items():
        try:
            volume = read_volume(path).canonical()
            check_same_grid(clean.scan, [volume])
        except InputError:
            continue
        hu = clipped(volume, window)
        values[method] = clean.measure(hu)
        for each in clean.targets:
            cells = (study.study_id, method, each.name, *_rounded(each, clean.kept(hu, each)))
            rows.append(dict(zip(STRUCTURE_ROW, cells, strict=True)))
    return values, rows


def write_structures(folder: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Writes `structure.csv`: the contrast of each vessel and lesion in each method's scan."""
    write_table(folder / STRUCTURE_TABLE, STRUCTURE_ROW, rows)


def find_body(scan: Volume) -> tuple[Mask, Mask]:
    """The body in a scan, found on voxels of about 3 mm, and the body without its skin; empty without one.

    Args:
        scan: Scan, its axes towards right, anterior and superior.
    """
    steps = [max(1, round(COARSE_MM / spacing)) for spacing in scan.spacing]
    thinned = scan.data[:: steps[0], :: steps[1], :: steps[2]]
    body = body_mask(thinned, [step * size for step, size in zip(steps, scan.spacing, strict=True)])
    inner = np.asarray(ndimage.binary_erosion(body, np.ones((3, 3, 1), bool), iterations=2))
    return _refined(body, steps, scan.shape), _refined(inner, steps, scan.shape)


def _refined(mask: Mask, steps: Sequence[int], shape: Sequence[int]) -> Mask:
    for axis, (step, side) in enumerate(zip(steps, shape, strict=True)):
        mask = np.repeat(mask, step, axis=axis).take(range(side), axis=axis)
    return mask


def _step(slices: int) -> int:
    return max(1, slices // SLICES)


def _noise(hu: NDArray[np.float32], spacing: Sequence[float], flat: Mask) -> float:
    chosen = slice(None, None, _step(flat.shape[2]))  # noise is measured within slices
    return noise_sd(hu[:, :, chosen], spacing, flat[:, :, chosen]) if flat.any() else math.nan


def _thinned(spacing: Sequence[float]) -> tuple[slice, slice, slice]:
    x, y, z = (slice(None, None, max(1, int(THINNED_MM / step))) for step in spacing)
    return x, y, z


def clipped(scan: Volume, window: Window) -> NDArray[np.float32]:
    """HU of a scan, clipped to a window."""
    return np.clip(scan.data.astype(np.float32), window.lower, window.upper)


def _labels(study: Study, scan: Volume, target: Phase) -> NDArray[np.integer] | None:
    column = mask_column(LABELS, target)
    if column not in study.masks:
        return None
    try:
        labels = read_label_volume(split_labels(study.masks[column])[0]).canonical()
        check_same_grid(scan, [labels])
    except InputError:  # the phase-leak check names it
        return None
    return labels.data


def _vessels(hu: NDArray[np.float32], labels: NDArray[np.integer], liver: OrganStructure) -> list[Target]:
    masks = {column: (name, _inner(labels == ORGANS[name])) for column, name in VESSELS.items()}
    masks["liver_vessels_kept"] = ("liver_vessels", liver.bright)
    around = liver.homogeneous
    targets = []
    for column, (name, inside) in masks.items():
        if inside.any() and around.any():
            box = box_around(inside | around, (1.0, 1.0, 1.0))
            level = contrast(hu[box], inside[box], around[box])
            if abs(level) >= LEAST_CONTRAST_HU:
                targets.append(Target(column, name, box, inside[box], around[box], level))
    return targets


def _inner(vessel: Mask) -> Mask:
    """A vessel without the outermost voxels of its cross-sections, which mix with fat."""
    return np.asarray(ndimage.binary_erosion(vessel, CROSS, border_value=1))


def _lesions(
    hu: NDArray[np.float32], labels: NDArray[np.integer], spacing: tuple[float, float, float]
) -> list[Target]:
    every = np.asarray(labels == LESION)
    if not every.any():
        return []
    region = box_around(every, spacing, SHELL_MM)
    liver = labels[region] == LIVER
    parts, count = ndimage.label(every[region])
    targets = []
    for number in range(1, count + 1):
        inside = parts == number
        around = shell(inside, spacing, outer_mm=SHELL_MM) & liver
        diameter = (6 / math.pi * np.count_nonzero(inside) * math.prod(spacing)) ** (1 / 3)
        if np.count_nonzero(around) < np.count_nonzero(inside) / 2:
            continue  # it lies outside of the liver
        level = contrast(hu[region], inside, around)
        if abs(level) >= LEAST_CONTRAST_HU:
            column = "large_lesions_kept" if diameter >= LARGE_MM else "small_lesions_kept"
            targets.append(Target(column, f"liver_lesion_{number}", region, inside, around, level, diameter))
    return targets


def _rounded(target: Target, kept: float) -> tuple[object, ...]:
    diameter = "" if math.isnan(target.diameter_mm) else round(target.diameter_mm, 1)
    levels = (target.contrast_hu, kept * target.contrast_hu)
    return (diameter, *(round(level, 2) for level in levels), round(kept, 4))
