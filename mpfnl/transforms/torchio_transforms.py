"""TorchIO transforms of this package: degradation, window and rotation.

The random ones draw their parameters, then apply a deterministic one that is added to the subject's history:
`subject.get_composed_history()` replays it exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
import torchio as tio
from torchio.transforms.augmentation import RandomTransform
from torchio.transforms.intensity_transform import IntensityTransform
from torchio.transforms.spatial_transform import SpatialTransform

from mpfnl.errors import FormatError, NotFoundError
from mpfnl.phases import Phase
from mpfnl.transforms.degradation import SECOND_ORDER_V1, Preset, Record, find_preset
from mpfnl.transforms.rotation import checked_axis, rotate90, rotate90_affine
from mpfnl.transforms.seeds import Sharing, phase_draws
from mpfnl.volumes import Grid
from mpfnl.window import ABDOMEN, Window


class TransformOptions(TypedDict, total=False):
    """Options of every TorchIO transform."""

    p: float
    """Probability that the transform is applied."""
    copy: bool
    """Whether the subject is copied first."""
    include: Sequence[str] | None
    """Names of the only images to transform."""
    exclude: Sequence[str] | None
    """Names of images to leave alone."""
    keep: dict[str, str] | None
    """Names of images to keep as they were, each with its new name."""


class WindowIntensity(IntensityTransform):
    """Maps HU to [0, 1] in a window, clipped; label maps are left alone.

    Args:
        level: Centre of the window in HU.
        width: Width of the window in HU, positive.
        **options: Options of every TorchIO transform; see `TransformOptions`.

    >>> import torch
    >>> import torchio as tio
    >>> hu = torch.tensor([-1000.0, 50.0, 275.0]).reshape(1, 3, 1, 1)
    >>> WindowIntensity(level=50, width=450)(tio.ScalarImage(tensor=hu)).data.flatten()
    tensor([0.0000, 0.5000, 1.0000])
    """

    def __init__(
        self,
        level: float = ABDOMEN.level,
        width: float = ABDOMEN.width,
        **options: Unpack[TransformOptions],
    ) -> None:
        super().__init__(**options)
        self.level = level
        self.width = width
        self.window = Window(level, width)
        self.args_names = ["level", "width"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Windows every intensity image of the subject."""
        for image in self.get_images(subject):
            image.set_data(self.window.normalize(image.data.float()))
        return subject


