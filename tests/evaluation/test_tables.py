"""Rows and tables of an evaluation: against NumPy, SciPy, and the paper's printed numbers."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from mpfnl.errors import FormatError
from mpfnl.evaluation.cases import Case, read_cases, values_by_method, write_cases
from mpfnl.evaluation.tables.metric_table import MetricTable, tabulate, tabulate_overlap, write_summary
from mpfnl.evaluation.tables.metrics import (
    DSC,
    NSD,
    PSNR,
    SEGMENTATION_METRICS,
    SSIM,
    Percent,
    p_text,
    three_significant,
)
from mpfnl.evaluation.tables.printing import (
    cells,
    columns,
    comparison_cells,
    rich_table,
    table_console,
)
from mpfnl.metrics.statistics import ConfidenceInterval, bca_interval, paired_wilcoxon


def made_up_cases(studies: int = 12, seed: int = 0) -> list[Case]:
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(studies):
        base = 23.8 + rng.normal()
        for method, gain in (("degraded", 0.0), ("RCAN3D", 4.0), ("PFNL3D", 5.0)):
            psnr = base + gain + rng.normal(0, 0.3)
            rows.append(Case(f"s{number}", f"p{number}", method, psnr, 0.4 + psnr / 100))
    return rows


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(st.text('ab,"\n ', min_size=1), st.floats(allow_nan=False), st.floats(0, 1)), max_size=6
    )
)
def test_rows_survive_the_file(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, float, float]]
) -> None:
    path = tmp_path_factory.mktemp("cases") / "cases.csv"
    cases = [Case(name, name, "m", psnr, ssim) for name, psnr, ssim in rows]
    write_cases(path, cases)
    assert repr(read_cases(path)) == repr(cases)  # NaN is not equal to itself


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("a,b\n1,2\n")
    with pytest.raises(FormatError, match=r"cases\.csv"):
        read_cases(tmp_path / "cases.csv")


def test_a_missing_row_is_a_failed_case_not_a_dropped_one() -> None:
    cases = [case for case in made_up_cases() if (case.study_id, case.method) != ("s3", "PFNL3D")]
    values = values_by_method(cases, "psnr_db")
    assert math.isnan(values["PFNL3D"][3])
    table = tabulate(cases)[0]
    assert (table.summaries["PFNL3D"].n, table.summaries["PFNL3D"].n_failed) == (11, 1)
    assert table.gains["PFNL3D"].n == 11


def test_the_table_holds_what_numpy_and_scipy_compute(tmp_path: Path) -> None:
    cases = made_up_cases()
    values = values_by_method(cases, "psnr_db")
    tables = tabulate(cases)
    write_summary(tmp_path, tables)
    record = json.loads((tmp_path / "summary.json").read_text())["psnr_db"]
    for method, scores in values.items():
        assert record["methods"][method]["mean"] == pytest.approx(np.mean(scores))
        assert record["methods"][method]["sd"] == pytest.approx(np.std(scores, ddof=1))
    raw = {
        (a, b): stats.wilcoxon(values[a], values[b]).pvalue
        for a, b in [("RCAN3D", "degraded"), ("PFNL3D", "degraded"), ("PFNL3D", "RCAN3D")]
    }
    for comparison in record["comparisons"]:
        assert comparison["p"] == pytest.approx(raw[comparison["method"], comparison["against"]])
        assert comparison["p"] <= comparison["p_holm"] <= min(1, 3 * comparison["p"] + 1e-12)
    gains = np.subtract(values["PFNL3D"], values["degraded"])
    assert record["gains"]["PFNL3D"]["mean"] == pytest.approx(gains.mean())
    rows = (tmp_path / "summary.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 3


def printed(tables: list[MetricTable], title: str, notice: str = "", width: int = 100) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(rich_table(tables, title, notice))
    return console.export_text()


def test_the_printed_table_names_methods_and_intervals() -> None:
    tables = tabulate(made_up_cases())
    text = printed(tables, "Table I")
    summary = tables[0].summaries["PFNL3D"]
    assert summary.interval is not None
    assert f"{summary.mean:.2f} ± {summary.sd:.2f}" in text
    assert f"[{summary.interval.low:.2f}, {summary.interval.high:.2f}]" in text
    assert all(word in text for word in ("degraded", "RCAN3D", "SSIM", "p (Holm)"))


@pytest.mark.parametrize("name", ["PFNL3D", "PFNL3D-1phase", "portal-venous-alone", "a" * 60])
def test_nothing_of_a_long_name_or_its_numbers_is_cut_off(name: str) -> None:
    cases = [
        replace(case, method=name if case.method == "PFNL3D" else case.method) for case in made_up_cases()
    ]
    text = printed(tabulate(cases), "Table I", width=table_console({case.method for case in cases}).width)
    assert f"  {name} " in text
    assert "…" not in text


SEGMENTED = ("reference", "degraded", "RCAN3D-3phase", "PFNL3D-1phase")


def segmented_cases(studies: int = 16, seed: int = 1) -> list[Case]:
    """Made-up rows: study 1 has no result in one method, study 2 an empty one in two."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(studies):
        for method in SEGMENTED:
            image = (
                (math.nan, math.nan) if method == "reference" else (24 + rng.normal(), rng.uniform(0.4, 0.9))
            )
            row = Case(
                f"s{number}", f"p{number}", method, *image, rng.uniform(0.5, 0.9), rng.uniform(0.1, 0.4)
            )
            if number == 1 and method == "PFNL3D-1phase":
                row = replace(row, dsc=math.nan, nsd=math.nan, failure="the worker was killed")
            if number == 2 and method in SEGMENTED[1:3]:
                row = replace(row, dsc=0.0, nsd=0.0, failure="empty: no voxel was found")
            rows.append(row)
    return rows


