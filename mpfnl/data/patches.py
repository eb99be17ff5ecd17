"""Datasets: degraded patches for training, whole degraded volumes for testing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
import torch
import torchio as tio
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from mpfnl.data.seeds import sample_generator
from mpfnl.data.studies import LoadedStudy, PatchSource, PatchSources, StudyCache, as_int16
from mpfnl.phases import ABDOMEN, AIR_HU, BODY_HU, Phase, Window
from mpfnl.transforms.degradation import Preset, apply_parameters, sample_parameters

LOCATION_DRAWS = 8
MIXED_STUDIES = 16
TARGET = "target"


class Sample(TypedDict):
    """One element of a batch; see `mpfnl.phases.StudyBatch`."""

    phases: Tensor
    target: Tensor
    study_id: str


@dataclass(frozen=True)
class Recipe:
    """How a sample is made from a study.

    Args:
        phases: The phases that the model takes, in stacking order.
        target: The phase that it restores.
        degradation: What the phases are degraded with, each by its own draw; None leaves them.
        window: The HU window mapped to [0, 1].
        seed: Of all random draws.
    """

    phases: tuple[Phase, ...]
    target: Phase
    degradation: Preset | None
    window: Window = ABDOMEN
    seed: int = 0

    @property
    def loaded(self) -> tuple[Phase, ...]:
        """The phases to read: those of the model, and the target last."""
        return (*(phase for phase in self.phases if phase is not self.target), self.target)

    def degrade(
        self, hu: NDArray[np.int16], spacing: Sequence[float], rng: np.random.Generator
    ) -> dict[Phase, Tensor]:
        """Degrades each phase by a draw of its own.

        Args:
            hu: `(phase, x, y, z)` in the order of `loaded`.
            spacing: Voxel spacing in mm.
            rng: Moves on by a fixed number of draws a phase.

        Returns:
            HU `(x, y, z)`, float32, of each phase of the model.
        """
        seeds = rng.integers(2**31, size=len(Phase))
        degraded = {}
        for phase in self.phases:
            clean = _as_float(hu[self.loaded.index(phase)])
            if self.degradation is not None:
                # By the phase's place among all phases: a model of one phase sees what a model of three sees.
                parameters = sample_parameters(self.degradation, int(seeds[list(Phase).index(phase)]))
                clean = apply_parameters(clean, spacing, parameters)
            degraded[phase] = clean
        return degraded


@dataclass(frozen=True)
class PatchSampling:
    """Where patches come from.

    Args:
        size: Edge of a patch in voxels.
        per_study: Patches a study and epoch.
        margin: Voxels around a patch that are degraded with it and cut off, so that its border is degraded
            like its inside.
        min_body: Share of a patch that should be brighter than -300 HU; of eight places drawn the first
            that has it is taken, else the one that has most.
    """

    size: int = 32
    per_study: int = 16
    margin: int = 4
    min_body: float = 0.3


@dataclass
class PatchDataset(Dataset[Sample]):
    """Random degraded patches; the sample is a function of (seed, epoch, study, draw) alone.

    Args:
        studies: Where the voxels come from.
        recipe: How a patch is degraded and windowed.
        sampling: Where patches come from.
        augmentation: A TorchIO transform of the patch, alike for all phases and the target.
    """

    studies: PatchSources
    recipe: Recipe
    sampling: PatchSampling = field(default_factory=PatchSampling)
    augmentation: tio.Transform | None = None

    def __len__(self) -> int:
        return len(self.studies) * self.sampling.per_study

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """The sample of (epoch, index), or of an index in epoch 0."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(index)
        place, draw = divmod(index, self.sampling.per_study)
        study = self.studies[place]
        rng = sample_generator(self.recipe.seed, epoch, study.study_id, draw)
        patch = self._crop(study, rng)
        degraded = self.recipe.degrade(patch, study.spacing, rng)
        clean = _as_float(patch[self.recipe.loaded.index(self.recipe.target)])
        images = {str(phase): self._trim(hu) for phase, hu in degraded.items()}
        images = self._augment(images | {TARGET: self._trim(clean)}, study.affine, int(rng.integers(2**31)))
        return {
            "phases": self._windowed([images[str(phase)] for phase in self.recipe.phases]),
            "target": self._windowed([images[TARGET]]),
            "study_id": study.study_id,
        }

    def _crop(self, study: PatchSource, rng: np.random.Generator) -> NDArray[np.int16]:
        """A patch with its margin, `(phase, x, y, z)`; the last phase chooses where, the others follow."""
        edge = self.sampling.size + 2 * self.sampling.margin
        size = np.minimum(edge, study.shape)
        corners = (rng.random((LOCATION_DRAWS, 3)) * (np.array(study.shape) - size + 1)).astype(int)
        *others, last = range(len(self.recipe.loaded))
        best, place, most = np.empty((0, 0, 0), np.int16), corners[0], -1.0
        for corner in corners:
            reference = study.box(last, corner, corner + size)
            body = float((reference > BODY_HU).mean())
            if body > most:
                best, place, most = reference, corner, body
            if body >= self.sampling.min_body:
                break
        boxes = [*(study.box(phase, place, place + size) for phase in others), best]
        return _padded(boxes, edge)

    def _trim(self, hu: Tensor) -> Tensor:
        margin = self.sampling.margin
        inside = slice(margin, margin + self.sampling.size)
        return hu[inside, inside, inside]

    def _windowed(self, scans: Sequence[Tensor]) -> Tensor:
        """Scans stacked and mapped to [0, 1], in NumPy's memory; see `_as_float`."""
        return torch.from_numpy(self.recipe.window.normalize(np.stack([scan.numpy() for scan in scans])))

    def _augment(
        self, images: dict[str, Tensor], affine: NDArray[np.float64], seed: int
    ) -> dict[str, Tensor]:
        if self.augmentation is None:
            return images
        subject = tio.Subject(
            {name: tio.ScalarImage(tensor=hu.unsqueeze(0), affine=affine) for name, hu in images.items()}
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            augmented = self.augmentation(subject)
        return {name: image.data[0] for name, image in augmented.get_images_dict().items()}


@dataclass
class VolumeDataset(Dataset[Sample]):
    """Whole degraded volumes; always the same for a seed.

    Args:
        cache: Loads the studies.
        recipe: How a volume is degraded and windowed.
    """

    cache: StudyCache
    recipe: Recipe

    def __len__(self) -> int:
        return len(self.cache.studies)

    def __getitem__(self, index: int) -> Sample:
        """The volume of a study: `(P, x, y, z)` and `(1, x, y, z)`."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        study = self.cache[index]
        degraded = degrade_study(study, self.recipe)
        target = torch.from_numpy(study.hu[self.recipe.loaded.index(self.recipe.target)]).float()
        window = self.recipe.window
        return {
            "phases": torch.stack(
                [window.normalize(torch.from_numpy(degraded[phase]).float()) for phase in self.recipe.phases]
            ),
            "target": window.normalize(target).unsqueeze(0),
            "study_id": study.study_id,
        }


def degrade_study(study: LoadedStudy, recipe: Recipe) -> dict[Phase, NDArray[np.int16]]:
    """Degrades the whole phases of a study, the same for a seed wherever it is done.

    Args:
        study: The phases of `recipe.loaded`.
        recipe: How.

    Returns:
        HU `(x, y, z)`, whole numbers as a scan on disk has, of each phase of the model.
    """
    rng = sample_generator(recipe.seed, 0, study.study_id, 0)
    degraded = recipe.degrade(study.hu, study.spacing, rng)
    return {phase: as_int16(hu.numpy()) for phase, hu in degraded.items()}


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index), so that samples know their epoch in whatever worker they are made.

    Studies are drawn in a new order each epoch and taken in groups; within a group their patches are mixed.
    So a loader needs the studies of one group in memory at a time, not the cohort.

    Lightning calls `set_epoch`; without Lightning call it before each epoch.

    Args:
        studies: How many.
        per_study: Patches a study and epoch.
        seed: Of the order.
        group: Studies whose patches are mixed.
    """

    def __init__(self, studies: int, per_study: int, seed: int, group: int = MIXED_STUDIES) -> None:
        self.studies = studies
        self.per_study = per_study
        self.seed = seed
        self.group = group
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.studies * self.per_study

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.studies)
        for start in range(0, self.studies, self.group):
            members = order[start : start + self.group]
            indices = (members[:, None] * self.per_study + np.arange(self.per_study)).ravel()
            yield from ((self.epoch, int(index)) for index in rng.permutation(indices))


def _as_float(hu: NDArray[np.int16]) -> Tensor:
    """HU as float32 in memory that NumPy allocates.

    What PyTorch allocates is aligned, and glibc before 2.38 seldom uses such memory again while other blocks
    lie between: workers that make batches of large patches would grow from epoch to epoch.
    """
    return torch.from_numpy(hu.astype(np.float32))


def _padded(boxes: Sequence[NDArray[np.int16]], edge: int) -> NDArray[np.int16]:
    """The boxes stacked, each in the middle of a cube of air."""
    patch = np.full((len(boxes), edge, edge, edge), AIR_HU, np.int16)
    x, y, z = (slice((edge - side) // 2, (edge - side) // 2 + side) for side in boxes[0].shape)
    for place, box in enumerate(boxes):
        patch[place, x, y, z] = box
    return patch
