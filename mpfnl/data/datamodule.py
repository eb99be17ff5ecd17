"""The Lightning data module over a cohort's manifest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torchio as tio
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader

from mpfnl.data.epoch_loader import EpochLoader
from mpfnl.data.manifest import Manifest, Split, Study, read_manifest
from mpfnl.data.on_device import DeviceDegradation, RawBatch
from mpfnl.data.patches import DegradedPatches, PatchDataset, PatchMaker, PatchSampling, RawPatches
from mpfnl.data.recipe import Recipe
from mpfnl.data.recognise import holds_phantoms
from mpfnl.data.sampler import EpochSampler, InOrder, Share
from mpfnl.data.studies import StudyCache, StudyReader
from mpfnl.data.volume_dataset import VolumeDataset
from mpfnl.errors import InputError
from mpfnl.phases import Phase, PhaseName, resolve_phases
from mpfnl.samples import TrainingData
from mpfnl.transforms import RandomRotation90, Rotation90, Sharing
from mpfnl.transforms.degradation import SECOND_ORDER_V1, Preset, find_preset

LEAST_MARGIN = 4
"""Voxels around every patch, so that most presets, and none, see the same patches."""


class DegradeOn(StrEnum):
    """Where patches are degraded."""

    WORKERS = "workers"
    """On the CPU, by the processes that read them."""
    DEVICE = "device"
    """All patches of a batch at once, where the model is: for a GPU that waits for its workers."""


class MultiphaseDataModule(LightningDataModule):
    """Degraded phases and the clean target of a cohort.

    Training and validation see patches, testing and prediction whole volumes. A sample depends on
    (seed, epoch, study, draw) alone: it is the same for any number of workers. Validation patches and test
    volumes are the same in every epoch.

    Training patches come from 16 studies at a time, mixed, so that a loader need not keep the cohort.

    Patches of a study whose phases are uncompressed int16 (.nii, slope 1; so `mpfnl prepare` writes them) are
    read from disk as they are needed, and no volume is in memory. A study with another file is read whole and
    kept (int16, all phases); such studies take at most `cache_gb`, shared by the workers of training and
    validation, and while a worker reads one it holds that study and a phase beside. Samples are the same
    either way. Each worker also holds two batches ahead. Testing and prediction read whole studies.

    Several processes (Lightning's DDP and others) share each split; the trainer need not replace a sampler.
    Together they take in a step what one process with a batch so many times as large would take, and they
    validate, test and predict every sample exactly once. See docs/several_machines.md.

    Studies whose preparation failed (column `quality`) are left out of every split, and one line says so.

    Args:
        manifest: The cohort's CSV; see `mpfnl.data.manifest`.
        phases: The phases that the model takes, or how many (1: the target; 3: the paper's; 4: all).
        target: The phase that the model restores.
        batch_size: Patches a training batch, of each process.
        patch_size: Edge of a patch in voxels, as the model gets it; the target's is `scale` times as long.
        patches_per_study: Training patches a study and epoch.
        val_patches_per_study: Validation patches a study.
        degradation: A preset or its name (`paper`, `mild`, `severe`, `low-dose`, `thick-slices`, `motion`,
            `metal`; see docs/degradation.md); None leaves the phases as they are. `low-dose` and `metal` see
            whole cross-sections, which are read and degraded for each patch: much slower.
        sharing: What the degraded phases of a study have in common: `nothing`, each draws for itself; or
            `acquisition`, one scanner and protocol, but noise and motion of their own.
        degrade_on: `workers`, or `device`: all patches of a batch at once, after they were moved to the GPU.
            The samples are the same but for rounding. Whole volumes are always degraded by workers.
        augmentation: A TorchIO transform of training patches; the paper's random rotations by 90, 180 or 270
            degrees in the axial plane if left out, None for none.
        workers: Helpers that make samples, for training and as many for validation; None: one for each
            CPU core that this process may use but one, at most 8.
        cache_gb: Gigabytes of voxels kept in memory, of studies that are not read in parts; in each process.
        seed: Of everything random.
        include_failed: Also use the studies whose preparation failed.
        scale: How many times finer the target's grid is than that of the phases, as the model has it. The
            manifest's scans lie on the fine one; the phases are degraded there, and voxels averaged.

    Raises:
        InputError: If the manifest cannot be used, a split that is needed has no studies or fewer samples
            than there are processes, or patches cannot be degraded on the device.
    """

    def __init__(
        self,
        manifest: str | Path,
        phases: int | Sequence[PhaseName] = 3,
        target: PhaseName = "portal_venous",
        batch_size: int = 8,
        patch_size: int = 32,
        patches_per_study: int = 16,
        val_patches_per_study: int = 4,
        degradation: str | Preset | None = SECOND_ORDER_V1.name,
        sharing: Sharing | Literal["nothing", "acquisition"] = Sharing.NOTHING,
        degrade_on: DegradeOn | Literal["workers", "device"] = DegradeOn.WORKERS,
        augmentation: tio.Transform | None = RandomRotation90(),  # noqa: B008  # it holds no state
        workers: int | None = None,
        cache_gb: float = 4.0,
        seed: int = 0,
        include_failed: bool = False,
        scale: int = 1,
    ) -> None:
        super().__init__()
        self.manifest_path = Path(manifest)
        preset = find_preset(degradation) if isinstance(degradation, str) else degradation
        self.recipe = Recipe(
            resolve_phases(phases, target),
            Phase(target),
            preset,
            seed=seed,
            sharing=Sharing(sharing),
            scale=scale,
        )
        margin = max(LEAST_MARGIN, 0 if preset is None else preset.margin)
        edge = scale * patch_size
        self.train_sampling = PatchSampling(edge, patches_per_study, margin)
        self.val_sampling = PatchSampling(edge, val_patches_per_study, margin)
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.degrade_on = DegradeOn(degrade_on)
        if self.degrade_on is DegradeOn.DEVICE:
            _check_device_degradation(self.recipe, augmentation)
        self.workers = min(8, max(0, _usable_cores() - 1)) if workers is None else workers
        self.cache_bytes = int(cache_gb * 1e9)
        self.include_failed = include_failed
        self._manifest: Manifest | None = None

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases that are stacked in a batch."""
        return self.recipe.phases

    @property
    def target(self) -> Phase:
        """The phase that the model restores."""
        return self.recipe.target

    @property
    def scale(self) -> int:
        """How many times finer the target's grid is than that of the phases."""
        return self.recipe.scale

    @property
    def training_data(self) -> TrainingData:
        """What a model is trained on; it travels with the weights."""
        studies = self._studies(Split.TRAIN)
        preset = self.recipe.degradation
        return TrainingData(
            studies=len(studies),
            phantoms=holds_phantoms(self.manifest, studies),
            degradation="none" if preset is None else preset.name,
            window=self.recipe.window,
            patch_size=self.train_sampling.size // self.scale,
            batch_size=self.batch_size,
            val_patches=len(self._studies(Split.VAL)) * self.val_sampling.per_study,
            seed=self.recipe.seed,
        )

    @property
    def manifest(self) -> Manifest:
        """The cohort, read when it is first needed, with the studies that are left out."""
        if self._manifest is None:
            self._manifest = read_manifest(self.manifest_path)
            if not self.include_failed and self._manifest.failed:
                rank_zero_info(self._manifest.left_out())
        return self._manifest

    def setup(self, stage: str | None = None) -> None:
        """Reads the manifest and checks that the stage's splits have studies, and those the phases.

        Raises:
            InputError: The manifest cannot be used, a split has no study, or a study lacks a phase.
        """
        needed = {"fit": [Split.TRAIN, Split.VAL], "validate": [Split.VAL], "test": [Split.TEST]}
        for split in needed.get(stage or "", []):
            for study in self._studies(split):
                for phase in self.recipe.loaded:
                    study.file(phase)

    def subjects(self, split: Split | str) -> tio.SubjectsDataset:
        """A split as TorchIO subjects, loaded when used: the clean phases by name, and the masks it has."""
        studies = self._studies(Split(split))
        return tio.SubjectsDataset([_subject(study) for study in studies])

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled training patches; another draw each epoch."""
        dataset = self._patches(Split.TRAIN, self.train_sampling, self.augmentation)
        share = self._share(len(dataset), "training patches an epoch")
        studies, per_study = len(dataset.studies), dataset.sampling.per_study
        sampler = EpochSampler(studies, per_study, self.recipe.seed, share=share, done=self._trained_on)
        return EpochLoader(
            dataset,
            sampler=sampler,
            drop_last=len(sampler) >= self.batch_size,
            **self._options(self.batch_size),
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation patches, the same in every epoch."""
        dataset = self._patches(Split.VAL, self.val_sampling, None)
        share = self._share(len(dataset), "validation patches")
        options = self._options(share.batch_size(len(dataset), self.batch_size))
        return DataLoader(dataset, sampler=InOrder(len(dataset), share), **options)

    def test_dataloader(self) -> DataLoader[Any]:
        """Whole test volumes, one a batch."""
        dataset = VolumeDataset(self._cache(Split.TEST), self.recipe)
        share = self._share(len(dataset), "test studies")
        return DataLoader(dataset, sampler=InOrder(len(dataset), share), **self._options(batch_size=1))

    def predict_dataloader(self) -> DataLoader[Any]:
        """The same as for testing."""
        return self.test_dataloader()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Degrades a batch of raw patches on the device that it is on by now; leaves other batches."""
        if not isinstance(batch, dict) or "raw" not in batch:
            return batch
        made = DeviceDegradation(self.recipe, self.train_sampling)(cast(RawBatch, batch))
        # The trainer has converted its batch by now; what is made here must follow (precision=bf16-true).
        return made if self.trainer is None else self.trainer.precision_plugin.convert_input(made)

    def _patches(
        self, split: Split, sampling: PatchSampling, augmentation: tio.Transform | None
    ) -> PatchDataset[Any]:
        on_device = self.degrade_on is DegradeOn.DEVICE
        make: PatchMaker[Any] = RawPatches(augmentation) if on_device else DegradedPatches(augmentation)
        return PatchDataset(self._reader(split), self.recipe, make, sampling)

    def _studies(self, split: Split) -> tuple[Study, ...]:
        return self.manifest.needed(split, self.include_failed)

    def _reader(self, split: Split) -> StudyReader:
        return StudyReader(self._cache(split))

    def _cache(self, split: Split) -> StudyCache:
        loaders = 1 if split is Split.TEST else 2  # training and validation live side by side
        budget = self.cache_bytes // (loaders * max(1, self.workers))
        return StudyCache(self._studies(split), self.recipe.loaded, budget)

    def _share(self, samples: int, name: str) -> Share:
        """What this process takes of the samples, checked."""
        several = None if self.trainer is None else self.trainer.distributed_sampler_kwargs
        share = Share() if several is None else Share(several["rank"], several["num_replicas"])
        share.check(samples, name)
        return share

    def _trained_on(self) -> int:
        """How many patches of the running epoch this process was trained on before it was resumed."""
        if self.trainer is None or not self.trainer.training:
            return 0
        return int(self.trainer.fit_loop.epoch_loop.batch_progress.current.ready) * self.batch_size

    def _options(self, batch_size: int) -> dict[str, Any]:
        return {
            "batch_size": batch_size,
            "num_workers": self.workers,
            "persistent_workers": self.workers > 0,
            "pin_memory": torch.cuda.is_available(),
        }


def _check_device_degradation(recipe: Recipe, augmentation: tio.Transform | None) -> None:
    if recipe.degradation is not None and recipe.whole_slices:
        raise InputError(
            f"{recipe.degradation.name} must see whole cross-sections, which patches on the device are not; "
            "take degrade_on=workers"
        )
    if not isinstance(augmentation, (RandomRotation90, Rotation90, type(None))):
        raise InputError(
            f"degrade_on=device cannot do {type(augmentation).__name__} on the device; take "
            "RandomRotation90, None, or degrade_on=workers"
        )


def _usable_cores() -> int:
    """Cores that this process may run on, where the system tells (as under SLURM)."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def _subject(study: Study) -> tio.Subject:
    scans = {str(phase): tio.ScalarImage(study.file(phase)) for phase in study.phases}
    masks = {name: tio.LabelMap(path) for name, path in study.masks.items()}
    return tio.Subject(**scans, **masks, study_id=study.study_id, patient_id=study.patient_id)
