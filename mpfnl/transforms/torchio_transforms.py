"""The degradation, the window and the rotations as TorchIO transforms.

The random ones draw their parameters, then hand over to a deterministic one that lands in the
subject's history: `subject.get_composed_history()` replays it exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torchio as tio
from torchio.transforms.augmentation import RandomTransform
from torchio.transforms.intensity_transform import IntensityTransform
from torchio.transforms.spatial_transform import SpatialTransform

from mpfnl.errors import InputError
from mpfnl.phases import PHASES, Phase
from mpfnl.transforms.degradation import (
    SECOND_ORDER_V1,
    Preset,
    find_preset,
    sample_parameters,
)
from mpfnl.transforms.rotation import rotate90, rotate90_affine
from mpfnl.transforms.seeds import Sharing, phase_draws
from mpfnl.transforms.torchio_images import degrade_image
from mpfnl.window import ABDOMEN
from mpfnl.window import Window as HUWindow

Names = Sequence[str] | None
"""Names of images in a subject; None stands for no restriction."""


class Window(IntensityTransform):
    """Maps HU to [0, 1] in a window, clipped; label maps are left alone.

    Args:
        level: Centre of the window in HU.
        width: Width of the window in HU, positive.
        p: Probability that the transform is applied.
        copy: Whether the subject is copied first.
        include: Names of the only images to transform.
        exclude: Names of images to leave alone.
        keep: Names of images to keep as they were, each with its new name.
    """

    def __init__(
        self,
        level: float = ABDOMEN.level,
        width: float = ABDOMEN.width,
        p: float = 1.0,
        copy: bool = True,
        include: Names = None,
        exclude: Names = None,
        keep: dict[str, str] | None = None,
    ) -> None:
        super().__init__(p=p, copy=copy, include=include, exclude=exclude, keep=keep)
        self.level = level
        self.width = width
        self.window = HUWindow(level, width)
        self.args_names = ["level", "width"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Windows every intensity image of the subject."""
        for image in self.get_images(subject):
            image.set_data(self.window.normalize(image.data.float()))
        return subject


