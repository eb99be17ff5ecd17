"""Parallel rays through ellipses, and filtered backprojection; the same bit by bit for any number of threads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from torch import Tensor

_STEPS = 8  # filtered projections are sampled so many times finer than the detector
_DIRECTIONS = 64  # are filtered together
_PIXELS = 2**15  # are summed together: what they take stays in the cache of one core

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Pair = tuple[float, float]


@dataclass(frozen=True)
class Ellipse:
    """An ellipse in the slice, aligned to x and y, in mm from the array's centre."""

    centre: Pair
    radius: Pair


@dataclass(frozen=True)
class ParallelBeam:
    """Parallel rays in evenly spread directions over half a turn.

    Args:
        angles: Number of directions.
        bins: Number of detector bins, centred on the array's centre.
        pitch: Width of a bin in mm.
    """

    angles: int
    bins: int
    pitch: float

    @property
    def directions(self) -> Floats:
        """The angle between x and the detector, in radians; symmetric about both axes of the slice."""
        angles: Floats = (np.arange(self.angles) + 0.5) * (math.pi / self.angles)
        return angles

    def chords(self, ellipse: Ellipse) -> Floats:
        """Lengths of the rays inside an ellipse in mm, each the exact mean over its bin: `(angles, bins)`.

        At the angle a, an ellipse of the radii p and q is seen h = sqrt(p^2 cos^2 a + q^2 sin^2 a) wide to either
        side, and the chord at distance u h from its centre is 2 p q sqrt(1 - u^2) / h.
        """
        cos, sin = np.cos(self.directions)[:, None], np.sin(self.directions)[:, None]
        (x, y), (p, q) = ellipse.centre, ellipse.radius
        edges = (np.arange(self.bins + 1) - self.bins / 2) * self.pitch
        u = ((edges - x * cos - y * sin) / np.hypot(p * cos, q * sin)).clip(-1, 1)
        area_below = p * q * (u * np.sqrt(1 - u * u) + np.arcsin(u))
        return np.diff(area_below, axis=1) / self.pitch

    def reconstruct(self, sinograms: Floats, x_mm: Floats, y_mm: Floats) -> Singles:
        """Filtered backprojection, with a Hann window over the ramp as of a soft reconstruction kernel.

        The ramp is the band-limited one (Kak and Slaney, Principles of Computerized Tomographic Imaging, section
        3.3), padded against wrap-around. Filtered projections are interpolated by their Fourier series
        to an eighth of a bin; a pixel takes the nearest sample.

        Args:
            sinograms: `(images, angles, bins)`.
            x_mm: Pixel centres along x, from the array's centre; seen by the detector.
            y_mm: Along y.

        Returns:
            The images `(images, x, y)`, per mm.
        """
        image = torch.zeros(len(x_mm) * len(y_mm), len(sinograms))
        scale, origin = _STEPS / self.pitch, (self.bins - 1) / 2 * _STEPS + 0.5  # 0.5: rounds to the nearest
        for angle, table in zip(self.directions, self._filtered(sinograms), strict=True):
            along_x = torch.from_numpy(x_mm * math.cos(angle) * scale + origin)
            along_y = torch.from_numpy(y_mm * math.sin(angle) * scale)
            samples = (along_x[:, None] + along_y).to(torch.int32).view(-1)
            for pixels, sums in zip(samples.split(_PIXELS), image.split(_PIXELS), strict=True):
                sums.add_(table.index_select(0, pixels))
        image *= math.pi / self.angles
        result: Singles = image.t().reshape(-1, len(x_mm), len(y_mm)).numpy()
        return result

    def _filtered(self, sinograms: Floats) -> Iterator[Tensor]:
        """For each direction the filtered projections, finely sampled: `(samples, images)`."""
        size = next_fast_len(2 * self.bins, real=True)
        offset = np.minimum(np.arange(size), size - np.arange(size))
        ramp = np.where(offset % 2 == 1, -1 / (math.pi * np.maximum(offset, 1)) ** 2, 0.0)
        ramp[0] = 0.25
        hann = 0.5 + 0.5 * np.cos(2 * math.pi * np.arange(size // 2 + 1) / size)
        response = (rfft(ramp).real * hann * (_STEPS / self.pitch)).astype(np.float32)
        for first in range(0, self.angles, _DIRECTIONS):
            some = sinograms[:, first : first + _DIRECTIONS].astype(np.float32)
            fine = irfft(rfft(some, size) * response, size * _STEPS)[..., : self.bins * _STEPS]
            yield from torch.from_numpy(np.ascontiguousarray(fine.transpose(1, 2, 0)))
