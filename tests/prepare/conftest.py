"""Small raw studies, shared by the tests of the preparation."""

from __future__ import annotations

import pytest
from raw_studies import raw_cohort

from mpfnl.data.manifest import Manifest


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Three small raw studies. Not to be written to."""
    return raw_cohort(tmp_path_factory.mktemp("raw"), 3)
