"""The whole study on phantoms: a cohort, two trained models, Tables I and II, figures and the report."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rich.console import Console

from mpfnl.data.manifest import SplitCounts, read_manifest
from mpfnl.errors import InputError, MissingExtraError
from mpfnl.evaluation import evaluate
from mpfnl.evaluation.scoring import EvaluateOptions
from mpfnl.experiments.ablation import SMALL_TILING
from mpfnl.experiments.budget import Machine, TrainingBudget
from mpfnl.experiments.candidates import Candidate, fine_tuned, pfnl3d, rcan3d
from mpfnl.experiments.training import TrainingRun, TrainingSet
from mpfnl.models import PFNL3D, RCAN3D
from mpfnl.models.loading import load_model
from mpfnl.models.sources import find_weights
from mpfnl.models.weights import read_config
from mpfnl.phantoms import write_cohort
from mpfnl.phantoms.config import THREE_MM
from mpfnl.segmentation import Segmenter, TotalSegmentatorSegmenter
from mpfnl.transforms.degradation import Preset, find_preset

NOTICE = (
    "Phantoms, not patients: simulated anatomy, simulated degradation, small networks trained for minutes. "
    "These figures show that the software works; they say nothing about patients."
)

SHIPPED = {RCAN3D: "rcan3d-phantoms", PFNL3D: "pfnl3d-phantoms"}
"""The weights that the demonstration can fine-tune."""


@dataclass(frozen=True)
class DemoSettings:
    """How large the demonstration is; both models are trained on the same number of patches.

    Args:
        patients: Phantoms for training, validation and testing.
        misalignment: How far their phases lie apart, as a share of what was measured between real phases
            before registration; an assumption of what registration leaves.
        epochs: Of training.
        patches_per_study: Training patches a study and epoch.
        batch_size: Patches a step.
        patch_size: Edge of a patch in voxels.
        degradation: What the phases are degraded with, in training and in the evaluation. The paper's hurts
            voxels of 3 mm too little for a segmentation to show it (docs/demo.md).
        fine_tune: Begin with the weights that ship, and train them for half as many epochs.
    """

    patients: SplitCounts = field(default_factory=lambda: SplitCounts(train=14, val=2, test=8))
    misalignment: float = 0.2
    epochs: int = 8
    patches_per_study: int = 10
    batch_size: int = 2
    patch_size: int = 32
    degradation: Preset = field(default_factory=lambda: find_preset("severe"))
    fine_tune: bool = False

    def budget(self, seed: int) -> TrainingBudget:
        """What each training may spend."""
        epochs = max(1, self.epochs // 2) if self.fine_tune else self.epochs
        return TrainingBudget(epochs, self.patches_per_study, self.batch_size, self.patch_size, seed)


def run_demo(folder: Path, seed: int = 0, settings: DemoSettings | None = None) -> None:
    """Makes phantoms, trains both models, and evaluates them on the held-out phantoms.

    The pancreas is segmented by TotalSegmentator on the phantom weights, where it is installed. Started again
    in the same folder it goes on from what is finished.

    Args:
        folder: For everything that it makes: `cohort/`, `training/`, `weights/`, `evaluation/`.
        seed: Of the phantoms, the degradation and the training.
        settings: How large it is.

    Raises:
        InputError: If the weights that it starts from were trained on phantoms of this seed.
    """
    settings = settings or DemoSettings()
    candidates = _candidates(seed, settings)
    console = Console()
    folder.mkdir(parents=True, exist_ok=True)
    console.rule("1 of 3: phantoms")
    config = replace(THREE_MM, misalignment=settings.misalignment)
    manifest = write_cohort(
        folder / "cohort", len(settings.patients.assignment()), seed, config, settings.patients, progress=True
    )
    console.rule("2 of 3: training")
    data = TrainingSet(read_manifest(manifest), settings.degradation)
    # Samples are made in this process, which is what two cores want.
    machine = Machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"), workers=0)
    runs = [TrainingRun(each, data, folder, settings.budget(seed), machine) for each in candidates]
    if not all(run.finished for run in runs):
        # An evaluation that is there is of other weights.
        shutil.rmtree(folder / "evaluation", ignore_errors=True)
    weights = {run.candidate.name: run.train() for run in runs}
    console.rule("3 of 3: the held-out phantoms")
    loaded = {name: load_model(path) for name, path in weights.items()}
    options = EvaluateOptions(degradation=settings.degradation, seed=seed, tiling=SMALL_TILING, progress=True)
    with _segmenter(console) as segmenter:
        evaluate(data.manifest, loaded, folder / "evaluation", options, segmenter=segmenter, notice=NOTICE)


def _segmenter(console: Console) -> AbstractContextManager[Segmenter | None]:
    """TotalSegmentator on the phantom weights; none where it is not installed, which is said."""
    try:
        return TotalSegmentatorSegmenter.with_phantom_weights()
    except MissingExtraError as error:
        console.print(f"Table II is left out: {error}", soft_wrap=True, markup=False)
        return nullcontext()


def _candidates(seed: int, settings: DemoSettings) -> list[Candidate]:
    """Both models, from nothing or from the shipped weights."""
    if not settings.fine_tune:
        return [rcan3d("RCAN3D", phases=1, small=True), pfnl3d("PFNL3D", phases=3, small=True)]
    for weights in SHIPPED.values():
        record = read_config(find_weights(weights)).training
        if record is not None and seed in record.seeds:
            raise InputError(
                f"--seed {seed}: {weights} were trained on phantoms of this seed, which would be held out "
                "here; give another, or leave --fine-tune out"
            )
    return [fine_tuned(model, weights) for model, weights in SHIPPED.items()]
