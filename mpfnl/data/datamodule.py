"""Lightning data module over the manifest of a cohort."""

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

from mpfnl.data.batch_degradation import BatchDegradation, RawBatch
from mpfnl.data.degradation import SampleSettings
from mpfnl.data.manifest import Manifest, Split, Study, holds_phantoms, read_manifest
from mpfnl.data.patches import DegradedPatches, PatchDataset, PatchMaker, PatchSampling, RawPatches
from mpfnl.data.sampling import EpochLoader, EpochSampler, OrderedSampler, ProcessShard
from mpfnl.data.studies import StudyCache, StudyReader
from mpfnl.data.volume_dataset import VolumeDataset
from mpfnl.errors import OptionError
from mpfnl.phases import Phase, PhaseName, resolve_phases
from mpfnl.samples import TrainingData
from mpfnl.transforms import RandomRotation90
from mpfnl.transforms.degradation import SECOND_ORDER_V1, Preset, find_preset
from mpfnl.transforms.insertion import StructureInsertion
from mpfnl.transforms.seeds import Sharing
from mpfnl.transforms.torchio_transforms import Rotation90
from mpfnl.window import ABDOMEN, UNCOVERED_HU, Window

LEAST_MARGIN = 4
"""Margin around a patch in voxels; with it most presets, and no degradation, see the same patches."""


class DegradeOn(StrEnum):
    """Device that degrades patches."""

    WORKERS = "workers"
    """The CPU, in the worker processes that read the patches."""
    DEVICE = "device"
    """The model's device, all patches of a batch at once: for a GPU that waits for its workers."""


