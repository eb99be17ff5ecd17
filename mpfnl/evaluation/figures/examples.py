"""All figures of an evaluation, and those of single cases: Figure 2 (slices) and Figure 4 (contours)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mpfnl.data.manifest import Manifest
from mpfnl.evaluation.cases import Case, methods_of
from mpfnl.evaluation.figures import FigureFile, save_figure
from mpfnl.evaluation.figures.box_plots import draw_overlap, draw_quality
from mpfnl.evaluation.figures.ranking import RankedStudy, Ranking, rank_studies
from mpfnl.evaluation.figures.slices import PLANES, CaseSlices, MethodSlices, read_case
from mpfnl.evaluation.folder import FIGURES, REFERENCE
from mpfnl.evaluation.overlap import PANCREAS, Truth
from mpfnl.evaluation.tables.metrics import window_range
from mpfnl.phases import Phase
from mpfnl.plots.contours import ContourSlice, Prediction, contour_figure
from mpfnl.plots.panels import Heading
from mpfnl.plots.zoom import Version, zoom_figure
from mpfnl.window import Window

NUMBERING = (
    "Slices are numbered from 0 as in the file; positions are the scanner's, in mm to the patient's right (R)"
    " or left (L), front (A) or back (P), head (S) or feet (I)."
)


@dataclass(frozen=True, eq=False)
class Example:
    """A case of the figures.

    Args:
        study: The ranked study.
        ranking: Ranking that it was selected from.
        rows: Rows of the study, by method.
        slices: Slices of the study.
        structure: Structure that was segmented; None if nothing was.
        notice: Warning about results of the segmenter.
        truth: Kind of the reference mask.
        window: HU window of the figures.
    """

    study: RankedStudy
    ranking: Ranking
    rows: Mapping[str, Case]
    slices: CaseSlices
    structure: str | None
    notice: str
    truth: Truth
    window: Window

    @property
    def rank(self) -> str:
        """Rank of the study in words."""
        if not self.study.rank:
            return "not ranked"
        metric = self.ranking.metric
        unit = "points" if metric.of_masks else metric.unit
        return (
            f"{self.study.rule}: rank {self.study.rank} of {self.study.ranked} by gain in"
            f" {metric.name}, {metric.notation.scale * self.study.gain:+.1f} {unit}".replace("-", "−")
        )

    @property
    def failures(self) -> list[str]:
        """Failures of the methods, a sentence each."""
        failed = {method: row.failure.rstrip(".") for method, row in self.rows.items() if row.failure}
        return [f"{method}: {failure}." for method, failure in failed.items()]

    @property
    def title(self) -> str:
        """The study's part of a figure's title."""
        return f"study {self.study.study_id} ({self.study.rule})"


def draw_figures(
    manifest: Manifest,
    cases: Sequence[Case],
    target: Phase,
    folder: Path,
    window: Window,
    *,
    structure: str | None = None,
    notice: str = "",
    truth: Truth = Truth.MASK,
) -> list[FigureFile]:
    """Draws all figures of an evaluation into its `figures/` folder.

    Figure 1 is the image quality by method; 2 to 4 are the paper's (arXiv 2501.14013): slices of three cases,
    the segmentation's accuracy by method, contours of the same cases. Cases are selected by the gain of the
    last method, see `rank_studies`. Figures of cases from an earlier run are removed.

    Args:
        manifest: The cohort.
        cases: The evaluation's rows.
        target: The phase that was restored.
        folder: The evaluation folder, with its scans and masks.
        window: HU window of scans and captions.
        structure: Structure that was segmented; None leaves out Figures 3 and 4.
        notice: Warning about results of the segmenter, at the foot and in the caption of every figure that
            shows them.
        truth: Masks that the segmentations were compared with.

    Returns:
        The figures in the order of their numbers; none without cases.

    Raises:
        InputError: A scan or mask cannot be read, or lies on another grid than the study's.
    """
    if not cases:
        return []
    figures = folder / FIGURES
    figures.mkdir(exist_ok=True)
    for old in [*figures.glob("case_*.png"), *figures.glob("contours_*.png")]:
        old.unlink()
    methods = methods_of(cases)
    studies = {study.study_id: study for study in manifest}
    ranking = rank_studies(cases, methods[-1], structure is not None)
    slices, contours = [], []
    for ranked in ranking.selection():  # one in memory at a time
        rows = {case.method: case for case in cases if case.study_id == ranked.study_id}
        read = read_case(studies[ranked.study_id], methods, target, folder, structure, truth)
        example = Example(ranked, ranking, rows, read, structure, notice, truth, window)
        slices.append(draw_slices(example, figures))
        contours.append(draw_contours(example, figures))
    overlap = [] if structure is None else [draw_overlap(cases, structure, figures, notice, truth)]
    masked = [figure for figure in contours if figure is not None]
    return [draw_quality(cases, figures, window), *slices, *overlap, *masked]


def draw_slices(example: Example, folder: Path) -> FigureFile:
    """Draws Figure 2 of a case into `case_RULE.png`."""
    position = example.slices.position
    columns = [method for method in example.slices.methods if method != REFERENCE]
    versions = [
        Version(Heading(method, _psnr(example.rows.get(method))), _axial(example.slices.methods[method]))
        for method in columns
    ]
    reference = Version(Heading(REFERENCE), example.slices.reference["axial"])
    notice = example.notice if example.ranking.metric.of_masks else ""
    where = position.label("axial")
    title = f"Study {example.study.study_id}, {where}"
    pixel_mm = position.pixel_mm("axial")
    figure = zoom_figure(title, versions, reference, pixel_mm, position.square, notice, window=example.window)
    path = folder / f"case_{example.study.rule}.png"
    save_figure(figure, path)
    selection = (
        f"where the {example.truth.noun} ({example.structure or PANCREAS}) is largest"
        if example.slices.reference_mask is not None
        else "through the middle of the soft tissue, since there is no reference mask"
    )
    side = f"{position.square.width:.0f} by {position.square.height:.0f} mm"
    sentences = [
        f"Study {example.study.study_id} ({example.rank}), {where}, {selection}.",
        f"All scans in the window {window_range(example.window)}; the frame, {side}, is enlarged"
        " below, interpolated linearly.",
        "Lowest row: difference to the reference, both clipped to the window first; blue is darker than the"
        " reference, red is brighter.",
        *example.failures,
        example.ranking.rule(),
        NUMBERING,
        notice,
    ]
    alt = (
        f"One axial slice of study {example.study.study_id} side by side: {', '.join(columns)}, {REFERENCE};"
        " the whole slice, a part of it enlarged, and maps of the difference to the reference."
    )
    return FigureFile(
        path, f"Figure 2. Image quality, {example.title}", " ".join(filter(None, sentences)), alt
    )


def draw_contours(example: Example, folder: Path) -> FigureFile | None:
    """Draws Figure 4 of a case into `contours_RULE.png`; None where it has no reference mask."""
    position, masks, structure = example.slices.position, example.slices.reference_mask, example.structure
    if structure is None or masks is None:
        return None
    cuts = {
        plane: ContourSlice(
            position.label(plane), position.pixel_mm(plane), position.frames[plane], masks[plane]
        )
        for plane in PLANES
    }
    columns = [
        Prediction(
            Heading(f"{REFERENCE} scan" if method == REFERENCE else method, _dsc(example.rows.get(method))),
            slices.hu,
            slices.mask,
            _note(slices),
        )
        for method, slices in example.slices.methods.items()
    ]
    title = f"Study {example.study.study_id}, {structure}"
    names = (example.truth.noun, "prediction")
    figure = contour_figure(title, cuts, columns, names, example.notice, window=example.window)
    path = folder / f"contours_{example.study.rule}.png"
    save_figure(figure, path)
    where = ", ".join(cut.label for cut in cuts.values())
    sentences = [
        f"Study {example.study.study_id} ({example.rank}): {where}, each where the"
        f" {example.truth.noun} ({structure}) is largest; window {window_range(example.window)}.",
        f"Thick orange: {example.truth.noun}; thin cyan: the segmentation of the column's scan.",
        "DSC of the whole volume.",
        *example.failures,
        example.ranking.rule(),
        NUMBERING,
        example.notice,
    ]
    alt = f"Contours of the {structure} in study {example.study.study_id} on three slices. " + "; ".join(
        f"{column.heading.name}: {column.note or column.heading.text}" for column in columns
    )
    return FigureFile(path, f"Figure 4. Contours, {example.title}", _joined(sentences), alt)


def _joined(sentences: Sequence[str]) -> str:
    return " ".join(filter(None, sentences))


def _axial(slices: MethodSlices) -> NDArray[Any] | None:
    return None if slices.hu is None else slices.hu["axial"]


def _psnr(row: Case | None) -> str:
    return "PSNR –" if row is None or not math.isfinite(row.psnr_db) else f"PSNR {row.psnr_db:.2f} dB"


def _dsc(row: Case | None) -> str:
    return "DSC –" if row is None or not math.isfinite(row.dsc) else f"DSC {100 * row.dsc:.1f} %"


def _note(slices: MethodSlices) -> str:
    """The reason why a column has no contour."""
    if slices.hu is None:
        return "no scan"
    if slices.mask is None:
        return "no prediction"
    return "empty prediction" if slices.empty else ""
