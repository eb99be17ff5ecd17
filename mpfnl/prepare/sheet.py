"""The contact sheet of a prepared study."""

from __future__ import annotations

from collections.abc import Mapping

from mpfnl.data.manifest import Quality
from mpfnl.phases import Phase
from mpfnl.plots.overlays import GREEN, ORANGE, RED, Overlay, contact_sheet, to_png
from mpfnl.prepare.measured import Measured
from mpfnl.prepare.quality import PhaseQuality, study_verdict

_COLOURS = {Quality.PASS: GREEN, Quality.WARN: ORANGE, Quality.FAIL: RED}


def draw_sheet(
    study_id: str, measured: Mapping[Phase, Measured], qualities: Mapping[Phase, PhaseQuality]
) -> bytes:
    """Draws a study's contact sheet as a PNG, the same bytes at each run.

    Args:
        study_id: The study.
        measured: Its moving phases, all on one grid; that of the measurement, or a finer one.
        qualities: What was found about them.
    """
    verdict = study_verdict(qualities)
    overlays = [
        Overlay(
            f"{phase.value.replace('_', ' ')}: {qualities[phase].verdict}",
            (_summary(qualities[phase]), *qualities[phase].reasons),
            seen.before,
            seen.after,
            seen.covered_before,
            seen.covered_after,
            _COLOURS[qualities[phase].verdict],
        )
        for phase, seen in measured.items()
    ]
    first = next(iter(measured.values()))
    figure = contact_sheet(f"{study_id}: {verdict}", first.fixed, overlays, first.spacing, _COLOURS[verdict])
    return to_png(figure)


def _summary(quality: PhaseQuality) -> str:
    return (
        f"similarity {quality.similarity_before:.2f} → {quality.similarity_after:.2f}"
        f"   structures that differ {quality.mismatch_before:.0%} → {quality.mismatch_after:.0%}"
        f"   body overlap {quality.body_overlap_before:.3f} → {quality.body_overlap_after:.3f}"
        f"   coverage {quality.coverage:.0%}   moved {quality.displacement_p95_mm:.1f} mm (95 %)"
    )
