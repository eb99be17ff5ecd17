"""Degraded patches for training: a sample is a function of (seed, epoch, study, draw) alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeAlias, TypedDict, TypeVar

import numpy as np
import torch
import torchio as tio
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mpfnl.data.degradation import Sample, SampleSettings, block_mean, to_float32
from mpfnl.data.studies import Studies, StudyScans
from mpfnl.networks.coverage import normalize_covered
from mpfnl.transforms.insertion import StructureInsertion
from mpfnl.transforms.seeds import sample_generator
from mpfnl.transforms.torchio_transforms import Rotation90
from mpfnl.volumes.grid import Box
from mpfnl.window import AIR_HU, BODY_HU

LOCATION_DRAWS = 8
TARGET = "target"

Index3: TypeAlias = NDArray[np.int_]


class RawSample(TypedDict):
    """A sample that is degraded later, on the device; see `mpfnl.data.batch_degradation`."""

    raw: Tensor
    """Clean HU `(P + 1, x, y, z)`, int16: the model's phases, then the target, with the margin."""
    degradation: str
    """JSON: `spacing_mm`, and `records`, those of the model's phases."""
    rotation: str
    """The rotations of the augmentation, a JSON list of axis and turns."""
    study_id: str


@dataclass(frozen=True)
class PatchSampling:
    """Size, number and position of patches.

    Args:
        size: Edge of a patch in voxels.
        per_study: Patches per study and epoch.
        margin: Voxels around a patch that are degraded with it and cut off; beyond them the nearest voxel
            continues. The border is then degraded nearly like the inside; see `Preset.margin`.
        min_body: Fraction of a patch above -300 HU; of eight random positions the first that reaches it is
            taken, else the one with the largest fraction.
    """

    size: int = 32
    per_study: int = 16
    margin: int = 4
    min_body: float = 0.3

    @property
    def edge(self) -> int:
        """Edge of a patch with its margin."""
        return self.size + 2 * self.margin

    def trim(self, hu: Tensor) -> Tensor:
        """Cuts the margin off the last three axes."""
        inside = slice(self.margin, self.margin + self.size)
        return hu[..., inside, inside, inside]


_STRUCTURES = 1  # beside the seed of the augmentation


@dataclass(frozen=True)
class Patch:
    """A random position in a study.

    Args:
        study: Study of the voxels.
        corner: First voxel, margin included.
        size: Voxels along each axis; less than the patch's edge in a small volume.
        target: Voxels of the last phase of the study.
        epoch: Epoch of the draw.
        draw: Number of the sample within study and epoch.
        augmentation_seed: Seed of the augmentation.
        insertion: Structures to insert before the degradation; None for none.
    """

    study: StudyScans
    corner: Index3
    size: Index3
    target: NDArray[np.int16]
    epoch: int
    draw: int
    augmentation_seed: int
    insertion: StructureInsertion | None = None

    def read(self, phases: int) -> NDArray[np.int16]:
        """The patch of all phases of the study, with the structures that are inserted."""
        box = _box(self.corner, self.size)
        others = [self.study.read(place, box) for place in range(phases - 1)]
        return self._with_structures(np.stack([*others, self.target]))

    def read_slab(self, phases: int) -> NDArray[np.int16]:
        """The whole cross-sections of all phases that the patch lies in, with the same structures."""
        slab = self.study.grid.slab(int(self.corner[2]), int(self.corner[2] + self.size[2]))
        hu = np.stack([self.study.read(place, slab) for place in range(phases)])
        x, y, _ = _box(self.corner, self.size)
        hu[:, x, y] = self._with_structures(hu[:, x, y])
        return hu

    def _with_structures(self, hu: NDArray[np.int16]) -> NDArray[np.int16]:
        if self.insertion is None:
            return hu
        rng = np.random.default_rng([self.augmentation_seed, _STRUCTURES])
        return self.insertion(hu, self.study.grid.spacing, rng)

    def within_slab(self, slab: Tensor) -> Tensor:
        """The patch in the last three axes of its slab."""
        x, y, _ = _box(self.corner, self.size)
        return slab[..., x, y, :]


