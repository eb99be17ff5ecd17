"""What a report is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mpfnl.evaluation.cases import Case, studies_of
from mpfnl.evaluation.tables import MetricTable
from mpfnl.phases import Phase
from mpfnl.window import ABDOMEN, Window


class Picture(Protocol):
    """A figure on disk: a PNG."""

    @property
    def path(self) -> Path:
        """The PNG."""

    @property
    def title(self) -> str:
        """Its number and what it is."""

    @property
    def caption(self) -> str:
        """What it shows and by which rule; with the segmenter's notice, if that had a part in it."""

    @property
    def alt(self) -> str:
        """What is to be seen, for those who do not see it."""


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are text; its first column names the row.

    Args:
        columns: The headings.
        rows: The cells under them.
        words: How many columns, from the left, hold words; the others hold numbers.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.rows} - {len(self.columns)}
        if widths:
            raise ValueError(f"a row of {widths.pop()} cells under {len(self.columns)} headings")


@dataclass(frozen=True)
class LeakSection:
    """The phase-leak check.

    Args:
        table: A row a method and organ; None if nothing was measured.
        warnings: A line for each drift that counts.
        swap: The swap test; None if it was not done.
        remarks: What a reader must know about it, a sentence each: the rule, the studies of the swap test.
    """

    table: TextTable | None = None
    warnings: Sequence[str] = ()
    swap: TextTable | None = None
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class ReportContents:
    """Everything that a report says.

    Args:
        target: The phase that was restored.
        split: The split that was evaluated.
        degradation: What the scans were degraded with: the preset's name.
        cases: One row a study and method.
        image_tables: Table I.
        methods: One line for each model and folder: what it is and which phases it sees.
        overlap_tables: Table II; empty where nothing was segmented.
        structure: What was segmented.
        truth: What its masks were compared with, as in "compared with ...".
        tolerance_mm: Of NSD.
        window: The HU window of Table I.
        pictures: The figures; they are put into the file.
        leaks: The phase-leak check; None if there was none.
        left_out: Studies that were not evaluated by reason, as in "Left out, since ...".
        notice: What a reader must know first, such as that these are phantoms.
        segmentation_notice: What must be said wherever the segmenter's results are.
        provenance: The record of the evaluation, as JSON values.
    """

    target: Phase
    split: str
    degradation: str
    cases: Sequence[Case]
    image_tables: Sequence[MetricTable]
    methods: Mapping[str, str]
    overlap_tables: Sequence[MetricTable] = ()
    structure: str = "pancreas"
    truth: str = "the reference mask"
    tolerance_mm: float = 3.0
    window: Window = ABDOMEN
    pictures: Sequence[Picture] = ()
    leaks: LeakSection | None = None
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notice: str = ""
    segmentation_notice: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def studies(self) -> int:
        """How many studies were evaluated."""
        return len(studies_of(self.cases))

    @property
    def target_name(self) -> str:
        """The target phase in a sentence: `portal venous`."""
        return self.target.replace("_", " ")

    @property
    def structure_name(self) -> str:
        """The structure in a sentence: `portal vein and splenic vein`."""
        return self.structure.replace("_", " ")