def test_failed_and_empty_segmentations_are_counted_apart(tmp_path: Path) -> None:
    cases = segmented_cases()
    tables = [*tabulate(cases), *tabulate_overlap(cases, 3.0)]
    for table in tables[2:]:
        assert list(table.summaries) == list(SEGMENTED)
        counts = {method: cells(table, method)[-3:] for method in SEGMENTED}
        assert counts["PFNL3D-1phase"] == ("15", "1", "0")
        assert counts["RCAN3D-3phase"] == counts["degraded"] == ("16", "0", "1")
        values = values_by_method(cases, table.metric.column)
        assert table.summaries["degraded"].mean == pytest.approx(np.mean(values["degraded"]))  # with the 0
        assert table.summaries["PFNL3D-1phase"].mean == pytest.approx(np.nanmean(values["PFNL3D-1phase"]))
    write_summary(tmp_path, tables)
    with (tmp_path / "summary.csv").open() as file:
        rows = {(row["metric"], row["method"]): row for row in csv.DictReader(file)}
    assert len(rows) == 2 * 3 + 2 * 4
    assert rows["dsc", "RCAN3D-3phase"]["n_empty"] == rows["nsd", "PFNL3D-1phase"]["n_failed"] == "1"
    assert rows["psnr_db", "PFNL3D-1phase"]["n_failed"] == rows["psnr_db", "RCAN3D-3phase"]["n_empty"] == "0"
    record = json.loads((tmp_path / "summary.json").read_text())
    assert record["nsd"]["methods"]["degraded"]["n_empty"] == 1


def test_the_reference_is_shown_and_not_tested() -> None:
    cases = segmented_cases()
    image, (dsc, _) = tabulate(cases), tabulate(cases, SEGMENTATION_METRICS)
    assert all("reference" not in table.summaries for table in image)
    assert next(iter(dsc.summaries)) == "reference"
    assert dsc.against_baseline("reference") is None
    assert {name for c in dsc.comparisons for name in (c.method, c.against)} == set(SEGMENTED[1:])
    values = values_by_method(cases, "dsc")
    assert dsc.gains["reference"].mean == pytest.approx(
        np.mean(np.subtract(values["reference"], values["degraded"]))
    )
    without = [case for case in cases if case.method != "reference"]
    assert tabulate(without, SEGMENTATION_METRICS)[0].comparisons == dsc.comparisons
    shown = cells(dsc, "reference")[columns([dsc]).index("p (Holm)")]
    assert shown == ""


def test_what_was_not_asked_for_is_no_failure() -> None:
    cases = segmented_cases(6)
    nothing = [Case("s9", "p9", method, 24.0, 0.5) for method in SEGMENTED]
    dsc = tabulate([*cases, *nothing], SEGMENTATION_METRICS)[0]
    assert dsc.summaries == tabulate(cases, SEGMENTATION_METRICS)[0].summaries
    truth = [
        replace(case, dsc=math.nan, nsd=math.nan) if case.method == "reference" else case for case in cases
    ]
    assert "reference" not in tabulate(truth, SEGMENTATION_METRICS)[0].summaries


def test_both_tables_fit_a_terminal_of_100_columns() -> None:
    cases = segmented_cases()
    for tables in (tabulate(cases), tabulate_overlap(cases, 3.0)):
        text = printed(tables, "A title", "phantom weights, not for patients")
        assert "…" not in text
        assert "phantom weights, not for patients" in text
        for table in tables:
            assert table.metric.title in text
            for method in table.summaries:
                assert all(cell in text for cell in cells(table, method))