def _box(corner: Index3, size: Index3) -> Box:
    x, y, z = (slice(int(a), int(a + n)) for a, n in zip(corner, size, strict=True))
    return x, y, z


SampleT = TypeVar("SampleT", covariant=True)


class PatchMaker(Protocol[SampleT]):
    """Makes a sample of a patch."""

    def __call__(self, patch: Patch, settings: SampleSettings, sampling: PatchSampling) -> SampleT:
        """The sample."""


@dataclass
class PatchDataset(Dataset[SampleT], Generic[SampleT]):
    """Random patches; the sample is a function of (seed, epoch, study, draw) alone.

    Args:
        studies: Studies of the voxels.
        settings: Degradation and window.
        make: Makes the sample: `DegradedPatches` or `RawPatches`.
        sampling: Size, number and margin of the patches.
        insertion: Structures to insert into the clean patches; None for none.
    """

    studies: Studies
    settings: SampleSettings
    make: PatchMaker[SampleT]
    sampling: PatchSampling = field(default_factory=PatchSampling)
    insertion: StructureInsertion | None = None

    def __len__(self) -> int:
        return len(self.studies) * self.sampling.per_study

    def __getitem__(self, key: int | tuple[int, int]) -> SampleT:
        """The sample of (epoch, index), or of an index in epoch 0."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(index)
        place, draw = divmod(index, self.sampling.per_study)
        study = self.studies[place]
        rng = sample_generator(self.settings.seed, epoch, study.study_id, draw)
        corner, target = self._place(study, rng)
        size = np.array(target.shape)
        seed = int(rng.integers(2**31))
        patch = Patch(study, corner, size, target, epoch, draw, seed, self.insertion)
        return self.make(patch, self.settings, self.sampling)

    def _place(self, study: StudyScans, rng: np.random.Generator) -> tuple[Index3, NDArray[np.int16]]:
        """Position of a patch and the target there, which decides about it."""
        shape = study.grid.shape
        size = np.minimum(self.sampling.edge, shape)
        corners = (rng.random((LOCATION_DRAWS, 3)) * (np.array(shape) - size + 1)).astype(int)
        last = len(self.settings.loaded) - 1
        best, place, most = np.empty((0, 0, 0), np.int16), corners[0], -1.0
        for corner in corners:
            target = study.read(last, _box(corner, size))
            body = float((target > BODY_HU).mean())
            if body > most:
                best, place, most = target, corner, body
            if body >= self.sampling.min_body:
                break
        return place, best


@dataclass(frozen=True)
class DegradedPatches:
    """Degrades, augments and windows patches in the process that reads them.

    Args:
        augmentation: TorchIO transform of the patch, the same for all phases and the target.
    """

    augmentation: tio.Transform | None = None

    def __call__(self, patch: Patch, settings: SampleSettings, sampling: PatchSampling) -> Sample:
        """The sample in [0, 1]: `(P, x, y, z)` and `(1, x, y, z)`; phases on the settings's coarser grid."""
        images = (_of_slab if settings.whole_slices else _of_patch)(patch, settings, sampling.edge)
        images = self._augment({name: sampling.trim(hu) for name, hu in images.items()}, patch)
        phases = _stacked([block_mean(images[str(phase)], settings.scale) for phase in settings.phases])
        return {
            "phases": normalize_covered(phases, settings.window, settings.phases.index(settings.target)),
            "target": settings.window.normalize(_stacked([images[TARGET]])),
            "study_id": patch.study.study_id,
        }

    def _augment(self, images: dict[str, Tensor], patch: Patch) -> dict[str, Tensor]:
        if self.augmentation is None:
            return images
        subject = _augmented(self.augmentation, images, patch)
        return {name: image.data[0] for name, image in subject.get_images_dict().items()}


