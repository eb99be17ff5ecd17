"""All figures of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mpfnl.data.manifest import Manifest
from mpfnl.evaluation.cases import Case, methods_of
from mpfnl.evaluation.figures.cuts import read_case
from mpfnl.evaluation.figures.distributions import draw_overlap, draw_quality
from mpfnl.evaluation.figures.examples import Example, draw_contours, draw_slices, rows_of
from mpfnl.evaluation.figures.picking import rank_studies
from mpfnl.evaluation.figures.picture import Picture
from mpfnl.evaluation.overlap import Truth
from mpfnl.phases import Phase

FIGURES = "figures"
"""The folder of the figures in an evaluation folder."""


def draw_figures(
    manifest: Manifest,
    cases: Sequence[Case],
    target: Phase,
    folder: Path,
    *,
    structure: str | None = None,
    notice: str = "",
    truth: Truth = Truth.MASK,
) -> list[Picture]:
    """Draws all figures of an evaluation into its `figures/` folder.

    Figure 1 is the image quality by method; 2 to 4 are the paper's (arXiv 2501.14013): slices of three cases,
    the segmentation's accuracy by method, contours of the same cases. Cases are picked by the gain of the
    last method, see `rank_studies`. Pictures of cases that an earlier run left are removed.

    Args:
        manifest: The cohort.
        cases: The evaluation's rows.
        target: The phase that was restored.
        folder: The evaluation folder, with its scans and masks.
        structure: The structure that was segmented; None leaves out Figures 3 and 4.
        notice: What must be said of results made with the segmenter; stands at the foot and in the caption of
            every figure that shows them.
        truth: What the segmentations were compared with.

    Returns:
        The pictures in the order of their numbers; none without cases.

    Raises:
        InputError: A scan or mask cannot be read, or lies on another grid than the study's.
    """
    if not cases:
        return []
    figures = folder / FIGURES
    figures.mkdir(exist_ok=True)
    for old in [*figures.glob("case_*.png"), *figures.glob("contours_*.png")]:
        old.unlink()
    slices, contours = [], []
    for example in _examples(manifest, cases, target, folder, structure, notice, truth):
        slices.append(draw_slices(example, figures))
        contours.append(draw_contours(example, figures))
    overlap = [] if structure is None else [draw_overlap(cases, structure, figures, notice, truth)]
    drawn = [picture for picture in contours if picture is not None]
    return [draw_quality(cases, figures), *slices, *overlap, *drawn]


def _examples(
    manifest: Manifest,
    cases: Sequence[Case],
    target: Phase,
    folder: Path,
    structure: str | None,
    notice: str,
    truth: Truth,
) -> Iterator[Example]:
    """The cases that are shown, one in memory at a time."""
    methods = methods_of(cases)
    studies = {study.study_id: study for study in manifest}
    ranking = rank_studies(cases, methods[-1], structure is not None)
    for pick in ranking.picks():
        cuts = read_case(studies[pick.study_id], methods, target, folder, structure, truth)
        yield Example(pick, ranking, rows_of(cases, pick.study_id), cuts, structure, notice, truth)
