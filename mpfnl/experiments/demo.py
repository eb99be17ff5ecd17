"""Demonstration on phantoms: a cohort, two trained models, Tables I and II, figures and a report."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rich.console import Console

from mpfnl.data.manifest import SplitCounts, read_manifest
from mpfnl.errors import ConflictError, MissingExtraError
from mpfnl.evaluation import evaluate
from mpfnl.evaluation.scoring import EvaluateOptions
from mpfnl.experiments.budget import SMALL_BUDGET, SMALL_TILING, Machine, TrainingBudget
from mpfnl.experiments.candidates import Candidate, fine_tuned, new_candidate
from mpfnl.experiments.training import TrainingRun, TrainingSet
from mpfnl.models.loading import load_model
from mpfnl.models.sources import find_weights
from mpfnl.models.weights import read_config
from mpfnl.phantoms import write_cohort
from mpfnl.phantoms.config import THREE_MM
from mpfnl.phases import PHASES
from mpfnl.segmentation import Segmenter, TotalSegmentatorSegmenter
from mpfnl.transforms.degradation import Preset, find_preset

NOTICE = (
    "Phantoms, not patients: simulated anatomy, simulated degradation, small networks trained for minutes. "
    "These figures show that the software works; they say nothing about patients."
)

SHIPPED = {"RCAN3D": "rcan3d-phantoms", "PFNL3D": "pfnl3d-phantoms"}
"""Shipped weights that the demonstration can fine-tune."""


@dataclass(frozen=True)
class DemoSettings:
    """Settings of the demonstration; both models are trained on the same number of patches.

    Args:
        patients: Phantoms for training, validation and testing.
        misalignment: Misalignment of the phases as a share of that measured on patients before registration;
            an assumption of the misalignment after registration.
        budget: Training budget of each model; its seed is replaced by that of the demonstration.
        degradation: Degradation of the phases, in training and in the evaluation. The paper's preset degrades
            voxels of 3 mm too little to affect a segmentation (docs/demo.md).
        fine_tune: Whether to fine-tune the shipped weights, for half as many epochs.
    """

    patients: SplitCounts = field(default_factory=lambda: SplitCounts(train=14, val=2, test=8))
    misalignment: float = 0.2
    budget: TrainingBudget = SMALL_BUDGET
    degradation: Preset = field(default_factory=lambda: find_preset("severe"))
    fine_tune: bool = False

    def seeded_budget(self, seed: int) -> TrainingBudget:
        """Training budget of each model, with the seed of the demonstration."""
        epochs = max(1, self.budget.epochs // 2) if self.fine_tune else self.budget.epochs
        return replace(self.budget, epochs=epochs, seed=seed)


def run_demo(folder: Path, seed: int = 0, settings: DemoSettings | None = None) -> None:
    """Makes phantoms, trains both models, and evaluates them on the held-out phantoms.

    The pancreas is segmented by TotalSegmentator on the phantom weights, where it is installed. A repeated
    run in the same folder continues after the last finished step.

    Args:
        folder: Output folder of `cohort/`, `training/`, `weights/` and `evaluation/`.
        seed: Seed of the phantoms, the degradation and the training.
        settings: Settings; the defaults if None.

    Raises:
        ConflictError: The weights to fine-tune were trained on phantoms of this seed.
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
    # Loading samples in this process suits two cores.
    machine = Machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"), workers=0)
    runs = [TrainingRun(each, data, folder, settings.seeded_budget(seed), machine) for each in candidates]
    if not all(run.finished for run in runs):
        # An existing evaluation is of other weights.
        shutil.rmtree(folder / "evaluation", ignore_errors=True)
    weights = {run.candidate.name: run.train() for run in runs}
    console.rule("3 of 3: the held-out phantoms")
    loaded = {name: load_model(path) for name, path in weights.items()}
    options = EvaluateOptions(degradation=settings.degradation, seed=seed, tiling=SMALL_TILING, progress=True)
    with _segmenter(console) as segmenter:
        evaluate(data.manifest, loaded, folder / "evaluation", options, segmenter=segmenter, notice=NOTICE)


def _segmenter(console: Console) -> AbstractContextManager[Segmenter | None]:
    """TotalSegmentator on the phantom weights; none, with a message, where it is not installed."""
    try:
        return TotalSegmentatorSegmenter.with_phantom_weights()
    except MissingExtraError as error:
        console.print(f"Table II is left out: {error}", soft_wrap=True, markup=False)
        return nullcontext()


def _candidates(seed: int, settings: DemoSettings) -> list[Candidate]:
    """Both models, with new networks or the shipped weights."""
    if not settings.fine_tune:
        return [new_candidate("RCAN3D", phases=1, small=True), new_candidate("PFNL3D", PHASES, small=True)]
    for weights in SHIPPED.values():
        record = read_config(find_weights(weights)).training
        if record is not None and seed in record.seeds:
            raise ConflictError(
                f"--seed {seed}: {weights} were trained on phantoms of this seed, so none could be held out; "
                "give another seed, or leave --fine-tune out"
            )
    return [fine_tuned(name, weights) for name, weights in SHIPPED.items()]
