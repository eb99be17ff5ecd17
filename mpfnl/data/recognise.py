"""Whether a cohort holds phantoms, so that nothing made from it is taken for a result on patients."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mpfnl.data.manifest import Manifest, Study

_NAME, _RECORD = re.compile(r"phantom-\d+-\d{4,}"), "phantom.json"


def holds_phantoms(manifest: Manifest, studies: Sequence[Study]) -> bool:
    """Whether studies are phantoms of `mpfnl phantom`, by their names or the record beside the manifest.

    Args:
        manifest: The cohort.
        studies: Those of it that matter.
    """
    named = any(_NAME.fullmatch(study.study_id) for study in studies)
    return named or (manifest.path.parent / _RECORD).is_file()
