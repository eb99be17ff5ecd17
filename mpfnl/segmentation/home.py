"""A home folder for TotalSegmentator that is ours: it rewrites its settings at each call."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mpfnl.errors import InputError

_PRIVATE = {
    "totalseg_id": "none",
    "send_usage_stats": False,  # on, unless told otherwise
    "prediction_counter": 0,
    "statistics_disclaimer_shown": True,
}


def make_home(folder: Path) -> None:
    """Writes settings that send no statistics; the user's own licence number is kept, where there is one.

    Raises:
        InputError: The user's own settings are damaged.
    """
    from totalsegmentator.config import get_license_number, get_totalseg_dir

    try:
        number = get_license_number()
    except ValueError:
        raise InputError(f"{get_totalseg_dir() / 'config.json'}: is damaged; delete it") from None
    settings = _PRIVATE | ({"license_number": number} if number else {})
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")


def environment(home: Path, weights: Path) -> dict[str, str]:
    """The environment of a process in which TotalSegmentator runs.

    Args:
        home: What `make_home` made.
        weights: The weights folder.
    """
    own = {"TOTALSEG_HOME_DIR": str(home), "TOTALSEG_WEIGHTS_PATH": str(weights)}
    # Waiting threads sleep: it starts more processes than there are cores.
    return {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ | own
