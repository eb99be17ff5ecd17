"""Trains the shipped weights: python benchmarks/train_phantom_models.py FOLDER --models RCAN3D PFNL3D.

`rcan3d-phantoms` and `pfnl3d-phantoms` are small networks, trained on phantoms that the script makes first,
with voxels of 3 mm and the degradation `severe`. All models have the same patches, number of steps and loss.
An interrupted training continues from the last epoch. `--second-cycle` continues from `FOLDER/weights` with
15,360 steps on other phantoms, at half the peak learning rate, in `FOLDER/second-cycle`; its weights of
RCAN3D and PFNL3D are the shipped ones, which `--ship` copies to `mpfnl/models/shipped`. The other two
candidates, of one cycle, are for the comparison of architecture and number of phases. `--keep-logs` copies
the logs to `benchmarks/results`.
"""

from __future__ import annotations

import csv
import shutil
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from common import REPOSITORY, write_csv
from torch import nn

from mpfnl.data.manifest import Manifest, SplitCounts, read_manifest
from mpfnl.experiments.budget import Machine, TrainingBudget
from mpfnl.experiments.candidates import SMALL_CLIP, Candidate, LearningRate
from mpfnl.experiments.training import METRICS, TrainingRun, TrainingSet
from mpfnl.models import PFNL3D, RCAN3D, EnhancementModule, TrainingRecord
from mpfnl.models.loading import load_model
from mpfnl.phantoms import write_cohort
from mpfnl.phantoms.config import THREE_MM
from mpfnl.transforms.degradation import find_preset

SEED = 7107
"""Of the phantoms, the patches and the first weights. Demonstration, tests and evaluations use others."""
SECOND_SEED = 7108
PATIENTS = SplitCounts(train=48, val=4, test=0)
MISALIGNMENT = 0.2  # of what was measured before registration: an assumption of what registration leaves
PHASE_DROPOUT = 0.35
SECOND_PHASE_DROPOUT = 0.25  # to do without phases is learned by then
STEPS, SECOND_STEPS = 17_664, 15_360
RATE = LearningRate(3e-3, warm_up=0.1, betas=(0.95, 0.99), method="muon")
SECOND_RATE = replace(RATE, peak=RATE.peak / 2)


def _pfnl3d(**settings: Any) -> PFNL3D:
    """A small PFNL3D with PyTorch's own first weights, of which Muon (not Adam) makes more than of He's."""
    model = PFNL3D(features=16, blocks=4, nonlocal_factor=4, **settings)
    network = model.network
    for module in chain(network.first.modules(), network.trunk.modules(), network.merge.modules()):
        if isinstance(module, nn.Conv3d):
            module.reset_parameters()
    return model


_rcan3d = partial(RCAN3D, channels=16, groups=2, blocks=2)
CANDIDATES = (
    Candidate("RCAN3D", partial(_rcan3d, phases=1), RATE, SMALL_CLIP),
    Candidate("PFNL3D", partial(_pfnl3d, phases=3, phase_dropout=PHASE_DROPOUT), RATE, SMALL_CLIP),
    Candidate("RCAN3D-3", partial(_rcan3d, phases=3), RATE, SMALL_CLIP),
    Candidate("PFNL3D-1", partial(_pfnl3d, phases=1), RATE, SMALL_CLIP),
)
SECOND_CYCLES: dict[str, tuple[type[EnhancementModule], dict[str, Any]]] = {
    "RCAN3D": (RCAN3D, {}),
    "PFNL3D": (PFNL3D, {"phase_dropout": SECOND_PHASE_DROPOUT}),
}
COLUMNS = ("epoch", "step", "train_loss", "val_loss", "val_psnr", "val_ssim")
SHIPPED = {"RCAN3D": "rcan3d-phantoms", "PFNL3D": "pfnl3d-phantoms"}
DATA = "phantoms of mpfnl with voxels of 3 mm (simulated anatomy and contrast), no patients"
NOTES = (
    "Made to show the software and to begin a fine-tuning with; of use on patients' scans only after a "
    "training on patients' scans. The network is far smaller than the paper's and was trained on a CPU."
)


