"""Settings of a phantom cohort: geometry, misalignment, noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

Range = tuple[float, float]
"""Lowest and highest value of a patient's uniform draw."""


@dataclass(frozen=True)
class PhantomConfig:
    """The settings of a phantom cohort; each patient draws uniformly from the ranges.

    Args:
        in_plane_mm: Voxel size in x and y (the same in both).
        slice_mm: Slice thickness and distance.
        field_of_view_mm: Extent in x.
        depth_fraction: Extent in y as a fraction of the extent in x; 1 is a scanner's square field of view.
        coverage_mm: Extent in z, around the first lumbar vertebra.
        misalignment: Scale of the motion between the phases; 1 as measured in patients before deformable
            registration, 0 for perfectly aligned phases.
        noise_hu: Standard deviation of the noise in soft tissue, averaged over the body.
        liver_lesion_probability: Fraction of patients with one to three focal liver lesions.

    Raises:
        ValueError: A range is empty or a value out of range.

    >>> PhantomConfig(slice_mm=(5.0, 2.5))
    Traceback (most recent call last):
    ValueError: slice_mm is (5.0, 2.5); it must be positive and in order
    """

    in_plane_mm: Range = (1.5, 2.0)
    slice_mm: Range = (2.5, 5.0)
    field_of_view_mm: Range = (340.0, 420.0)
    depth_fraction: float = 1.0
    coverage_mm: Range = (200.0, 240.0)
    misalignment: float = 1.0
    noise_hu: Range = (8.0, 15.0)
    liver_lesion_probability: float = 0.35

    def __post_init__(self) -> None:
        sizes = {
            "in_plane_mm": self.in_plane_mm,
            "slice_mm": self.slice_mm,
            "field_of_view_mm": self.field_of_view_mm,
            "coverage_mm": self.coverage_mm,
        }
        for name, (low, high) in sizes.items():
            if not 0 < low <= high:
                raise ValueError(f"{name} is ({low}, {high}); it must be positive and in order")
        if not 0 <= self.noise_hu[0] <= self.noise_hu[1]:
            raise ValueError(f"noise_hu is {self.noise_hu}; it must be zero or more, and in order")
        if not 0 < self.depth_fraction <= 1:
            raise ValueError(f"depth_fraction is {self.depth_fraction}; it must lie in (0, 1]")
        if not self.misalignment >= 0:
            raise ValueError(f"misalignment is {self.misalignment}; it must be zero or more")
        if not 0 <= self.liver_lesion_probability <= 1:
            raise ValueError(
                f"liver_lesion_probability is {self.liver_lesion_probability}; it must lie in [0, 1]"
            )


SMALL = PhantomConfig(
    in_plane_mm=(2.6, 2.9),
    slice_mm=(2.8, 3.0),
    field_of_view_mm=(345.0, 365.0),
    depth_fraction=0.78,
    coverage_mm=(136.0, 144.0),
)
"""A small preset for tests and the demo: about 128 x 100 x 48 voxels around the pancreas."""

THREE_MM = replace(SMALL, in_plane_mm=(3.0, 3.0), slice_mm=(3.0, 3.0))
"""`SMALL` with voxels of 3 mm, the grid of TotalSegmentator's fast model."""