class RecordedDegradation(IntensityTransform):
    """Degrades images as recorded, each with its own record; the order of its axes does not matter.

    Args:
        parameters: Record of each image by its name, as drawn by `sample_parameters`.
        **options: Options of every TorchIO transform; see `TransformOptions`.

    Raises:
        FormatError: A record cannot be read.

    >>> import torch
    >>> import torchio as tio
    >>> subject = tio.Subject(arterial=tio.ScalarImage(tensor=torch.full((1, 4, 4, 2), 900.0)))
    >>> clip = {"operations": [{"kind": "clip", "lower_hu": -175, "upper_hu": 275}]}
    >>> float(RecordedDegradation({"arterial": clip})(subject)["arterial"].data.max())
    275.0
    """

    def __init__(
        self, parameters: Mapping[str, Mapping[str, Any]], **options: Unpack[TransformOptions]
    ) -> None:
        super().__init__(**options)
        self.parameters = {str(name): dict(record) for name, record in parameters.items()}
        self.records = {name: Record.from_json(record) for name, record in self.parameters.items()}
        self.args_names = ["parameters"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Degrades the images that the parameters name.

        Raises:
            NotFoundError: The subject lacks one of the images.
            FormatError: An image has more than one channel.
        """
        images = self.get_images_dict(subject)
        for name, record in self.records.items():
            if name not in images:
                raise NotFoundError(
                    f"phase {name}: the subject has no such image to degrade; add it or drop the record"
                )
            _degrade(name, images[name], record)
        return subject


class RandomDegradation(RandomTransform, IntensityTransform):
    """Degrades the phases of a subject, each with its own draw.

    The history gets a `RecordedDegradation` with the drawn parameters. To have the clean target beside its
    degraded version, keep it: `RandomDegradation(keep={"portal_venous": "target"})`.

    Args:
        preset: Preset to draw from, or the name of a preset.
        phases: Phases to degrade, by the names of the subject's images; None takes every phase that the
            subject holds. Phases that the subject lacks are skipped.
        seed: Seed of the draws; None draws it from torch's global generator. With a seed each call draws
            the same for a subject of the same `study_id`, as `MultiphaseDataModule` does for its test set.
        sharing: Parameters that the phases share; `acquisition` is one scanner and protocol for all.
        window: HU window that scans are limited to where the preset clips.
        **options: Options of every TorchIO transform; see `TransformOptions`.

    >>> import torch
    >>> import torchio as tio
    >>> subject = tio.Subject(portal_venous=tio.ScalarImage(tensor=torch.zeros(1, 8, 8, 4)))
    >>> degraded = RandomDegradation("thick-slices", seed=1)(subject)
    >>> [step.name for step in degraded.history]
    ['RecordedDegradation']
    """

    def __init__(
        self,
        preset: Preset | str = SECOND_ORDER_V1,
        phases: Sequence[Phase] | None = None,
        seed: int | None = None,
        sharing: Sharing = Sharing.NOTHING,
        window: Window = ABDOMEN,
        **options: Unpack[TransformOptions],
    ) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self.preset = find_preset(preset) if isinstance(preset, str) else preset
        self.phases = tuple(Phase) if phases is None else tuple(Phase(phase) for phase in phases)
        self.seed = seed
        self.sharing = Sharing(sharing)
        self.window = window

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Draws for each phase and degrades.

        Raises:
            NotFoundError: The subject has none of the phases.
        """
        images = self.get_images_dict(subject)
        phases = [phase for phase in self.phases if phase in images]
        if not phases:
            names = ", ".join(self.phases)
            raise NotFoundError(f"the subject has no image to degrade: name its images {names}")
        seed = self._get_random_seed() if self.seed is None else self.seed
        study = str(subject.get("study_id", ""))
        parameters = {
            phase.value: self.preset.sample(
                phase_draws(seed, 0, study, phase, sharing=self.sharing), self.window
            ).to_json()
            for phase in phases
        }
        degraded = RecordedDegradation(parameters, copy=False, include=self.include, exclude=self.exclude)(
            subject
        )
        assert isinstance(degraded, tio.Subject)
        return degraded


class Rotation90(SpatialTransform):
    """Rotates every image of a subject, label maps too, by a multiple of 90 degrees.

    Whole voxels move, so nothing is interpolated and four quarter turns are the identity. The affine turns
    with the array: every voxel keeps its place in the world, and an odd number of turns swaps the sizes and
    the spacings of the two axes of the plane (see `rotate90_affine`).

    Args:
        axis: Axis of the rotation: 0, 1 or 2 for x, y or z.
        turns: Number of quarter turns.
        **options: Options of every TorchIO transform; see `TransformOptions`.

    >>> import torch
    >>> import torchio as tio
    >>> image = tio.ScalarImage(tensor=torch.zeros(1, 4, 6, 2))
    >>> Rotation90(axis=2, turns=1)(image).spatial_shape
    (6, 4, 2)
    """

    def __init__(self, axis: int = 2, turns: int = 1, **options: Unpack[TransformOptions]) -> None:
        super().__init__(**options)
        self.axis = checked_axis(axis)
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
        axes: Axes to choose from: `(2,)` turns in the axial plane; `(0, 1, 2)` in all three planes, which
            mixes the slice direction with the others, whatever their spacings.
        **options: Options of every TorchIO transform; see `TransformOptions`.

    >>> import torch
    >>> import torchio as tio
    >>> image = tio.ScalarImage(tensor=torch.zeros(1, 4, 4, 2))
    >>> RandomRotation90()(image).spatial_shape
    (4, 4, 2)
    """

    def __init__(self, axes: Sequence[int] = (2,), **options: Unpack[TransformOptions]) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        if not axes:
            raise ValueError("give at least one axis to rotate about")
        self.axes = tuple(checked_axis(axis) for axis in axes)

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Draws the axis and the number of turns, and rotates."""
        axis = self.axes[int(torch.randint(len(self.axes), ()))]
        turns = int(torch.randint(4, ()))
        rotated = Rotation90(axis, turns, copy=False, include=self.include, exclude=self.exclude)(subject)
        assert isinstance(rotated, tio.Subject)
        return rotated


def _degrade(name: str, image: tio.Image, record: Record) -> None:
    """Degrades the image of a name in place, its axes to the right, anterior and superior as in training."""
    if image.num_channels != 1:
        raise FormatError(f"phase {name}: {image.num_channels} channels; give a CT with one")
    stored = Grid(image.spatial_shape, image.affine)
    grid = stored.canonical()
    hu = np.array(stored.to_canonical(image.data[0].numpy()), np.float32, order="C")
    degraded = grid.to_stored(record.apply(torch.from_numpy(hu), grid.spacing).numpy())
    image.set_data(torch.from_numpy(np.ascontiguousarray(degraded))[None])
