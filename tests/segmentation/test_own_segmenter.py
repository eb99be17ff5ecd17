"""A segmenter of one's own, written outside of the package: two names, then everything else takes it."""

from __future__ import annotations

import json
from pathlib import Path

from mpfnl.data.manifest import read_manifest
from mpfnl.evaluation.overlap import OverlapOptions, Truth
from mpfnl.evaluation.scoring import EvaluateOptions, score_cohort
from mpfnl.segmentation import Segmenter
from mpfnl.segmentation.segmenter import StructureMasks
from mpfnl.transforms.degradation import find_preset
from mpfnl.volumes import Volume


class Threshold(Segmenter):
    structures = ("pancreas",)

    def segment(self, scan: Volume) -> StructureMasks:
        return {"pancreas": scan.data > 60}


def test_it_takes_part_in_an_evaluation(cohort: Path, tmp_path: Path) -> None:
    options = EvaluateOptions(
        degradation=find_preset("mild"), overlap=OverlapOptions(truth=Truth.REFERENCE_SCAN)
    )
    result = score_cohort(read_manifest(cohort), {}, tmp_path, options, segmenter=Threshold())
    assert {case.method for case in result.cases} >= {"degraded"}
    scored = [case for case in result.cases if case.method == "degraded"]
    assert all(0 < case.dsc <= 1 for case in scored)
    provenance = json.loads((tmp_path / "provenance.json").read_text())
    assert json.dumps(Threshold().describe()) in json.dumps(provenance)
