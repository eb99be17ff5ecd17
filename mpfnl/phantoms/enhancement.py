"""HU of each tissue in each phase, drawn for one patient.

Blood in the aorta and in the portal and splenic vein follows published aggregates over several
hundred multiphase CT studies (the percentiles below; computed from the public internal-validation
table of the CT_Phase_Identifier project, median HU of the vessel as segmented). The non-contrast
value is drawn from its own percentiles, the enhanced phases add the change measured in the same
subject. Every other tissue is drawn from the usual textbook ranges of abdominal CT at 100-120 kVp
(attenuation without contrast, in the late arterial phase at 35-40 s and in the portal venous phase
at 70 s).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from mpfnl.phases import PHASES

Phases = tuple[float, float, float]
"""HU in the order of `mpfnl.phases.PHASES`: non-contrast, arterial, portal venous."""

PERCENT = (5.0, 25.0, 50.0, 75.0, 95.0)
"""The percentiles that the tables below give."""

NONCONTRAST_HU: dict[str, tuple[float, ...]] = {
    "aorta": (24.0, 31.0, 37.0, 41.0, 62.0),  # n = 389
    "portal_vein_and_splenic_vein": (21.0, 27.0, 32.0, 36.0, 62.0),  # n = 389
}
"""Percentiles of the non-contrast HU over subjects."""

ARTERIAL_CHANGE_HU: dict[str, tuple[float, ...]] = {
    "aorta": (104.7, 179.8, 225.5, 284.5, 361.8),  # n = 140
    "portal_vein_and_splenic_vein": (15.0, 30.0, 45.0, 64.0, 102.0),  # n = 140
}
"""Percentiles of arterial minus non-contrast HU in the same subject."""

PORTAL_VENOUS_CHANGE_HU: dict[str, tuple[float, ...]] = {
    "aorta": (48.6, 66.5, 82.0, 93.8, 107.3),  # n = 114
    "portal_vein_and_splenic_vein": (54.6, 88.0, 105.5, 119.0, 136.0),  # n = 114
}
"""Percentiles of portal venous minus non-contrast HU in the same subject."""

# Textbook ranges, as (mean, standard deviation) without contrast and of the change in each phase.
_TISSUES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "liver": ((55, 6), (12, 5), (54, 8)),
    "spleen": ((46, 3), (72, 14), (74, 8)),
    "pancreas": ((40, 5), (58, 11), (50, 8)),
    "kidney_cortex": ((32, 3), (130, 18), (150, 14)),
    "kidney_medulla": ((31, 3), (36, 9), (112, 14)),
    "urine": ((6, 3), (0, 1), (1, 1)),
    "bile": ((8, 5), (0, 1), (1, 1)),
    "gallbladder_wall": ((35, 4), (20, 5), (35, 6)),
    "stomach_wall": ((40, 4), (35, 8), (45, 8)),
    "bowel_wall": ((38, 4), (40, 9), (55, 9)),
    "adrenal": ((30, 6), (40, 8), (45, 8)),
    "muscle": ((56, 4), (5, 2), (12, 3)),
    "disc": ((85, 8), (1, 1), (3, 1)),
    "marrow": ((165, 40), (6, 3), (14, 5)),
    "cortical_bone": ((620, 70), (0, 0), (2, 1)),
    "cord": ((34, 4), (2, 1), (5, 2)),
    "cartilage": ((95, 12), (1, 1), (4, 2)),
    "skin": ((25, 8), (4, 2), (10, 4)),
    "oesophagus": ((38, 4), (22, 6), (32, 6)),
    "fat": ((-104, 4), (0, 0.5), (1, 0.5)),
    "lung": ((-845, 25), (5, 3), (8, 4)),
    "fluid": ((12, 7), (0, 1), (0, 1)),
    "chyme": ((32, 12), (1, 1), (1, 1)),
    "stool": ((30, 18), (0, 1), (0, 1)),
    "cyst": ((6, 4), (0, 1), (1, 1)),
    "metastasis": ((40, 5), (12, 6), (28, 9)),
    "metastasis_rim": ((44, 4), (38, 10), (48, 8)),
    "hypervascular": ((46, 5), (58, 12), (42, 8)),
}


@dataclass(frozen=True)
class Enhancement:
    """The HU of every tissue in every phase, for one patient."""

    hu: dict[str, Phases]

    def __getitem__(self, tissue: str) -> Phases:
        return self.hu[tissue]

    def to_json(self) -> dict[str, dict[str, float]]:
        """Tissue to phase to HU, rounded to 0.01 HU."""
        return {
            tissue: {phase.value: round(value, 2) for phase, value in zip(PHASES, values, strict=True)}
            for tissue, values in self.hu.items()
        }


def quantile(percentiles: tuple[float, ...], u: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of the distribution that joins the percentiles by straight lines.

    Below the 5th and above the 95th percentile the neighbouring line goes on.

    Args:
        percentiles: Values at `PERCENT`.
        u: Probabilities in [0, 1].
    """
    low = percentiles[0] - (percentiles[1] - percentiles[0]) * 5 / 20
    high = percentiles[-1] + (percentiles[-1] - percentiles[-2]) * 5 / 20
    at = np.array([0.0, *PERCENT, 100.0]) / 100
    return np.asarray(np.interp(u, at, np.array([low, *percentiles, high])))