class MultiphaseDataModule(LightningDataModule):
    """Data module over a cohort: degraded phases and the clean target phase.

    Training and validation use patches, testing and prediction whole volumes. A sample depends on
    (seed, epoch, study, draw) alone and is the same for any number of workers. Validation patches and test
    volumes are the same in every epoch.

    Training patches are mixed from 16 studies at a time, so that a loader does not need the whole cohort.

    Patches of studies stored as uncompressed int16 NIfTI (.nii, slope 1; the format that `mpfnl prepare`
    writes) are read from disk on demand, without a volume in memory. Other studies are read whole and cached
    (int16, all phases) within `cache_gb`, which the workers of training and validation share; while reading
    one, a worker holds that study and one more phase. Samples are the same either way. Each worker also holds
    two batches ahead. Testing and prediction read whole studies.

    Several processes (Lightning's DDP and others) each take a part of every split; the trainer need not
    replace a sampler. One step of all processes uses the samples of one process with an accordingly larger
    batch, and every sample is validated, tested and predicted exactly once. See docs/several_machines.md.

    Studies whose preparation failed (column `quality`) are excluded from every split, with one notice. A
    study may lack any input phase but the target: the phase then covers nothing, and is NaN in a batch.

    Args:
        manifest: CSV of the cohort; see `mpfnl.data.manifest`.
        phases: Input phases of the model, or their number (1: the target; 3: the paper's; 4: all).
        target: Phase that the model restores.
        batch_size: Patches per training batch and process.
        patch_size: Edge of an input patch in voxels; the target patch is `scale` times as long.
        patches_per_study: Training patches per study and epoch.
        val_patches_per_study: Validation patches per study.
        degradation: Degradation preset or its name (see docs/degradation.md); None leaves the phases clean.
            Presets with `whole_slices`, such as `low-dose` and `metal`, need whole cross-sections, which are
            read and degraded for each patch: much slower.
        sharing: Properties that the degraded phases of a study share: `nothing`, independent draws; or
            `acquisition`, one scanner and protocol, with independent noise and motion.
        degrade_on: Device that degrades patches: `workers`, or `device` for all patches of a batch at once on
            the GPU. Samples agree up to rounding. Whole volumes are always degraded by workers.
        augmentation: TorchIO transform of training patches; the default is the paper's random rotations by
            90, 180 or 270 degrees in the axial plane; None applies none.
        insertion: Small lesions and vessels to insert into the clean training patches before the degradation
            (`StructureInsertion`); None inserts none.
        workers: Number of worker processes for training, and the same number for validation; None: one for
            each CPU core available to this process but one, at most 8.
        cache_gb: Memory in GB for voxels of studies that are not read in parts, in each process.
        seed: Seed of all random draws.
        include_failed: Whether to use the studies whose preparation failed.
        scale: Ratio of the phases' voxel spacing to the target's, as in the model. Scans of the manifest lie
            on the fine grid; the phases are degraded there and averaged over blocks of voxels.
        window: HU window that is mapped to [0, 1], as in the model.

    Raises:
        InputError: The manifest cannot be used, a required split has no studies or fewer samples than there
            are processes, or patches cannot be degraded on the device.

    >>> from tempfile import TemporaryDirectory
    >>> from mpfnl.data import Study, write_manifest
    >>> from mpfnl.phases import PHASES
    >>> with TemporaryDirectory() as folder:
    ...     scans = {phase: Path(folder) / f"{phase}.nii" for phase in PHASES}
    ...     for path in scans.values():
    ...         path.touch()
    ...     manifest = write_manifest(Path(folder) / "cohort.csv", [Study("s1", "p1", Split.TRAIN, scans)])
    ...     data = MultiphaseDataModule(manifest.path, phases=["arterial", "portal_venous"], workers=0)
    >>> [str(phase) for phase in data.phases], str(data.target)
    (['arterial', 'portal_venous'], 'portal_venous')
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
        insertion: StructureInsertion | None = None,
        workers: int | None = None,
        cache_gb: float = 4.0,
        seed: int = 0,
        include_failed: bool = False,
        scale: int = 1,
        window: Window = ABDOMEN,
    ) -> None:
        super().__init__()
        self.manifest_path = Path(manifest)
        preset = find_preset(degradation) if isinstance(degradation, str) else degradation
        self.settings = SampleSettings(
            resolve_phases(phases, target),
            Phase(target),
            preset,
            window=window,
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
        self.insertion = insertion
        self.degrade_on = DegradeOn(degrade_on)
        if self.degrade_on is DegradeOn.DEVICE:
            _check_device_degradation(self.settings, augmentation)
        self.workers = min(8, max(0, _usable_cores() - 1)) if workers is None else workers
        self.cache_bytes = int(cache_gb * 1e9)
        self.include_failed = include_failed
        self._manifest: Manifest | None = None

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The input phases of a batch, in stacking order."""
        return self.settings.phases

    @property
    def target(self) -> Phase:
        """The phase that the model restores."""
        return self.settings.target

    @property
    def scale(self) -> int:
        """Ratio of the phases' voxel spacing to the target's."""
        return self.settings.scale

    @property
    def window(self) -> Window:
        """The HU window that is mapped to [0, 1]."""
        return self.settings.window

    @property
    def training_data(self) -> TrainingData:
        """Facts about the training set, stored with the weights."""
        studies = self._studies(Split.TRAIN)
        preset = self.settings.degradation
        return TrainingData(
            studies=len(studies),
            phantoms=holds_phantoms(self.manifest, studies),
            degradation="none" if preset is None else preset.name,
            window=self.settings.window,
            patch_size=self.train_sampling.size // self.scale,
            batch_size=self.batch_size,
            val_patches=len(self._studies(Split.VAL)) * self.val_sampling.per_study,
            seed=self.settings.seed,
        )

    @property
    def manifest(self) -> Manifest:
        """The cohort, read at first use, including the studies that are left out."""
        if self._manifest is None:
            self._manifest = read_manifest(self.manifest_path)
            if not self.include_failed and self._manifest.failed:
                rank_zero_info(self._manifest.left_out())
        return self._manifest

    def setup(self, stage: str | None = None) -> None:
        """Reads the manifest, checks the splits of a stage, and tells how many studies lack which phase.

        Raises:
            InputError: The manifest cannot be used.
            NotFoundError: A split has no study, a study lacks the target, or all training studies lack a
                phase.
        """
        needed = {
            "fit": [Split.TRAIN, Split.VAL],
            "validate": [Split.VAL],
            "test": [Split.TEST],
            "predict": [Split.TEST],
        }
        splits = {split: self._studies(split) for split in needed.get(stage or "", [])}
        for study in splits.get(Split.TRAIN, ())[:1]:
            for phase in self.phases:
                if all(phase not in other.phases for other in splits[Split.TRAIN]):
                    study.file(phase)
        studies = [study for split in splits.values() for study in split]
        for study in studies:
            study.file(self.target)
        lacking = {phase: sum(phase not in study.phases for study in studies) for phase in self.phases}
        counts = [f"{count} without the {phase.label} phase" for phase, count in lacking.items() if count]
        if counts:
            rank_zero_info(f"{self.manifest_path.name}: of {len(studies)} studies, {' and '.join(counts)}")

    def subjects(self, split: Split | str) -> tio.SubjectsDataset:
        """A split as TorchIO subjects, loaded on access: clean phases and masks by name.

        An input phase that a study lacks is -2048 HU throughout, as in voxels that a phase does not cover.
        """
        studies = self._studies(Split(split))
        return tio.SubjectsDataset([_subject(study, self.settings.loaded) for study in studies])

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled training patches, drawn anew in each epoch."""
        dataset = self._patches(Split.TRAIN, self.train_sampling, self.augmentation)
        shard = self._shard(len(dataset), "training patches an epoch")
        studies, per_study = len(dataset.studies), dataset.sampling.per_study
        sampler = EpochSampler(studies, per_study, self.settings.seed, shard=shard, done=self._resumed_at)
        return EpochLoader(
            dataset,
            sampler=sampler,
            drop_last=len(sampler) >= self.batch_size,
            **self._options(self.batch_size),
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation patches, the same in every epoch."""
        dataset = self._patches(Split.VAL, self.val_sampling, None)
        shard = self._shard(len(dataset), "validation patches")
        options = self._options(shard.batch_size(len(dataset), self.batch_size))
        return DataLoader(dataset, sampler=OrderedSampler(len(dataset), shard), **options)

    def test_dataloader(self) -> DataLoader[Any]:
        """Whole test volumes, one a batch."""
        dataset = VolumeDataset(self._cache(Split.TEST), self.settings)
        shard = self._shard(len(dataset), "test studies")
        return DataLoader(dataset, sampler=OrderedSampler(len(dataset), shard), **self._options(batch_size=1))

    def predict_dataloader(self) -> DataLoader[Any]:
        """The loader of `test_dataloader`."""
        return self.test_dataloader()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Degrades a batch of raw patches on its device; other batches pass unchanged."""
        if not isinstance(batch, dict) or "raw" not in batch:
            return batch
        degraded = BatchDegradation(self.settings, self.train_sampling)(cast(RawBatch, batch))
        if self.trainer is None:
            return degraded
        # The trainer converts batches before this hook; the new tensors need the same (precision=bf16-true).
        return self.trainer.precision_plugin.convert_input(degraded)

    def _patches(
        self, split: Split, sampling: PatchSampling, augmentation: tio.Transform | None
    ) -> PatchDataset[Any]:
        on_device = self.degrade_on is DegradeOn.DEVICE
        make: PatchMaker[Any] = RawPatches(augmentation) if on_device else DegradedPatches(augmentation)
        insertion = self.insertion if split is Split.TRAIN else None
        return PatchDataset(self._reader(split), self.settings, make, sampling, insertion)

    def _studies(self, split: Split) -> tuple[Study, ...]:
        return self.manifest.needed(split, self.include_failed)

    def _reader(self, split: Split) -> StudyReader:
        return StudyReader(self._cache(split))

    def _cache(self, split: Split) -> StudyCache:
        loaders = 1 if split is Split.TEST else 2  # training and validation live side by side
        budget = self.cache_bytes // (loaders * max(1, self.workers))
        return StudyCache(self._studies(split), self.settings.loaded, budget)

    def _shard(self, samples: int, name: str) -> ProcessShard:
        """The part of the samples that this process takes."""
        group = None if self.trainer is None else self.trainer.distributed_sampler_kwargs
        shard = ProcessShard() if group is None else ProcessShard(group["rank"], group["num_replicas"])
        shard.check(samples, name)
        return shard

    def _resumed_at(self) -> int:
        """Number of patches of the running epoch that were used before training was resumed."""
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


def _check_device_degradation(settings: SampleSettings, augmentation: tio.Transform | None) -> None:
    if settings.degradation is not None and settings.whole_slices:
        raise OptionError(
            f"{settings.degradation.name} needs whole cross-sections; the device degrades patches only; "
            "use degrade_on=workers"
        )
    if not isinstance(augmentation, (RandomRotation90, Rotation90, type(None))):
        raise OptionError(
            f"degrade_on=device does not support {type(augmentation).__name__}; use RandomRotation90, None,"
            " or degrade_on=workers"
        )


def _read_uncovered(path: Path) -> tuple[torch.Tensor, Any]:
    """A scan without a covered voxel on the grid of this one, as TorchIO reads images."""
    image = tio.ScalarImage(path)
    return torch.full(image.shape, UNCOVERED_HU, dtype=torch.int16), image.affine


def _usable_cores() -> int:
    """Number of CPU cores available to this process (under SLURM, those allocated)."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def _subject(study: Study, phases: Sequence[Phase]) -> tio.Subject:
    scans = {str(phase): tio.ScalarImage(study.file(phase)) for phase in study.phases}
    for phase in phases:
        if phase not in study.phases:
            scans[str(phase)] = tio.ScalarImage(study.file(phases[-1]), reader=_read_uncovered)
    masks = {name: tio.LabelMap(path) for name, path in study.masks.items()}
    return tio.Subject(**scans, **masks, study_id=study.study_id, patient_id=study.patient_id)
