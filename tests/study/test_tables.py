"""Tables, rows and pictures of an evaluation, without a network."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from mpfnl.errors import InputError
from mpfnl.study.cases import Case, read_cases, values_by_method, write_cases
from mpfnl.study.figures import pick_cases, quality_figure
from mpfnl.study.tables import p_text, rich_table, tabulate, write_summary


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
    assert read_cases(path) == cases


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"cases\.csv"):
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


def test_the_printed_table_names_methods_and_intervals() -> None:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115  # closed with the process
    tables = tabulate(made_up_cases())
    console.print(rich_table(tables, "Table I"))
    text = console.export_text()
    summary = tables[0].summaries["PFNL3D"]
    assert summary.interval is not None
    assert f"{summary.mean:.2f} ± {summary.sd:.2f}" in text
    assert f"[{summary.interval.low:.2f}, {summary.interval.high:.2f}]" in text
    assert all(word in text for word in ("degraded", "RCAN3D", "SSIM", "p (Holm)"))
    console.file.close()


def test_cases_are_picked_by_gain() -> None:
    cases = made_up_cases(5)
    values = values_by_method(cases, "psnr_db")
    gains = dict(
        zip([f"s{n}" for n in range(5)], np.subtract(values["PFNL3D"], values["degraded"]), strict=True)
    )
    picked = pick_cases(cases, "PFNL3D")
    assert gains[picked["worst"]] == min(gains.values())
    assert gains[picked["best"]] == max(gains.values())
    assert gains[picked["median"]] == sorted(gains.values())[2]
    assert list(pick_cases(made_up_cases(1), "PFNL3D")) == ["worst"]


def test_box_plots_show_every_value() -> None:
    cases = made_up_cases(6)
    figure = quality_figure(cases)
    psnr, ssim = figure.axes
    shown = np.concatenate([np.asarray(points.get_offsets())[:, 1] for points in psnr.collections])
    assert sorted(shown) == pytest.approx(sorted(case.psnr_db for case in cases))
    assert [label.get_text() for label in ssim.get_xticklabels()] == ["degraded", "RCAN3D", "PFNL3D"]


@pytest.mark.parametrize(("p", "text"), [(None, "–"), (0.0004, "< 0.001"), (0.001, "0.001"), (0.25, "0.250")])
def test_p_values_are_printed(p: float | None, text: str) -> None:
    assert p_text(p) == text