def standardised(shape: np.ndarray, mean: float, sd: float) -> np.ndarray:
    return mean + sd * (shape - shape.mean()) / shape.std(ddof=1)


def skewed(mean: float, sd: float, seed: int, shape: float = 1.0) -> np.ndarray:
    """16 values within [0, 1] with a gamma tail toward 0, of this mean and sample standard deviation."""
    rng = np.random.default_rng(seed)
    while True:
        values = standardised(-rng.gamma(shape, 1, 16), mean, sd)
        if values.min() >= 0 and values.max() <= 1:
            return values


def with_one_zero(mean: float, sd: float, seed: int) -> np.ndarray:
    """The same with one 0, a pancreas that was not found, and 15 values that make up for it."""
    rest, squares = 16 * mean / 15, 15 * sd**2 + 16 * mean**2
    return np.r_[
        0.0, standardised(skewed(0.5, 0.1, seed)[:15], rest, math.sqrt((squares - 15 * rest**2) / 14))
    ]


def in_order_for(values: np.ndarray, base: np.ndarray, p: str) -> np.ndarray:
    """`base` in an order in which the paired test of `values` against it prints this p."""
    rng = np.random.default_rng(0)
    for _ in range(3000):
        ranks = np.argsort(np.argsort(values)) + rng.normal(0, rng.uniform(0, 8), 16)
        ordered = np.sort(base)[np.argsort(np.argsort(ranks))]
        if p_text(paired_wilcoxon(values, ordered).p) == p:
            return ordered
    raise AssertionError(f"no order gives p {p}")


