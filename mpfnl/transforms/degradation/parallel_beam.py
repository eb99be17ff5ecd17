"""Parallel rays through ellipses, and filtered backprojection; alike bit by bit for any number of threads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from torch import Tensor

Floats: TypeAlias = NDArray[np.float64]
Singles: TypeAlias = NDArray[np.float32]
Pair: TypeAlias = tuple[float, float]

# Metal has edges so sharp that bins as wide as pixels would alias into a fan of fine lines.
_BINS_PER_PIXEL = 2
# A pixel takes the nearest sample of the filtered projections: 32 samples a pixel leave no rings.
_FOURIER_STEPS = 2
_LINEAR_STEPS = 8
_DIRECTIONS = 64  # filtered together
_PIXELS = 2**15  # summed together: their memory fits the cache of one core


@dataclass(frozen=True)
class Ellipse:
    """An ellipse in the slice, aligned to x and y; in mm from the array's centre."""

    centre: Pair
    radius: Pair


@dataclass(frozen=True)
class ParallelBeam:
    """Parallel rays in directions spread evenly over half a turn, on bins half a pixel wide.

    Args:
        angles: Number of directions.
        reach_mm: Distance from the array's centre that the detector covers to either side.
        pixel_mm: Width of a pixel.
    """

    angles: int
    reach_mm: float
    pixel_mm: float

    @property
    def pitch(self) -> float:
        """Width of a bin in mm."""
        return self.pixel_mm / _BINS_PER_PIXEL

    @property
    def bins(self) -> int:
        """Number of bins: odd, the middle one sees the array's centre."""
        return 2 * math.ceil(self.reach_mm / self.pitch) + 3

    @property
    def directions(self) -> list[float]:
        """The angles between x and the detector, in radians; alike on both sides of x and of y."""
        return [(number + 0.5) * math.pi / self.angles for number in range(self.angles)]

    def chords(self, ellipse: Ellipse) -> Floats:
        """Lengths of the rays inside an ellipse in mm, the exact mean over each bin: `(angles, bins)`.

        At the angle a, an ellipse of the radii p and q reaches h = sqrt(p^2 cos^2 a + q^2 sin^2 a) to either
        side of its centre; at u h from there the chord is 2 p q sqrt(1 - u^2) / h long.
        """
        cos, sin = np.cos(self.directions)[:, None], np.sin(self.directions)[:, None]
        (x, y), (p, q) = ellipse.centre, ellipse.radius
        edges = (np.arange(self.bins + 1) - self.bins / 2) * self.pitch
        u = ((edges - x * cos - y * sin) / np.hypot(p * cos, q * sin)).clip(-1, 1)
        area_below = p * q * (u * np.sqrt(1 - u * u) + np.arcsin(u))
        return np.diff(area_below, axis=1) / self.pitch

    def reconstruct(self, sinograms: NDArray[np.floating], x_mm: Floats, y_mm: Floats) -> Singles:
        """Filtered backprojection, with a Hann window over the ramp as of a soft reconstruction kernel.

        The ramp is the band-limited one (Kak and Slaney, Principles of Computerized Tomographic Imaging,
        section 3.3), padded against wrap-around; the window ends at one cycle in two pixels.

        Args:
            sinograms: `(images, angles, bins)`.
            x_mm: Pixel centres along x, from the array's centre; all pixels lie within reach.
            y_mm: Pixel centres along y.

        Returns:
            The images `(images, x, y)`, per mm.
        """
        image = torch.zeros(len(x_mm) * len(y_mm), len(sinograms), dtype=torch.float32)
        steps = _FOURIER_STEPS * _LINEAR_STEPS
        scale, origin = steps / self.pitch, (self.bins - 1) / 2 * steps + 0.5  # 0.5: rounds to the nearest
        for angle, samples in zip(self.directions, self._filtered(sinograms), strict=True):
            table = _refined(samples)
            along_x = torch.from_numpy(x_mm * math.cos(angle) * scale + origin)
            along_y = torch.from_numpy(y_mm * math.sin(angle) * scale)
            indices = (along_x[:, None] + along_y).to(torch.int32).view(-1)
            for some, sums in zip(indices.split(_PIXELS), image.split(_PIXELS), strict=True):
                sums.add_(table.index_select(0, some))
        image *= math.pi / self.angles
        result: Singles = image.t().reshape(-1, len(x_mm), len(y_mm)).numpy()
        return result

    def _filtered(self, sinograms: NDArray[np.floating]) -> Iterator[Tensor]:
        """For each direction the filtered projections, twice a bin: `(samples, images)`."""
        size = next_fast_len(2 * self.bins, real=True)
        offset = np.minimum(np.arange(size), size - np.arange(size))
        ramp = np.where(offset % 2 == 1, -1 / (math.pi * np.maximum(offset, 1)) ** 2, 0.0)
        ramp[0] = 0.25
        cycles_per_pixel = np.arange(size // 2 + 1) / size * _BINS_PER_PIXEL
        hann = np.where(cycles_per_pixel < 0.5, 0.5 + 0.5 * np.cos(2 * math.pi * cycles_per_pixel), 0.0)
        response = (rfft(ramp).real * hann * (_FOURIER_STEPS / self.pitch)).astype(np.float32)
        for first in range(0, self.angles, _DIRECTIONS):
            some = sinograms[:, first : first + _DIRECTIONS].astype(np.float32)
            fine = irfft(rfft(some, size) * response, size * _FOURIER_STEPS)
            kept = fine[..., : self.bins * _FOURIER_STEPS + 1]
            yield from torch.from_numpy(np.ascontiguousarray(kept.transpose(1, 2, 0)))


def _refined(samples: Tensor) -> Tensor:
    """Samples `(samples + 1, images)`, with more of them between each two by linear interpolation."""
    first, rise = samples[:-1], samples.diff(dim=0)
    table = samples.new_empty(len(first), _LINEAR_STEPS, samples.shape[1])
    for step in range(_LINEAR_STEPS):
        torch.add(first, rise * (step / _LINEAR_STEPS), out=table[:, step])
    return table.view(-1, samples.shape[1])
