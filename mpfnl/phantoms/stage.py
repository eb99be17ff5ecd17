"""What every part of the anatomy is given: the canvas, the patient's build, HU, and textures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpfnl.phantoms.enhancement import Phases
from mpfnl.phantoms.fields import Array, SmoothField
from mpfnl.phantoms.habitus import Habitus
from mpfnl.phantoms.labels import NUMBERS
from mpfnl.phantoms.scene import Box, Hu, Region, Scene, curve


@dataclass(frozen=True)
class Texture:
    """Random fields on the whole grid, unit variance, named by the size of their structure."""

    low: Array  # 40 mm
    middle: Array  # 18 mm
    rough: Array  # 10 mm
    fine: Array  # 6 mm

    @classmethod
    def draw(cls, rng: np.random.Generator, axes: tuple[Array, Array, Array]) -> Texture:
        """Draws all four on the grid spanned by `axes` (mm)."""
        fields = [SmoothField.draw(rng, size) for size in (40.0, 18.0, 10.0, 6.0)]
        return cls(*(field.on(axes) for field in fields))


@dataclass
class Stage:
    """One patient while the anatomy is put together."""

    scene: Scene
    habitus: Habitus
    hu: dict[str, Phases]
    rng: np.random.Generator
    texture: Texture

    def place(self, points: ArrayLike, jitter: float = 0.0) -> NDArray[np.float64]:
        """Atlas points moved to the patient, each off by a normal error of `jitter` mm."""
        placed = self.habitus.place(points)
        return placed + self.rng.normal(0, 1, placed.shape) * jitter

    def vessel(self, points: ArrayLike, radii: ArrayLike, jitter: float = 1.5) -> Region:
        """A tube along a smooth line through atlas points, radii in mm."""
        path, radius = curve(self.place(points, jitter), radii, 6.0)
        return self.scene.tube(path, radius)

    def textured(self, tissue: str, box: Box, fine: float, rough: float = 0.0) -> Hu:
        """The tissue's HU with texture: standard deviations in HU at the 6 mm and the 10 mm scale."""
        grain = np.float32(fine) * self.texture.fine[box]
        if rough:
            grain += np.float32(rough) * self.texture.rough[box]
        return [np.float32(value) + grain for value in self.hu[tissue]]

    def put(
        self,
        region: Region,
        tissue: str,
        name: str | None = None,
        *,
        fine: float = 0.0,
        rough: float = 0.0,
        claim: float | None = 0.0,
    ) -> None:
        """Paints a region with a tissue and takes its room (with a margin; None takes none)."""
        self.scene.paint(
            region, self.textured(tissue, region.box, fine, rough), None if name is None else NUMBERS[name]
        )
        if claim is not None:
            self.scene.claim(region, claim)

    def roughen(self, region: Region, low: float = 0.0, middle: float = 0.0, rough: float = 0.0) -> Region:
        """The region with an irregular surface: amplitudes in mm at the three scales."""
        box = region.box
        bumps = np.float32(low) * self.texture.low[box]
        if middle:
            bumps = bumps + np.float32(middle) * self.texture.middle[box]
        if rough:
            bumps = bumps + np.float32(rough) * self.texture.rough[box]
        return Region(box, region.distance + bumps)