@dataclass(frozen=True)
class RawPatches:
    """Leaves patches clean, with the records of degradation and rotation for the device.

    Args:
        rotation: A `RandomRotation90` or `Rotation90`.
    """

    rotation: tio.Transform | None = None

    def __call__(self, patch: Patch, settings: SampleSettings, sampling: PatchSampling) -> RawSample:
        """The clean patch with its margin, and the records of its degradation and rotation."""
        hu = patch.read(len(settings.loaded))
        places = [settings.loaded.index(phase) for phase in (*settings.phases, settings.target)]
        parameters = settings.parameters(patch.study.study_id, patch.epoch, patch.draw)
        return {
            "raw": torch.from_numpy(_padded(hu[places], sampling.edge, AIR_HU)),
            "degradation": json.dumps(
                {
                    "spacing_mm": patch.study.grid.spacing,
                    "records": [parameters[phase].to_json() for phase in settings.phases],
                }
            ),
            "rotation": json.dumps(self._turns(patch)),
            "study_id": patch.study.study_id,
        }

    def _turns(self, patch: Patch) -> list[tuple[int, int]]:
        """The rotations drawn for the patch, read from the history of a rotated voxel."""
        if self.rotation is None:
            return []
        done = _augmented(self.rotation, {TARGET: torch.zeros(1, 1, 1)}, patch).history
        return [(turn.axis, turn.turns) for turn in done if isinstance(turn, Rotation90)]


def _of_patch(patch: Patch, settings: SampleSettings, edge: int) -> dict[str, Tensor]:
    """The degraded phases and the target of a patch with its margin, in HU."""
    return _degraded(_padded(patch.read(len(settings.loaded)), edge, AIR_HU), patch, settings)


def _of_slab(patch: Patch, settings: SampleSettings, edge: int) -> dict[str, Tensor]:
    """The same, degraded as part of whole cross-sections."""
    slabs = _degraded(patch.read_slab(len(settings.loaded)), patch, settings)
    inside = {name: patch.within_slab(slab).numpy()[None] for name, slab in slabs.items()}
    return {name: torch.from_numpy(_padded(hu, edge, AIR_HU)[0]) for name, hu in inside.items()}


def _degraded(hu: NDArray[np.int16], patch: Patch, settings: SampleSettings) -> dict[str, Tensor]:
    parameters = settings.parameters(patch.study.study_id, patch.epoch, patch.draw)
    degraded = settings.degrade(list(hu), patch.study.grid.spacing, parameters)
    return {str(phase): each for phase, each in degraded.items()} | {TARGET: to_float32(hu[-1])}


def _augmented(augmentation: tio.Transform, images: dict[str, Tensor], patch: Patch) -> tio.Subject:
    affine = patch.study.grid.affine
    subject = tio.Subject(
        {name: tio.ScalarImage(tensor=hu.unsqueeze(0), affine=affine) for name, hu in images.items()}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(patch.augmentation_seed)
        augmented = augmentation(subject)
    assert isinstance(augmented, tio.Subject)
    return augmented


def _stacked(scans: Sequence[Tensor]) -> Tensor:
    """Scans stacked, in NumPy's memory; see `to_float32`."""
    return torch.from_numpy(np.stack([scan.numpy() for scan in scans]))


Voxel = TypeVar("Voxel", np.int16, np.float32)


def _padded(boxes: NDArray[Voxel], edge: int, value: float) -> NDArray[Voxel]:
    """The boxes, `(phase, x, y, z)`, each in the middle of a cube."""
    shape = boxes.shape[1:]
    if shape == (edge, edge, edge):
        return boxes
    cubes = np.full((len(boxes), edge, edge, edge), value, boxes.dtype)
    x, y, z = (slice((edge - side) // 2, (edge - side) // 2 + side) for side in shape)
    cubes[:, x, y, z] = boxes
    return cubes