class Degradation(IntensityTransform):
    """Degrades images as recorded, each with parameters of its own.

    Args:
        parameters: By the name of the image, what `sample_parameters` returned for it.
        p: Probability that the transform is applied.
        copy: Whether the subject is copied first.
        include: Names of the only images to transform.
        exclude: Names of images to leave alone.
        keep: Names of images to keep as they were, each with its new name.
    """

    def __init__(
        self,
        parameters: Mapping[str, Mapping[str, Any]],
        p: float = 1.0,
        copy: bool = True,
        include: Names = None,
        exclude: Names = None,
        keep: dict[str, str] | None = None,
    ) -> None:
        super().__init__(p=p, copy=copy, include=include, exclude=exclude, keep=keep)
        self.parameters = {str(name): dict(record) for name, record in parameters.items()}
        self.args_names = ["parameters"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Degrades the images that the parameters name.

        Raises:
            InputError: The subject lacks one of them, or it has more than one channel, or its slices do not
                lie along the third axis.
        """
        images = self.get_images_dict(subject)
        for name, record in self.parameters.items():
            if name not in images:
                raise InputError(
                    f"phase {name}: the subject has no such image to degrade; add it or drop the record"
                )
            degrade_image(name, images[name], record)
        return subject


class RandomDegradation(RandomTransform, IntensityTransform):
    """Degrades the phases of a subject, each with its own draw.

    The history gets a `Degradation` with what was drawn. To have the clean target beside its degraded
    version, keep it: `RandomDegradation(keep={"portal_venous": "target"})`.

    Args:
        phases: The phases to degrade, by the names of the subject's images; those that the subject
            lacks are skipped.
        preset: The ranges to draw from, or the name of a preset.
        p: Probability that the subject is degraded.
        seed: Where the draws start; None takes it from torch's global generator. With a seed every call
            draws the same for a subject of the same `study_id`: what `MultiphaseDataModule` tests on.
        sharing: What the phases have in common; `acquisition` is one scanner and protocol for all.
        copy: Whether the subject is copied first.
        include: Names of the only images to transform.
        exclude: Names of images to leave alone.
        keep: Names of images to keep as they were, each with its new name.
    """

    def __init__(
        self,
        phases: Sequence[Phase] = PHASES,
        preset: Preset | str = SECOND_ORDER_V1,
        p: float = 1.0,
        seed: int | None = None,
        sharing: Sharing = Sharing.NOTHING,
        copy: bool = True,
        include: Names = None,
        exclude: Names = None,
        keep: dict[str, str] | None = None,
    ) -> None:
        super().__init__(p=p, copy=copy, include=include, exclude=exclude, keep=keep)  # type: ignore[no-untyped-call]
        self.phases = tuple(Phase(phase) for phase in phases)
        self.preset = find_preset(preset) if isinstance(preset, str) else preset
        self.seed = seed
        self.sharing = Sharing(sharing)

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Draws for each phase and degrades.

        Raises:
            InputError: The subject has none of the phases.
        """
        images = self.get_images_dict(subject)
        present = [phase for phase in self.phases if phase in images]
        if not present:
            names = ", ".join(self.phases)
            raise InputError(f"the subject has no image to degrade: name its images {names}")
        seed = self._get_random_seed() if self.seed is None else self.seed
        study = str(subject.get("study_id", ""))
        parameters = {
            phase.value: sample_parameters(
                self.preset, phase_draws(seed, 0, study, phase, sharing=self.sharing)
            )
            for phase in present
        }
        degraded = Degradation(parameters, copy=False, include=self.include, exclude=self.exclude)(subject)
        assert isinstance(degraded, tio.Subject)
        return degraded


class Rotation90(SpatialTransform):
    """Rotates every image of a subject, label maps too, by a multiple of 90 degrees.

    Whole voxels move, so nothing is interpolated and four quarter turns are the identity. The affine
    turns with the array: every voxel keeps its place in the world, and an odd number of turns swaps the
    sizes and the spacings of the two axes of the plane (see `rotate90_affine`).

    Args:
        axis: The axis to turn about: 0, 1 or 2 for x, y or z.
        turns: Number of quarter turns.
        p: Probability that the transform is applied.
        copy: Whether the subject is copied first.
        include: Names of the only images to transform.
        exclude: Names of images to leave alone.
        keep: Names of images to keep as they were, each with its new name.
    """

    def __init__(
        self,
        axis: int = 2,
        turns: int = 1,
        p: float = 1.0,
        copy: bool = True,
        include: Names = None,
        exclude: Names = None,
        keep: dict[str, str] | None = None,
    ) -> None:
        super().__init__(p=p, copy=copy, include=include, exclude=exclude, keep=keep)
        self.axis = _checked_axis(axis)
        self.turns = turns
        self.args_names = ["axis", "turns"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Rotates all images of the subject."""
        for image in self.get_images(subject):
            affine = rotate90_affine(image.affine, image.spatial_shape, self.axis, self.turns)
            image.set_data(rotate90(image.data, self.axis, self.turns).contiguous())
            image.affine = affine
        return subject

    def is_invertible(self) -> bool:
        """Always true."""
        return True

    def inverse(self) -> Rotation90:
        """The rotation the other way."""
        return Rotation90(self.axis, -self.turns, copy=self.copy, include=self.include, exclude=self.exclude)


class RandomRotation90(RandomTransform, SpatialTransform):
    """Rotates a subject by 0, 90, 180 or 270 degrees about one of the axes, all images alike.

    Args:
        axes: The axes to choose from: `(2,)` turns in the axial plane; `(0, 1, 2)` in all three planes, and
            then mixes the slice direction with the others, whatever their spacings.
        p: Probability that the subject is rotated.
        copy: Whether the subject is copied first.
        include: Names of the only images to transform.
        exclude: Names of images to leave alone.
        keep: Names of images to keep as they were, each with its new name.
    """

    def __init__(
        self,
        axes: Sequence[int] = (2,),
        p: float = 1.0,
        copy: bool = True,
        include: Names = None,
        exclude: Names = None,
        keep: dict[str, str] | None = None,
    ) -> None:
        super().__init__(p=p, copy=copy, include=include, exclude=exclude, keep=keep)  # type: ignore[no-untyped-call]
        if not axes:
            raise ValueError("give at least one axis to rotate about")
        self.axes = tuple(_checked_axis(axis) for axis in axes)

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Draws the axis and the number of turns, and rotates."""
        axis = self.axes[int(torch.randint(len(self.axes), ()))]
        turns = int(torch.randint(4, ()))
        rotated = Rotation90(axis, turns, copy=False, include=self.include, exclude=self.exclude)(subject)
        assert isinstance(rotated, tio.Subject)
        return rotated


def _checked_axis(axis: int) -> int:
    if axis not in (0, 1, 2):
        raise ValueError(f"the axis of a rotation is 0, 1 or 2, got {axis}")
    return axis
