"""What may be written down about a study: no path, as folders may be named after patients."""

from __future__ import annotations

from mpfnl.data.manifest import Study


def without_paths(study: Study, reason: str) -> str:
    """A reason without where the study's files lie: folders may be named after patients."""
    names = {str(study.file(phase).absolute()): phase.value for phase in study.phases}
    names |= {str(path.absolute()): column for column, path in study.masks.items()}
    for path in sorted(names, key=len, reverse=True):
        reason = reason.replace(path, f"<{names[path]}>")
    return reason
