"""What failed, study by study."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mpfnl.evaluation.cases import REFERENCE, Case
from mpfnl.evaluation.report.contents import TextTable

COLUMNS = ("study", "methods", "what happened", "in the tables")


def failure_table(cases: Sequence[Case]) -> TextTable:
    """A row a study and reason; the methods with the same reason stand together."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for case in cases:
        if case.failure:
            groups.setdefault((case.study_id, case.failure, _counted(case)), []).append(case.method)
    rows = [[study, ", ".join(names), reason, counted] for (study, reason, counted), names in groups.items()]
    return TextTable(COLUMNS, rows, words=len(COLUMNS))


def _counted(case: Case) -> str:
    if math.isfinite(case.dsc):
        return "counts as 0" if case.dsc == 0 else "counts"
    in_table_i = math.isfinite(case.psnr_db) or case.method == REFERENCE  # which has no row there
    return "left out of Table II" if in_table_i else "left out"