def draw_enhancement(rng: np.random.Generator) -> Enhancement:
    """Draws one patient's HU table."""
    hu = {
        name: _phases(rng.normal(*base), rng.normal(*art), rng.normal(*pv))
        for name, (base, art, pv) in _TISSUES.items()
    }
    hu.update(_blood(rng))
    aorta, portal = hu["aorta"], hu["portal_vein_and_splenic_vein"]
    nc = hu["liver"][0]  # three quarters of the liver's blood come through the portal vein
    hu["liver"] = _phases(nc, hu["liver"][1] - nc, 0.5 * (portal[2] - portal[0]) + rng.normal(3, 4))
    if rng.random() < 0.2:  # steatosis
        fatty = rng.uniform(10, 30)
        nc, art, pv = hu["liver"]
        hu["liver"] = (nc - fatty, art - fatty, pv - fatty)
    hu["hepatic_vein"] = _phases(portal[0], 0.25 * (portal[1] - portal[0]), portal[2] - portal[0] - 6)
    hu["cava_infrarenal"] = _phases(portal[0], rng.normal(12, 5), rng.normal(55, 12))
    hu["cava_suprarenal"] = _phases(portal[0], rng.normal(62, 15), 0.88 * (portal[2] - portal[0]))
    hu["renal_vein"] = _phases(portal[0], rng.normal(95, 18), portal[2] - portal[0] - 3)
    hu["heart"] = _phases(aorta[0], 0.85 * (aorta[1] - aorta[0]), 0.95 * (aorta[2] - aorta[0]))
    return Enhancement({name: (float(a), float(b), float(c)) for name, (a, b, c) in hu.items()})


def _phases(noncontrast: float, arterial_change: float, portal_venous_change: float) -> Phases:
    return (noncontrast, noncontrast + arterial_change, noncontrast + portal_venous_change)


def _blood(rng: np.random.Generator) -> dict[str, Phases]:
    """Aorta and portal vein: one blood, so their draws go together; each margin stays the table's."""
    own = rng.standard_normal((3, 2))
    shared = rng.standard_normal(3)
    together = np.array([0.9, 0.0, 0.7])[:, None]  # per phase; timing rules the arterial phase, not dose
    u = ndtr(together * shared[:, None] + np.sqrt(1 - together**2) * own)
    blood = {}
    for column, name in enumerate(NONCONTRAST_HU):
        base = float(quantile(NONCONTRAST_HU[name], u[0, column]))
        arterial = float(quantile(ARTERIAL_CHANGE_HU[name], u[1, column]))
        venous = float(quantile(PORTAL_VENOUS_CHANGE_HU[name], u[2, column]))
        blood[name] = _phases(base, arterial, venous)
    return blood
