"""The selection of the cases in the figures, by a written rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mpfnl.evaluation.cases import Case, studies_of, values_by_method
from mpfnl.evaluation.folder import BASELINE
from mpfnl.evaluation.tables.metrics import DSC, PSNR, Metric


@dataclass(frozen=True)
class RankedStudy:
    """A study of the figures.

    Args:
        rule: `worst`, `median` or `best`; `only` where one study is ranked, `first` where none is.
        study_id: The study.
        rank: Rank from 1, the worst; 0 where no study can be ranked.
        ranked: Number of ranked studies.
        gain: Gain, in the units of `cases.csv`; NaN without a rank.
    """

    rule: str
    study_id: str
    rank: int
    ranked: int
    gain: float


@dataclass(frozen=True)
class Ranking:
    """Studies in the order of a method's gain over the degraded scan.

    Args:
        method: The method.
        metric: The metric.
        gains: Gain by study, from the lowest to the highest; equal gains in the order of the cases.
        studies: All studies in the order of the cases, also those without a gain.
    """

    method: str
    metric: Metric
    gains: dict[str, float]
    studies: list[str]

    def selection(self) -> list[RankedStudy]:
        """The worst, the median (the upper one of two) and the best study, each once."""
        order, count = list(self.gains), len(self.gains)
        if not order:
            return [RankedStudy("first", study, 0, 0, math.nan) for study in self.studies[:1]]
        if count == 1:
            return [RankedStudy("only", order[0], 1, 1, self.gains[order[0]])]
        wanted = {"worst": 0, "best": count - 1, "median": count // 2}  # the first rule names the study
        rules: dict[int, str] = {}
        for rule, place in wanted.items():
            rules.setdefault(place, rule)
        return [
            RankedStudy(rules[place], order[place], place + 1, count, self.gains[order[place]])
            for place in sorted(rules)
        ]

    def rule(self) -> str:
        """The rule of the selection, in a sentence."""
        if not self.gains:
            return (
                f"No study has a {self.metric.name} of both {self.method} and {BASELINE}: "
                "the first study is shown."
            )
        left = len(self.studies) - len(self.gains)
        missing = f" ({left} of {len(self.studies)} studies)" if left else ""
        return (
            f"Rule: studies are ranked by the {self.metric.name} of {self.method} less that of {BASELINE};"
            " the lowest (worst), the middle (median; the upper one of two) and the highest (best) are"
            " shown, each study once. Equal gains keep the order of cases.csv; where a value is missing the"
            f" study is not ranked{missing}."
        )


def rank_studies(cases: Sequence[Case], method: str, segmented: bool) -> Ranking:
    """Ranks the studies by the gain of a method over the degraded scan.

    By DSC where there is segmentation and at least one study has a gain in it, else by PSNR.

    Args:
        cases: The evaluation's rows.
        method: The method.
        segmented: Whether a structure was segmented.
    """
    by_dsc = _rank(cases, method, DSC) if segmented else None
    return by_dsc if by_dsc and by_dsc.gains else _rank(cases, method, PSNR)


def _rank(cases: Sequence[Case], method: str, metric: Metric) -> Ranking:
    values, studies = values_by_method(cases, metric.column), studies_of(cases)
    nothing = [math.nan] * len(studies)
    pairs = zip(values.get(method, nothing), values.get(BASELINE, nothing), strict=True)
    gains = {study: new - old for study, (new, old) in zip(studies, pairs, strict=True)}
    finite = {study: gain for study, gain in gains.items() if math.isfinite(gain)}
    ordered = sorted(finite, key=lambda study: finite[study])
    return Ranking(method, metric, {study: finite[study] for study in ordered}, studies)
