"""The pictures of single cases: Figure 2 (slices and differences) and Figure 4 (contours)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mpfnl.evaluation.cases import REFERENCE, Case
from mpfnl.evaluation.figures.cuts import PLANES, CaseCuts, Shown
from mpfnl.evaluation.figures.picking import NAMES, Pick, Ranking
from mpfnl.evaluation.figures.picture import TRUTHS, Picture, save_figure
from mpfnl.evaluation.overlap import Truth
from mpfnl.plots.contours import Cut, Prediction, contour_figure
from mpfnl.plots.panels import Heading
from mpfnl.plots.zoom import Version, zoom_figure
from mpfnl.window import ABDOMEN

NUMBERING = (
    "Slices are numbered from 0 as in the file; positions are the scanner's, in mm to the patient's right (R)"
    " or left (L), front (A) or back (P), head (S) or feet (I)."
)
WINDOW = f"window [{ABDOMEN.lower:g}, {ABDOMEN.upper:g}] HU".replace("-", "−")


KEYS = {Truth.MASK: "reference mask", Truth.REFERENCE_SCAN: "in the reference scan"}


@dataclass(frozen=True, eq=False)
class Example:
    """A case that is shown.

    Args:
        pick: The case.
        ranking: What it was picked from.
        rows: Its rows, by method.
        cuts: Its slices.
        structure: What was segmented; None if nothing was.
        notice: What must be said of results made with the segmenter.
        truth: What the reference mask is.
    """

    pick: Pick
    ranking: Ranking
    rows: Mapping[str, Case]
    cuts: CaseCuts
    structure: str | None
    notice: str
    truth: Truth

    @property
    def rank(self) -> str:
        """Where it stands, in words."""
        if not self.pick.rank:
            return "not ranked"
        scale, unit = {"dsc": (100.0, "points"), "psnr_db": (1.0, "dB")}[self.ranking.column]
        return (
            f"{self.pick.rule}: rank {self.pick.rank} of {self.pick.ranked} by gain in"
            f" {NAMES[self.ranking.column]}, {scale * self.pick.gain:+.1f} {unit}".replace("-", "−")
        )

    @property
    def failures(self) -> list[str]:
        """What failed in it, a sentence each."""
        failed = {method: row.failure.rstrip(".") for method, row in self.rows.items() if row.failure}
        return [f"{method}: {failure}." for method, failure in failed.items()]

    @property
    def named(self) -> str:
        """Its picture's part of a title."""
        return f"study {self.pick.study_id} ({self.pick.rule})"


def draw_slices(example: Example, folder: Path) -> Picture:
    """Draws Figure 2 of a case into `case_RULE.png`."""
    place = example.cuts.place
    columns = [method for method in example.cuts.methods if method != REFERENCE]
    versions = [
        Version(Heading(method, _psnr(example.rows.get(method))), _axial(example.cuts.methods[method]))
        for method in columns
    ]
    reference = Version(Heading(REFERENCE), example.cuts.reference["axial"])
    notice = example.notice if example.ranking.column == "dsc" else ""
    where = place.label("axial")
    title = f"Study {example.pick.study_id}, {where}"
    figure = zoom_figure(title, versions, reference, place.pixel_mm("axial"), place.square, notice)
    path = folder / f"case_{example.pick.rule}.png"
    save_figure(figure, path)
    chosen = (
        f"where the {TRUTHS[example.truth]} ({example.structure or 'pancreas'}) is largest"
        if example.cuts.reference_mask is not None
        else "through the middle of the soft tissue, since there is no reference mask"
    )
    side = f"{place.square.width:.0f} by {place.square.height:.0f} mm"
    words = [
        f"Study {example.pick.study_id} ({example.rank}), {where}, {chosen}.",
        f"All scans under the {WINDOW}; the frame, {side}, is enlarged below, interpolated linearly.",
        "Lowest row: difference to the reference, both clipped to the window first; blue is darker than the"
        " reference, red is brighter.",
        *example.failures,
        example.ranking.rule(),
        NUMBERING,
        notice,
    ]
    alt = (
        f"One axial slice of study {example.pick.study_id} side by side: {', '.join(columns)}, {REFERENCE};"
        " the whole slice, a part of it enlarged, and maps of the difference to the reference."
    )
    return Picture(path, f"Figure 2. Image quality, {example.named}", " ".join(filter(None, words)), alt)


def draw_contours(example: Example, folder: Path) -> Picture | None:
    """Draws Figure 4 of a case into `contours_RULE.png`; None where it has no reference mask."""
    place, masks, structure = example.cuts.place, example.cuts.reference_mask, example.structure
    if structure is None or masks is None:
        return None
    cuts = {
        plane: Cut(place.label(plane), place.pixel_mm(plane), place.frames[plane], masks[plane])
        for plane in PLANES
    }
    columns = [
        Prediction(
            Heading(f"{REFERENCE} scan" if method == REFERENCE else method, _dsc(example.rows.get(method))),
            shown.hu,
            shown.mask,
            _note(shown),
        )
        for method, shown in example.cuts.methods.items()
    ]
    title = f"Study {example.pick.study_id}, {structure}"
    figure = contour_figure(title, cuts, columns, (KEYS[example.truth], "prediction"), example.notice)
    path = folder / f"contours_{example.pick.rule}.png"
    save_figure(figure, path)
    where = ", ".join(cut.label for cut in cuts.values())
    words = [
        f"Study {example.pick.study_id} ({example.rank}): {where}, each where the"
        f" {TRUTHS[example.truth]} ({structure}) is largest; {WINDOW}.",
        f"Thick orange: {TRUTHS[example.truth]}; thin cyan: what was segmented in the scan that the column"
        " names.",
        "DSC is that of the whole volume.",
        *example.failures,
        example.ranking.rule(),
        NUMBERING,
        example.notice,
    ]
    alt = f"Contours of the {structure} in study {example.pick.study_id} on three cuts. " + "; ".join(
        f"{column.heading.name}: {column.note or column.heading.text}" for column in columns
    )
    return Picture(path, f"Figure 4. Contours, {example.named}", " ".join(filter(None, words)), alt)


def _axial(shown: Shown) -> NDArray[Any] | None:
    return None if shown.hu is None else shown.hu["axial"]


def _psnr(row: Case | None) -> str:
    return "PSNR –" if row is None or not math.isfinite(row.psnr_db) else f"PSNR {row.psnr_db:.2f} dB"


def _dsc(row: Case | None) -> str:
    return "DSC –" if row is None or not math.isfinite(row.dsc) else f"DSC {100 * row.dsc:.1f} %"


def _note(shown: Shown) -> str:
    """Why a column has no contour."""
    if shown.hu is None:
        return "no scan"
    if shown.mask is None:
        return "no prediction"
    return "" if shown.found else "empty prediction"


def rows_of(cases: Sequence[Case], study_id: str) -> dict[str, Case]:
    """A study's rows by method."""
    return {case.method: case for case in cases if case.study_id == study_id}