def second_cycle(name: str, weights: Path) -> Candidate:
    """The candidate that goes on from the weights of a first cycle."""
    model, settings = SECOND_CYCLES[name]
    make = partial(model.from_pretrained, weights, **settings)
    return Candidate(name, make, SECOND_RATE, SMALL_CLIP, weights.as_posix())


def budget(steps: int, seed: int) -> TrainingBudget:
    """Of each training: epochs of 768 steps, at least one."""
    each = TrainingBudget(epochs=1, patches_per_study=16, batch_size=1, patch_size=32, seed=seed)
    return replace(each, epochs=max(1, steps // each.steps_per_epoch(PATIENTS.train)))


def cohort(folder: Path, seed: int, patients: SplitCounts = PATIENTS) -> Manifest:
    """The phantoms, made where they are not there."""
    manifest = folder / "cohort.csv"
    if not manifest.exists():
        config = replace(THREE_MM, misalignment=MISALIGNMENT)
        manifest = write_cohort(folder, len(patients.assignment()), seed, config, patients, progress=True)
    return read_manifest(manifest)


def ship(run: TrainingRun) -> Path:
    """Puts the weights of a finished training into the package, with words on what they are."""
    model = load_model(run.weights)
    model.training_record = replace(model.training_record or TrainingRecord(), data=DATA, notes=NOTES)
    return model.save_pretrained(REPOSITORY / "mpfnl" / "models" / "shipped" / SHIPPED[run.candidate.name])


def keep_log(run: TrainingRun) -> None:
    """Puts the log and the settings of a finished training beside the other results."""
    name, again = run.candidate.name.lower(), run.candidate.start_from is not None
    kept = (
        REPOSITORY / "benchmarks" / "results" / f"{name}-phantoms_{'second_cycle' if again else 'training'}"
    )
    write_whole_log(run.log, kept.with_suffix(".csv"))
    shutil.copyfile(run.record, kept.with_suffix(".json"))


def write_whole_log(log: Path, output: Path) -> None:
    """Joins the metrics of a training that was interrupted; of steps that were done twice the last counts."""
    rows: dict[tuple[int, bool], dict[str, str]] = {}
    parts = sorted(log.glob("metrics.*.csv"), key=lambda path: int(path.name.split(".")[1]))  # 10 after 9
    for part in (*parts, log / METRICS):
        with part.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                rows[int(row["step"]), bool(row.get("val_psnr"))] = row
    write_csv(output, [{name: row.get(name, "") for name in COLUMNS} for _, row in sorted(rows.items())], {})


def main() -> None:
    names = [candidate.name for candidate in CANDIDATES]
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for phantoms, weights and logs")
    parser.add_argument("--models", nargs="+", choices=names, default=names[:2])
    parser.add_argument("--steps", type=int, help=f"{STEPS}, or {SECOND_STEPS} in the second cycle")
    parser.add_argument("--second-cycle", action="store_true", help="go on from FOLDER/weights")
    parser.add_argument("--ship", action="store_true", help="put the weights into the package")
    parser.add_argument("--keep-logs", action="store_true", help="put the logs into benchmarks/results")
    arguments = parser.parse_args()
    folder, seed, steps, candidates = arguments.folder, SEED, STEPS, [*CANDIDATES]
    if arguments.second_cycle:
        candidates = [second_cycle(name, folder / "weights" / name) for name in SECOND_CYCLES]
        folder, seed, steps = folder / "second-cycle", SECOND_SEED, SECOND_STEPS
    if missing := set(arguments.models).difference(candidate.name for candidate in candidates):
        parser.error(f"{', '.join(sorted(missing))}: has no second cycle")
    data = TrainingSet(cohort(folder / "cohort", seed), find_preset("severe"))
    machine = Machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"), workers=0)
    for candidate in candidates:
        if candidate.name in arguments.models:
            run = TrainingRun(candidate, data, folder, budget(arguments.steps or steps, seed), machine)
            print(run.train(), flush=True)
            if arguments.keep_logs:
                keep_log(run)
            if arguments.ship and candidate.name in SHIPPED:
                print(ship(run))


if __name__ == "__main__":
    main()
