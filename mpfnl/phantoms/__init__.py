"""Digital phantoms: synthetic multiphase abdominal CT studies, for trials without patient data.

Results on phantoms are not evidence about patients.
"""

from typing import TYPE_CHECKING

from mpfnl.lazy import all_names, lazy_names

if TYPE_CHECKING:
    from mpfnl.phantoms.cohort import write_cohort
    from mpfnl.phantoms.config import PhantomConfig
    from mpfnl.phantoms.study import generate_study

__all__ = ["PhantomConfig", "generate_study", "write_cohort"]

_HOMES = {
    "PhantomConfig": "mpfnl.phantoms.config",
    "generate_study": "mpfnl.phantoms.study",
    "write_cohort": "mpfnl.phantoms.cohort",
}

__getattr__ = lazy_names(__name__, _HOMES)
__dir__ = all_names(__name__, _HOMES)
