"""Evaluates the shipped weights on unseen phantoms: python benchmarks/shipped_on_phantoms.py FOLDER.

The phantoms are like those of the training (voxels of 3 mm, imperfect registration), of another seed,
degraded by `severe`. The methods are RCAN3D, PFNL3D with all phases, and PFNL3D without some;
TotalSegmentator segments the pancreas with phantom weights. The script prints Tables I and II, each method
against RCAN3D in pairs, and the fraction of the gap in DSC between degraded and clean scans that each closes.
`--four WEIGHTS` evaluates the four candidates of `train_phantom_models.py` instead, and prints the 2 x 2
table of architecture and phases. An interrupted run continues. `--csv` writes the cases. Nothing is reported
if the weights' tests fail. These are phantoms: the numbers say nothing about patients.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from common import provenance, tests_pass, write_csv
from train_phantom_models import SECOND_SEED, SEED, cohort

from mpfnl.data.manifest import SplitCounts
from mpfnl.evaluation import evaluate
from mpfnl.evaluation.cases import Case, values_by_method
from mpfnl.evaluation.folder import BASELINE, REFERENCE
from mpfnl.evaluation.methods import EvaluatedModel, PhaseSubset
from mpfnl.evaluation.scoring import EvaluateOptions
from mpfnl.evaluation.tables.metrics import p_text, signed
from mpfnl.evaluation.tables.printing import table_console
from mpfnl.experiments.ablation import SQUARE
from mpfnl.experiments.effects import effects_table, measure_effects
from mpfnl.inference.tiling import Tiling
from mpfnl.metrics.statistics import paired_wilcoxon
from mpfnl.models import PFNL3D
from mpfnl.models.loading import load_model
from mpfnl.phases import Phase
from mpfnl.segmentation import TotalSegmentatorSegmenter
from mpfnl.segmentation.phantom_weights import TRAINING_SEED
from mpfnl.transforms.degradation import find_preset

TESTS = ("tests/models/test_pretrained.py", "tests/segmentation/test_phantom_weights.py")
TRAINED_ON = (SEED, SECOND_SEED, TRAINING_SEED)
COMPARED = "RCAN3D"
WITHHELD = {
    "without-arterial": (Phase.NONCONTRAST, Phase.PORTAL_VENOUS),
    "without-noncontrast": (Phase.ARTERIAL, Phase.PORTAL_VENOUS),
    "portal-venous-alone": (Phase.PORTAL_VENOUS,),
}
FOUR = dict(zip((*SQUARE.rcan3d, *SQUARE.pfnl3d), ("RCAN3D", "RCAN3D-3", "PFNL3D-1", "PFNL3D"), strict=True))
"""The ablation's names of the candidates."""


def shipped() -> dict[str, EvaluatedModel]:
    """RCAN3D, and PFNL3D with all phases and with fewer."""
    pfnl3d = PFNL3D.from_pretrained("pfnl3d-phantoms")
    withheld = {name: PhaseSubset(pfnl3d, phases) for name, phases in WITHHELD.items()}
    return {COMPARED: load_model("rcan3d-phantoms"), "PFNL3D": pfnl3d, **withheld}


def paired_lines(cases: Sequence[Case], names: Sequence[str]) -> list[str]:
    """Each method's mean difference to RCAN3D, in how many phantoms it is better, and Wilcoxon's p."""
    lines = [f"against {COMPARED}, paired; p of the two-sided Wilcoxon test, not corrected"]
    for column, title, scale, digits in (
        ("psnr_db", "dB", 1, 2),
        ("ssim", "SSIM", 1, 3),
        ("dsc", "DSC", 100, 2),
    ):
        values = {name: scale * np.array(each) for name, each in values_by_method(cases, column).items()}
        for name in names:
            change = values[name] - values[COMPARED]
            change = change[np.isfinite(change)]
            p = paired_wilcoxon(change, np.zeros_like(change)).p
            better = f"better in {np.count_nonzero(change > 0)} of {change.size}"
            lines.append(f"{name:20} {title:4} {signed(change.mean(), digits):>7}  {better}, p {p_text(p)}")
    return lines


def gap_lines(cases: Sequence[Case], names: Sequence[str]) -> list[str]:
    """The share of the gap in mean DSC between degraded and clean scans that each method closes."""
    means = {name: np.mean(each) for name, each in values_by_method(cases, "dsc").items()}
    low, high = means[BASELINE], means[REFERENCE]
    lines = [f"gap in DSC: {100 * low:.2f} degraded, {100 * high:.2f} clean"]
    return lines + [f"{name:20} closes {100 * (means[name] - low) / (high - low):.0f} %" for name in names]


def main() -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the phantoms and the evaluations")
    parser.add_argument("--seed", type=int, default=1707, help="of the phantoms; not one trained on")
    parser.add_argument("--patients", type=int, default=16)
    parser.add_argument("--four", type=Path, metavar="WEIGHTS", help="folder of the four candidates' weights")
    parser.add_argument("--csv", type=Path, help="where to keep the cases")
    parser.add_argument("--skip-tests", action="store_true", help="for machines without pytest")
    chosen = parser.parse_args()
    if chosen.seed in TRAINED_ON:
        parser.error(f"weights were trained on phantoms of the seed {chosen.seed}; choose another")
    if not chosen.skip_tests and not tests_pass(TESTS):
        print("the weights' tests fail: nothing is reported", file=sys.stderr)
        return 1
    models: Mapping[str, EvaluatedModel] = shipped()
    if chosen.four is not None:
        models = {name: load_model(chosen.four / candidate) for name, candidate in FOUR.items()}
    output = chosen.folder / ("shipped" if chosen.four is None else "four")
    patients = SplitCounts(train=0, val=0, test=chosen.patients)
    manifest = cohort(chosen.folder / "cohort", chosen.seed, patients)
    options = EvaluateOptions(degradation=find_preset("severe"), tiling=Tiling(32, 8), progress=True)
    with TotalSegmentatorSegmenter.with_phantom_weights(["pancreas"], fast=True) as segmenter:
        cases = evaluate(manifest, models, output, options, segmenter=segmenter).cases
    if chosen.four is None:
        print(*paired_lines(cases, [name for name in models if name != COMPARED]), sep="\n")
    else:
        table_console(models).print(
            effects_table(cases, measure_effects(cases, SQUARE), SQUARE, segmenter.notice)
        )
    print(*gap_lines(cases, list(models)), sep="\n")
    if chosen.csv is not None:
        write_csv(chosen.csv, [case.cells for case in cases], provenance())
    return 0


if __name__ == "__main__":
    sys.exit(main())