def with_interval(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Moves values by Gauss-Newton steps, mean and SD kept, until their BCa interval has these ends."""

    def ends(sample: np.ndarray) -> np.ndarray:
        interval = bca_interval(sample)
        assert interval is not None
        return np.array([interval.low, interval.high])

    mean, sd, step = values.mean(), values.std(ddof=1), 0.004
    for _ in range(60):
        found = ends(values)
        if np.abs(found - [low, high]).max() < 4e-5:
            return values
        moved = [ends(standardised(values + step * row, mean, sd)) - found for row in np.eye(16)]
        jacobian = np.transpose(moved) / step
        move = np.linalg.pinv(jacobian, rcond=1e-3) @ ([low, high] - found)
        values = standardised(values + move * min(1, 0.02 / np.abs(move).max()), mean, sd)
    raise AssertionError("no sample with this interval was found")


# Tables I and II of arXiv 2501.14013, and the intervals and p-values of its section III.B. It gives no
# standard deviation in Table I; any will do.
TABLE_I = {
    "degraded": ("23.82", "0.4591"),
    "RCAN3D": ("28.77", "0.8794"),
    "PFNL3D": ("28.16", "0.8733"),
}
TABLE_II = {
    "reference": ("76.5 ± 5.70", "27.1 ± 6.10"),
    "degraded": ("68.9 ± 19.3", "22.0 ± 8.00"),
    "RCAN3D": ("70.8 ± 19.1", "24.0 ± 8.60"),
    "PFNL3D": ("71.7 ± 15.6", "25.0 ± 8.50"),
}


@pytest.fixture(scope="module")
def paper_cases() -> list[Case]:
    """Made-up values of 16 studies with the paper's means and deviations; nobody's scans."""
    columns_of: dict[str, list[np.ndarray]] = {}
    for seed, (method, (dsc, nsd)) in enumerate(TABLE_II.items()):
        psnr, ssim = map(float, TABLE_I.get(method, ("nan", "nan")))
        image = [standardised(np.random.default_rng(seed).normal(size=16), psnr, 1.1)]
        image.append(standardised(np.random.default_rng(seed).normal(size=16), ssim, 0.02))
        segmented = []
        for text in (dsc, nsd):
            mean, sd = (float(number) / 100 for number in text.split(" ± "))
            tail = 0.2 if sd > 0.15 else 1.0  # so that the spread comes from few studies
            made = with_one_zero(mean, sd, seed) if method == "degraded" else skewed(mean, sd, seed, tail)
            segmented.append(made)
        columns_of[method] = [*image, *segmented]
    pfnl3d, degraded = columns_of["PFNL3D"], columns_of["degraded"]
    pfnl3d[3] = with_interval(pfnl3d[3], 0.2066, 0.2869)
    degraded[2] = in_order_for(pfnl3d[2], degraded[2], ".034")
    degraded[3] = in_order_for(pfnl3d[3], degraded[3], ".025")
    return [
        Case(f"s{number}", f"p{number}", method, *(float(column[number]) for column in columns))
        for number in range(16)
        for method, columns in columns_of.items()
    ]


def test_tables_print_what_the_paper_prints(paper_cases: list[Case]) -> None:
    quality, overlap = tabulate(paper_cases), tabulate(paper_cases, SEGMENTATION_METRICS)
    assert [table.metric for table in (*quality, *overlap)] == [PSNR, SSIM, DSC, NSD]
    for tables, expected in ((quality, TABLE_I), (overlap, TABLE_II)):
        text = printed(tables, "as in the paper")
        for place, table in enumerate(tables):
            assert list(table.summaries) == list(expected)
            for method, numbers in expected.items():
                shown = cells(table, method)[0]
                assert (shown if tables is overlap else shown.partition(" ")[0]) == numbers[place]
                assert numbers[place] in text
    assert cells(overlap[1], "PFNL3D")[1] == "[0.2066, 0.2869]"
    assert "[0.2066, 0.2869]" in printed(overlap, "as in the paper")
    raw = [
        next(comparison_cells(table, c)[4] for c in table.comparisons if c.method == "PFNL3D")
        for table in overlap
    ]
    assert raw == [".034", ".025"]


def test_intervals_are_scipys_of_the_same_values(paper_cases: list[Case]) -> None:
    for table in (*tabulate(paper_cases), *tabulate(paper_cases, SEGMENTATION_METRICS)):
        for method, values in values_by_method(paper_cases, table.metric.column).items():
            if method not in table.summaries:
                continue
            found = stats.bootstrap(
                (values,), np.mean, n_resamples=9999, method="BCa", random_state=np.random.default_rng(0)
            ).confidence_interval
            digits = 2 if table.metric == PSNR else 4
            assert cells(table, method)[1] == f"[{found.low:.{digits}f}, {found.high:.{digits}f}]"


def test_the_other_interval_of_the_paper_has_its_notation() -> None:
    """No sample of 16 with a mean of 0.717 and an SD of 0.156 was found whose BCa interval is this one."""
    assert Percent().interval(ConfidenceInterval(0.6299, 0.7725)) == "[0.6299, 0.7725]"


def test_a_p_of_the_paper_that_15_pairs_can_give() -> None:
    ranks = np.arange(1.0, 16.0)
    ranks[[3, 9]] *= -1  # 4 + 10 = 14
    assert p_text(stats.wilcoxon(ranks).pvalue) == ".007"


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (None, "–"),
        (0.0004, "< .001"),
        (0.00099, "< .001"),
        (0.001, ".001"),
        (0.25, ".250"),
        (0.9996, "1.00"),
        (1, "1.00"),
    ],
)
def test_p_values_are_printed(p: float | None, text: str) -> None:
    assert p_text(p) == text


@settings(deadline=None, max_examples=200)
@given(st.floats(0.1, 100))
def test_three_digits_count(value: float) -> None:
    text = three_significant(value)
    assert float(text) == pytest.approx(float(f"{value:.3g}"))
    assert len(text.replace(".", "").lstrip("0")) == 3


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0.00"), (100, "100"), (9.996, "10.0"), (99.96, "100"), (0.0123, "0.012")]
)
def test_three_digits_at_the_edges(value: float, text: str) -> None:
    assert three_significant(value) == text


def test_changes_of_shares_are_percentage_points() -> None:
    notation = Percent()
    assert notation.change(0.028) == "+2.80"
    assert notation.change(-0.028) == "−2.80"
    assert notation.change(-0.00001) == "0.00"
    assert notation.change_ends(ConfidenceInterval(-0.0035, 0.061)) == ("−0.35", "6.10")


def test_cases_that_a_spreadsheet_saved_again(tmp_path: Path) -> None:
    """With the semicolons and decimal commas of its locale, and without the empty cells at a row's end."""
    cases = [
        Case("s1", "p1", "reference", math.nan, math.nan, 0.5, 0.25),
        Case("s1", "p1", "PFNL3D", 31.5, 0.875, 0.75, 0.5, failure="empty; no voxel"),
    ]
    write_cases(tmp_path / "cases.csv", cases)
    with (tmp_path / "cases.csv").open(newline="") as file:
        rows = [[cell.replace(".", ",") for cell in row] for row in csv.reader(file)]
    with (tmp_path / "cases.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=";").writerows([row[:-1] if not row[-1] else row for row in rows])
    assert repr(read_cases(tmp_path / "cases.csv")) == repr(cases)
