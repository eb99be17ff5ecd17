"""The ablation: fair to all four, and its effects those of SciPy."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats
from statsmodels.stats.multitest import multipletests

from mpfnl.data.datamodule import MultiphaseDataModule
from mpfnl.data.manifest import Manifest, Split, read_manifest
from mpfnl.errors import ConflictError, InputError
from mpfnl.evaluation.cases import Case, read_cases
from mpfnl.evaluation.overlap import OverlapOptions, Truth
from mpfnl.evaluation.scoring import Evaluation, score_cohort
from mpfnl.experiments import ablation
from mpfnl.experiments.ablation import (
    SMALL_NOTICE,
    AblationSettings,
    candidates,
    caution,
    run_ablation,
)
from mpfnl.experiments.budget import Machine, TrainingBudget
from mpfnl.experiments.effects import (
    COLUMNS,
    Effect,
    Factor,
    Square,
    effects_table,
    measure_effects,
    write_effects,
)
from mpfnl.inference.tiling import Tiling
from mpfnl.models.loading import load_model
from mpfnl.phases import Phase
from mpfnl.segmentation import Segmenter
from mpfnl.segmentation.segmenter import StructureMasks
from mpfnl.transforms.degradation import find_preset
from mpfnl.volumes import Volume

NAMES = ("RCAN3D-1", "PFNL3D-1", "RCAN3D-3", "PFNL3D-3")
SETTINGS = AblationSettings(
    TrainingBudget(epochs=1, patches_per_study=1, batch_size=2, patch_size=16),
    Machine(torch.device("cpu"), workers=0),
    small=True,
    tiling=Tiling(48, 8),
    overlap=OverlapOptions(truth=Truth.REFERENCE_SCAN),
    degradation=find_preset("mild"),
)


class Threshold(Segmenter):
    """Calls whatever is brighter than 60 HU the pancreas."""

    structures = ("pancreas",)
    notice = "A threshold, not a segmenter."

    def describe(self) -> dict[str, Any]:
        return {"threshold_hu": 60}

    def segment(self, scan: Volume) -> StructureMasks:
        return {"pancreas": scan.data > 60}


@pytest.fixture(scope="module")
def folder(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation") / "out"
    run_ablation(read_manifest(cohort), folder, SETTINGS, Threshold())
    return folder


def records(folder: Path) -> dict[str, dict[str, Any]]:
    return {name: json.loads((folder / "training" / f"{name}.json").read_text()) for name in NAMES}


def test_all_four_train_save_load_and_are_evaluated(folder: Path) -> None:
    for name in NAMES:
        model = load_model(folder / "weights" / name)
        assert type(model).__name__ == name.partition("-")[0]
        assert len(model.phases) == int(name[-1])
        assert model.target is Phase.PORTAL_VENOUS
    cases = read_cases(folder / "evaluation" / "cases.csv")
    for name in NAMES:
        own = [case for case in cases if case.method == name]
        assert [case.study_id for case in own] == ["test0", "test1"]
        assert all(math.isfinite(value) for case in own for value in (case.psnr_db, case.ssim, case.dsc))
    report = (folder / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert all(name in report for name in NAMES)
    assert "trained once each" in report
    assert SMALL_NOTICE in report


def test_they_are_trained_and_evaluated_on_the_same_degradation(folder: Path) -> None:
    name = SETTINGS.degradation.name
    assert {record["settings"]["degradation"] for record in records(folder).values()} == {name}
    provenance = json.loads((folder / "evaluation" / "provenance.json").read_text())
    assert provenance["settings"]["degradation"]["name"] == name


def test_the_budget_is_the_same_for_all(folder: Path) -> None:
    found = records(folder)
    own = ("model", "config", "rate")
    shared = [{k: v for k, v in each["settings"].items() if k not in own} for each in found.values()]
    assert all(each == shared[0] for each in shared)
    assert {each["steps"] for each in found.values()} == {2}
    for architecture in ("RCAN3D", "PFNL3D"):  # only the phases differ within an architecture
        one, three = (found[f"{architecture}-{phases}"]["settings"] for phases in (1, 3))
        assert one["rate"] == three["rate"]
        assert one["config"] | {"phases": three["config"]["phases"]} == three["config"]
    for name, each in found.items():
        network = load_model(folder / "weights" / name).network
        assert each["parameters"] == sum(parameter.numel() for parameter in network.parameters())
        assert each["seconds_per_step"] > 0


def test_one_phase_and_three_see_the_same_portal_venous_patches(cohort: Path) -> None:
    loaders = [
        MultiphaseDataModule(
            cohort, phases=phases, batch_size=2, patch_size=16, patches_per_study=1, workers=0, seed=3
        ).train_dataloader()
        for phases in (1, 3)
    ]
    for one, three in zip(*loaders, strict=True):
        assert one["study_id"] == three["study_id"]
        assert torch.equal(one["target"], three["target"])
        assert torch.equal(one["phases"][:, 0], three["phases"][:, 2])


def test_started_again_it_trains_nothing_and_writes_the_same(
    cohort: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_figures(
        *arguments: Any, notice: str, segmenter: Threshold
    ) -> Evaluation:  # the evaluation's own tests draw them again
        return score_cohort(*arguments, segmenter=segmenter)

    monkeypatch.setattr(ablation, "evaluate", without_figures)
    table = folder / "ablation.csv"
    before = table.read_bytes()
    run_ablation(read_manifest(cohort), folder, SETTINGS, Threshold())
    printed = capsys.readouterr().out
    assert printed.count("not trained again") == 4
    assert "Architecture and number of phases" in printed
    assert Threshold.notice in printed
    assert table.read_bytes() == before


def test_the_table_is_made_of_the_evaluations_cases(folder: Path) -> None:
    with (folder / "ablation.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["metric"] for row in rows] == [
        name for name in ("psnr_db", "ssim", "dsc", "nsd") for _ in range(5)
    ]
    cases = read_cases(folder / "evaluation" / "cases.csv")
    for row in rows:
        found = {(case.study_id, case.method): getattr(case, row["metric"]) for case in cases}
        terms = row["formula"].replace("(", "").replace(")", "").split(" − ")
        signs = (1, -1, -1, 1)
        totals = [
            sum(sign * found[study, name] for sign, name in zip(signs, terms, strict=False))
            for study in ("test0", "test1")
        ]
        assert float(row["mean"]) == pytest.approx(np.mean(totals), abs=1e-9)
        assert int(row["n"]) == 2
        assert row["notice"] == (Threshold.notice if row["metric"] in ("dsc", "nsd") else "")


def test_another_budget_and_a_cohort_without_tests_are_refused(
    cohort: Path, folder: Path, tmp_path: Path
) -> None:
    other = replace(SETTINGS, budget=replace(SETTINGS.budget, epochs=2))
    with pytest.raises(ConflictError, match=r"RCAN3D-1 .*epochs"):
        run_ablation(read_manifest(cohort), folder, other, Threshold())
    manifest = read_manifest(cohort)
    untested = Manifest(cohort, tuple(study for study in manifest if study.split is not Split.TEST))
    with pytest.raises(InputError, match="split test"):
        run_ablation(untested, tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out").exists()


def test_small_networks_are_called_so() -> None:
    assert SMALL_NOTICE in caution(SETTINGS)
    assert SMALL_NOTICE not in caution(AblationSettings())


def test_the_candidates_are_a_square() -> None:
    made = {candidate.name: candidate.model(steps=10) for candidate in candidates()}
    assert set(made) == set(Square().rcan3d) | set(Square().pfnl3d)
    assert {(model.name, len(model.phases)) for model in made.values()} == {
        (architecture, phases) for architecture in ("RCAN3D", "PFNL3D") for phases in (1, 3)
    }


# The effects, on made-up numbers.

Scores = dict[str, NDArray[np.float64]]


def cases_of(psnr: Scores, dsc: Scores | None = None) -> list[Case]:
    studies = range(len(next(iter(psnr.values()))))
    overlap = dsc or {name: np.full(len(studies), math.nan) for name in psnr}
    return [
        Case(f"s{study}", f"p{study}", name, psnr_db=psnr[name][study], dsc=overlap[name][study])
        for study in studies
        for name in psnr
    ]


def made_up(studies: int = 24, seed: int = 0) -> Scores:
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(28, 2, studies)
    gains = {"RCAN3D-1": 0.0, "PFNL3D-1": 0.1, "RCAN3D-3": 1.5, "PFNL3D-3": 2.2}
    return {name: difficulty + gain + rng.normal(0, 0.4, studies) for name, gain in gains.items()}


def by_factor(effects: list[Effect], column: str = "psnr_db") -> dict[Factor, Effect]:
    return {effect.factor: effect for effect in effects if effect.metric.column == column}


def expected(scores: Scores) -> dict[Factor, NDArray[np.float64]]:
    r1, p1, r3, p3 = (scores[name] for name in NAMES)
    return {
        Factor.ARCHITECTURE_ONE: p1 - r1,
        Factor.ARCHITECTURE_THREE: p3 - r3,
        Factor.PHASES_RCAN3D: r3 - r1,
        Factor.PHASES_PFNL3D: p3 - p1,
        Factor.INTERACTION: (p3 - r3) - (p1 - r1),
    }


def test_effects_are_those_of_scipy_and_statsmodels() -> None:
    scores = made_up()
    effects = by_factor(measure_effects(cases_of(scores)))
    wanted = expected(scores)
    assert list(effects) == list(Factor)
    p_values = [stats.wilcoxon(wanted[factor]).pvalue for factor in Factor]
    corrected = multipletests(p_values, method="holm")[1]
    for factor, p, p_holm in zip(Factor, p_values, corrected, strict=True):
        effect, change = effects[factor], wanted[factor]
        assert effect.test is not None
        assert effect.summary.interval is not None
        assert effect.summary.mean == pytest.approx(change.mean(), abs=1e-9)
        assert effect.summary.sd == pytest.approx(change.std(ddof=1))
        assert effect.test.p == pytest.approx(p)
        assert effect.p_holm == pytest.approx(p_holm)
        interval = stats.bootstrap(
            (change,), np.mean, n_resamples=9999, method="BCa", random_state=np.random.default_rng(5)
        ).confidence_interval
        assert effect.summary.interval.low == pytest.approx(interval.low, abs=0.02)
        assert effect.summary.interval.high == pytest.approx(interval.high, abs=0.02)
    # What was put in comes out: phases 1.5 and 2.1 dB, architecture 0.1 and 0.7, interaction 0.6.
    built_in = (0.1, 0.7, 1.5, 2.1, 0.6)
    assert [effects[factor].summary.mean for factor in Factor] == pytest.approx(built_in, abs=0.4)


scores_strategy = st.integers(2, 6).flatmap(
    lambda studies: st.fixed_dictionaries(
        {
            name: st.lists(
                st.floats(-50, 50).map(lambda value: round(value, 3)), min_size=studies, max_size=studies
            ).map(np.array)
            for name in NAMES
        }
    )
)


@settings(deadline=None, max_examples=8)
@given(scores=scores_strategy)
def test_swapping_the_architectures_turns_the_signs(scores: Scores) -> None:
    swap = {"RCAN3D-1": "PFNL3D-1", "PFNL3D-1": "RCAN3D-1", "RCAN3D-3": "PFNL3D-3", "PFNL3D-3": "RCAN3D-3"}
    before = by_factor(measure_effects(cases_of(scores)))
    after = by_factor(measure_effects(cases_of({swap[name]: values for name, values in scores.items()})))
    turned = {Factor.ARCHITECTURE_ONE, Factor.ARCHITECTURE_THREE, Factor.INTERACTION}
    moved = {Factor.PHASES_RCAN3D: Factor.PHASES_PFNL3D, Factor.PHASES_PFNL3D: Factor.PHASES_RCAN3D}
    for factor in Factor:
        old, new = before[factor], after[moved.get(factor, factor)]
        sign = -1 if factor in turned else 1
        assert old.test is not None
        assert new.test is not None
        assert new.summary.mean == pytest.approx(sign * old.summary.mean, abs=1e-9)  # type: ignore[operator]
        assert new.test.effect == pytest.approx(sign * old.test.effect)
        assert new.test.p == pytest.approx(old.test.p)
        assert new.p_holm == pytest.approx(old.p_holm)


@settings(deadline=None, max_examples=8)
@given(scores=scores_strategy, shift=st.integers(-20, 20))
def test_what_all_four_share_changes_nothing(scores: Scores, shift: int) -> None:
    """A harder study, or a metric's offset, is in no effect; and the interaction is both differences'."""
    ramp = shift * np.arange(len(scores["RCAN3D-1"]))
    before = by_factor(measure_effects(cases_of(scores)))
    after = by_factor(measure_effects(cases_of({name: values + ramp for name, values in scores.items()})))
    for factor in Factor:
        assert after[factor].summary.mean == pytest.approx(before[factor].summary.mean, abs=1e-9)
        assert after[factor].test == before[factor].test
    means = {factor: effect.summary.mean or 0.0 for factor, effect in before.items()}
    architecture = means[Factor.ARCHITECTURE_THREE] - means[Factor.ARCHITECTURE_ONE]
    phases = means[Factor.PHASES_PFNL3D] - means[Factor.PHASES_RCAN3D]
    assert means[Factor.INTERACTION] == pytest.approx(architecture, abs=1e-9)
    assert means[Factor.INTERACTION] == pytest.approx(phases, abs=1e-9)


def test_equal_differences_are_no_interaction_though_they_round_otherwise() -> None:
    scores = {"RCAN3D-1": 0.1, "PFNL3D-1": 0.3, "RCAN3D-3": 0.4, "PFNL3D-3": 0.6}
    effects = by_factor(
        measure_effects(cases_of({name: np.full(8, value) for name, value in scores.items()}))
    )
    assert (0.6 - 0.4) - (0.3 - 0.1) != 0
    test = effects[Factor.INTERACTION].test
    assert test is not None
    assert (test.n_zero, test.p, test.effect) == (8, 1.0, 0.0)


def test_missing_values_are_counted_where_they_matter_and_shown() -> None:
    scores = made_up(10)
    scores["RCAN3D-3"][4] = math.nan
    cases = cases_of(scores, dsc={name: values / 100 for name, values in scores.items()})
    effects = measure_effects(cases)
    counts = {factor: (e.summary.n, e.summary.n_failed) for factor, e in by_factor(effects).items()}
    whole = {Factor.ARCHITECTURE_ONE, Factor.PHASES_PFNL3D}
    assert counts == {factor: (10, 0) if factor in whole else (9, 1) for factor in Factor}
    assert by_factor(effects, "dsc")[Factor.INTERACTION].summary.n == 9
    assert not by_factor(effects, "ssim")  # no study has one
    printed = rendered(cases, effects)
    assert printed.count("1 failed") == 3 * 2
    assert "DSC (%)" in printed
    assert "SSIM" not in printed


def test_a_metric_of_one_method_alone_has_no_effect_and_no_error(tmp_path: Path) -> None:
    scores = {name: np.full(3, math.nan) for name in NAMES} | {"RCAN3D-1": np.ones(3)}
    cases = cases_of(scores)
    effects = measure_effects(cases)
    assert all(effect.test is None and effect.p_holm is None for effect in effects)
    assert all(effect.summary.n_failed == 3 for effect in effects)
    assert "1.00" in rendered(cases, effects)
    write_effects(tmp_path / "ablation.csv", effects)
    with (tmp_path / "ablation.csv").open() as file:
        (row, *_) = csv.DictReader(file)
    assert tuple(row) == COLUMNS
    assert (row["mean"], row["p"], row["n_failed"]) == ("", "", "3")
    with pytest.raises(ValueError, match="no case of RCAN3D-1"):
        measure_effects([case for case in cases if case.method != "RCAN3D-1"])


def rendered(cases: list[Case], effects: list[Effect]) -> str:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(effects_table(cases, effects, notice="Made up."))
    return capture.get()


def test_the_printed_table_puts_each_effect_where_it_belongs() -> None:
    scores = made_up()
    printed = rendered(cases_of(scores), measure_effects(cases_of(scores)))
    lines = printed.splitlines()
    means = {factor: change.mean() for factor, change in expected(scores).items()}
    rows = {
        "  RCAN3D ": [scores["RCAN3D-1"].mean(), scores["RCAN3D-3"].mean(), means[Factor.PHASES_RCAN3D]],
        "  PFNL3D ": [scores["PFNL3D-1"].mean(), scores["PFNL3D-3"].mean(), means[Factor.PHASES_PFNL3D]],
        "  PFNL3D −": [
            means[Factor.ARCHITECTURE_ONE],
            means[Factor.ARCHITECTURE_THREE],
            means[Factor.INTERACTION],
        ],
    }
    for start, values in rows.items():
        line = next(line for line in lines if line.startswith(start) and ("−" in start) == ("− " in line))
        places = [line.find(f"{value:.2f}".removeprefix("-")) for value in values]
        assert -1 < places[0] < places[1] < places[2], line
    assert "Made up." in printed


def test_the_widest_cells_fit() -> None:
    scores = {name: -values / 10 for name, values in made_up().items()}
    cases = [replace(case, psnr_db=math.nan, ssim=case.psnr_db) for case in cases_of(scores)]
    printed = rendered(cases, measure_effects(cases))
    interval = by_factor(measure_effects(cases), "ssim")[Factor.PHASES_RCAN3D].summary.interval
    assert interval is not None
    assert f"[{interval.low:.4f}, {interval.high:.4f}]".replace("-", "−") in printed
    assert "…" not in printed
