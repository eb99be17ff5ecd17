"""Box plots: every value is there, nothing overlaps."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from mpfnl.plots.boxes import COLOURS, BoxPlot, box_plots

NAN = math.nan
NOTICE = "phantom weights: these results say nothing about patients, " * 3


def figure_of(values: dict[str, list[float]], foot: str = "", plots: int = 2) -> Figure:
    colours = dict(zip(values, itertools.cycle(COLOURS), strict=False))
    return box_plots([BoxPlot("Dice score (%)", values)] * plots, colours, foot)


def boxes_of(figure: Figure) -> list[tuple[str, object]]:
    figure.draw_without_rendering()
    words: list[Text] = list(figure.texts)
    for axes in figure.axes:
        words += [
            *axes.get_xticklabels(),
            axes.yaxis.label,
            axes.title,
            axes._left_title,
        ]
        low, high = axes.get_ylim()
        words += [tick.label1 for tick in axes.yaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [(text.get_text(), text.get_window_extent()) for text in words if text.get_text()]


@settings(deadline=None, max_examples=8)
@given(st.lists(st.lists(st.floats(0, 100) | st.just(NAN), min_size=5, max_size=5), min_size=1, max_size=4))
def test_points_and_quartiles_are_the_values(rows: list[list[float]]) -> None:
    (axes,) = figure_of({f"m{number}": row for number, row in enumerate(rows)}, plots=1).axes
    assert len(axes.collections) == len(rows)
    boxes = iter(axes.patches)
    for place, (row, points) in enumerate(zip(rows, axes.collections, strict=True), start=1):
        present = [value for value in row if math.isfinite(value)]
        offsets = np.asarray(points.get_offsets())
        assert offsets[:, 1].tolist() == present
        assert set(offsets[:, 0]) <= {place}
        if present:
            corners = next(boxes).get_path().vertices[:, 1]
            assert [corners.min(), corners.max()] == pytest.approx(np.percentile(present, [25, 75]))
        label = axes.get_xticklabels()[place - 1].get_text().splitlines()
        missing = len(row) - len(present)
        assert label[1:] == [f"n = {len(present)}"] + ([f"{missing} missing"] if missing else [])
    assert next(boxes, None) is None


def test_lines_join_the_values_of_a_study_and_have_gaps() -> None:
    values = {"degraded": [10.0, 0.0, NAN], "RCAN3D": [20.0, NAN, NAN], "PFNL3D": [30.0, 40.0, 50.0]}
    (axes,) = figure_of(values, plots=1).axes
    lines = np.array([line.get_ydata() for line in axes.lines if len(line.get_xdata()) == 3])
    np.testing.assert_array_equal(lines, np.array(list(values.values())).T)
    low, _ = axes.get_ylim()
    assert low < 0  # the failed case's point lies inside


@pytest.mark.parametrize("count", [1, 2, 4, 5, 6, 9])
def test_no_words_overlap(count: int) -> None:
    values = {f"{n}-RCAN3D-WWp"[:12]: [20.0 + n, NAN, 50.0, 0.0] for n in range(count)}
    figure = figure_of(values, NOTICE)
    drawn = boxes_of(figure)
    page = figure.bbox
    for (name, box), (other, second) in itertools.combinations(drawn, 2):
        apart = box.x1 <= second.x0 or second.x1 <= box.x0 or box.y1 <= second.y0 or second.y1 <= box.y0
        assert apart, (name, other)
    for name, box in drawn:
        assert page.x0 <= box.x0 < box.x1 <= page.x1, name
        assert page.y0 <= box.y0 < box.y1 <= page.y1, name
    assert " ".join(text.get_text() for text in figure.texts) == NOTICE.strip()
    assert min(text.get_fontsize() for text in figure.texts) >= 8
    plots = [axes.get_tightbbox() for axes in figure.axes]
    assert all(box.y0 >= figure.texts[0].get_window_extent().y1 for box in plots)


def test_names_are_not_formulas_and_long_ones_are_broken() -> None:
    figure = figure_of({"$x^{$": [1.0, 2.0], "a-very-long-name-of-a-network": [2.0, 3.0]})
    figure.draw_without_rendering()
    first, second = (label.get_text().splitlines() for label in figure.axes[0].get_xticklabels())
    assert first[0] == "$x^{$"
    assert "".join(second[:-1]) == "a-very-long-name-of-a-network"


def test_unequal_numbers_of_studies_are_refused() -> None:
    with pytest.raises(ValueError, match="number of studies"):
        figure_of({"a": [1.0], "b": [1.0, 2.0]})


def test_colours_are_apart_for_the_colour_blind() -> None:
    """In the plane that is left without red cones (Vienot 1999) no two of the first six are close."""
    to_lms = np.array(
        [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
    )
    protan = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
    deutan = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    linear = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS[:6]]) ** 2.2
    for sight in (protan, deutan):
        seen = np.clip(linear @ (np.linalg.inv(to_lms) @ sight @ to_lms).T, 0, 1) ** (1 / 2.2)
        gaps = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]
        assert min(gaps) > 0.1
