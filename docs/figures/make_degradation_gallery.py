"""Draws docs/figures/degradation_*.png: each operation of the degradation and the presets, on one scan.

The phantom is always drawn. The real scan is drawn where its folder is given.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from nibabel.orientations import apply_orientation, io_orientation
from torch import Tensor

from mpfnl.metrics.image import psnr
from mpfnl.phantoms import PhantomConfig, generate_study
from mpfnl.phantoms.config import SMALL
from mpfnl.phases import Phase
from mpfnl.plots.gallery import ENLARGED, Panel, Section, detailed_slice, gallery
from mpfnl.plots.page import small_png
from mpfnl.plots.planes import PlaneName
from mpfnl.transforms import Degradation
from mpfnl.transforms.degradation import newest_presets
from mpfnl.transforms.degradation.blur import Blur
from mpfnl.transforms.degradation.low_dose import LowDose
from mpfnl.transforms.degradation.metal import Implant, MetalStreaks
from mpfnl.transforms.degradation.motion import MotionBlur
from mpfnl.transforms.degradation.noise import GaussianNoise, PoissonNoise
from mpfnl.transforms.degradation.resampling import Resampling
from mpfnl.transforms.degradation.resize import Resize
from mpfnl.transforms.degradation.thick_slices import SliceProfile, ThickSlices
from mpfnl.transforms.seeds import phase_draws
from mpfnl.volumes import read_volume
from mpfnl.volumes.grid import Affine
from mpfnl.window import ABDOMEN, BODY_HU

SEED = 1
DRAWS = (1, 2)  # seeds
SHOWN_PRESETS = ("mild", "paper", "severe")
REAL_SCAN = Path("crlm_pv_1004") / "CRLM-CT-1004_pv_bodycrop.nii.gz"

PHANTOM = PhantomConfig(
    in_plane_mm=(1.0, 1.0), slice_mm=(2.5, 2.5), coverage_mm=(180.0, 180.0), noise_hu=(8.0, 8.0)
)
BODY_MARGIN = 6  # voxels of air that are left around the phantom's body

HOW = (
    "Window {low:g} to {high:g} HU everywhere; beside each slice its framed part, {times} times as large; "
    "the bar is 5 cm. PSNR against the original over the whole volume in that window, as in mpfnl evaluate; "
    "what touches few slices, as metal does, scores high. Low dose takes the full dose's noise to be that of "
    "thin slices. The presets' draws are those of mpfnl degrade --preset NAME --seed N. Drawn by "
    "docs/figures/make_degradation_gallery.py."
)


@dataclass(frozen=True, eq=False)
class Case:
    """A scan and where to look at it.

    Args:
        title: Title of the figure.
        source: Source of the scan, for the caption.
        hu: `(x, y, z)`, as stored.
        affine: Voxel indices to RAS+ mm.
        axial: The voxel in the middle of the axial detail, once the scan is turned to RAS and framed.
        coronal: That of the coronal one.
        screws: The middles of two pedicle screws, as shares of the box around the body, as stored.
        frame: Shown range along x and y, once the scan is turned.
    """

    title: str
    source: str
    hu: Tensor
    affine: Affine
    axial: tuple[int, int, int]
    coronal: tuple[int, int, int]
    screws: tuple[tuple[float, float, float], tuple[float, float, float]]
    frame: tuple[slice, slice] = (slice(None), slice(None))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Spacing of the voxels in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z

    def panel(self, plane: PlaneName, title: str, text: str, degraded: Tensor) -> Panel:
        """A panel of a degraded scan."""
        voxel = self.axial if plane == "axial" else self.coronal
        unit, clean = (ABDOMEN.normalize(scan)[None, None] for scan in (degraded, self.hu))
        note = "" if degraded is self.hu else f"PSNR {float(psnr(unit, clean)):.1f} dB"
        turned = apply_orientation(degraded.numpy(), io_orientation(self.affine))[self.frame]
        return Panel(title, text, note, detailed_slice(turned, self.spacing, plane, voxel))

    def alone(self, plane: PlaneName, title: str, text: str, degradation: Degradation) -> Panel:
        """A panel of one degradation."""
        return self.panel(plane, title, text, degradation.apply(self.hu, self.spacing))


def main(words: Sequence[str] | None = None) -> None:
    """Draws the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder of the pictures")
    real = os.environ.get("MPFNL_REAL_DATA")
    parser.add_argument(
        "--real",
        type=Path,
        default=Path(real) if real else None,
        help=f"folder with {REAL_SCAN}; MPFNL_REAL_DATA if not given",
    )
    parser.add_argument("--small", action="store_true", help="a small phantom, for a test")
    arguments = parser.parse_args(words)
    _draw(phantom_case(SMALL if arguments.small else PHANTOM), arguments.output / "degradation_phantom.png")
    if arguments.real is None:
        print("the real scan is left out: give its folder with --real")
    else:
        _draw(real_case(arguments.real / REAL_SCAN), arguments.output / "degradation_real.png")


def phantom_case(config: PhantomConfig) -> Case:
    """A phantom, cropped around its body."""
    study = generate_study(0, 0, config)
    scan = study.phases[Phase.PORTAL_VENOUS]
    inside = scan[:, :, scan.shape[2] // 2] > BODY_HU
    sides = [np.flatnonzero(inside.any(axis=1 - axis)) for axis in range(2)]
    box = tuple(slice(max(side[0] - BODY_MARGIN, 0), side[-1] + BODY_MARGIN + 1) for side in sides)
    hu = torch.from_numpy(scan[box].astype(np.float32))
    x, y, z = (count / 100 for count in hu.shape)  # a hundredth of each side
    return Case(
        "The degradation, on a phantom: generated by a program, not a patient",
        "Phantom 0 of seed 0, portal venous phase, voxels of "
        f"{' x '.join(f'{step:.3g}' for step in study.spacing)} mm.",
        hu,
        study.affine,
        axial=(round(49 * x), round(54 * y), round(46 * z)),
        coronal=(round(67 * x), round(43 * y), round(46 * z)),
        screws=((0.452, 0.29, 0.465), (0.544, 0.29, 0.465)),
    )


def real_case(path: Path) -> Case:
    """The real scan."""
    volume = read_volume(path)
    return Case(
        "The degradation, on a patient's portal venous CT",
        "Patient CRLM-CT-1004, portal venous phase, cropped to the body, voxels of "
        f"{' x '.join(f'{step:.3g}' for step in volume.spacing)} mm, from "
        "Colorectal-Liver-Metastases (Simpson et al., The Cancer Imaging Archive, doi 10.7937/QXK2-QG03), "
        "licence CC BY 4.0, creativecommons.org/licenses/by/4.0; changed: degraded as said at each picture.",
        torch.from_numpy(volume.data.astype(np.float32)),
        volume.affine,
        axial=(187, 160, 13),
        coronal=(242, 147, 14),
        frame=(slice(8, 376), slice(18, None)),
        screws=((0.462, 0.70, 0.356), (0.554, 0.70, 0.356)),
    )


def sections(case: Case) -> list[Section]:
    """Everything that is shown of a scan."""
    return [
        Section("One operation of the second-order model at a time", list(_second_order(case))),
        Section("What happens in a scanner: one at a time", list(_scanner(case))),
        Section("Along the body: one at a time, coronal", list(_coronal(case))),
        *_presets(case),
    ]


def _second_order(case: Case) -> list[Panel]:
    size = " x ".join(f"{step:.3g}" for step in case.spacing)
    area, linear, cubic = Resampling.AREA, Resampling.LINEAR, Resampling.CUBIC
    shown: list[tuple[str, str, Degradation]] = [
        ("Blur, isotropic", "2.2 mm FWHM", Blur((2.2, 2.2, 2.2))),
        ("Blur, anisotropic", "FWHM 4 mm left-right, 1 mm front-back, 1 mm along z", Blur((4, 1, 1))),
        ("Resize, area and linear", "to 2.8 x 2.8 x 5 mm and back", Resize((2.8, 2.8, 5), area, linear)),
        ("Resize, linear and linear", "to 2.8 x 2.8 x 5 mm and back", Resize((2.8, 2.8, 5), linear, linear)),
        ("Resize, cubic and cubic", "to 2.8 x 2.8 x 5 mm and back", Resize((2.8, 2.8, 5), cubic, cubic)),
        ("Gaussian noise", "SD 25 HU, white", GaussianNoise(25, 0, SEED)),
        ("Gaussian noise, correlated", "SD 25 HU, correlation length 0.8 mm", GaussianNoise(25, 0.8, SEED)),
        ("Poisson noise", "SD 25 HU in water, none in air, white", PoissonNoise(25, 0, SEED)),
    ]
    original = case.panel("axial", "Original", f"voxels of {size} mm", case.hu)
    return [original, *(case.alone("axial", *each) for each in shown)]


def _scanner(case: Case) -> list[Panel]:
    screws = tuple(Implant(place, (3.0, 22.0), 6.0) for place in case.screws)
    shown: list[tuple[str, str, Degradation]] = [
        ("Low dose, a quarter", "adds noise of SD 66 HU (SD of the full dose 38 HU)", LowDose(0.25, SEED)),
        ("Low dose, a tenth", "adds noise of SD 114 HU (SD of the full dose 38 HU)", LowDose(0.1, SEED)),
        ("Metal streaks", "two screws, 6 x 44 mm; SD of the streaks 35 HU", MetalStreaks(screws, 35, SEED)),
    ]
    return [case.alone("axial", *each) for each in shown]


def _coronal(case: Case) -> list[Panel]:
    rectangle, bell = SliceProfile.RECTANGLE, SliceProfile.BELL
    shown: list[tuple[str, str, Degradation]] = [
        ("Thick slices, rectangle", "10 mm thick, 10 mm apart", ThickSlices(10, 10, rectangle)),
        ("Thick slices, bell", "10 mm thick (FWHM), 10 mm apart", ThickSlices(10, 10, bell)),
        ("Thick slices, bell, overlapping", "10 mm thick (FWHM), 5 mm apart", ThickSlices(10, 5, bell)),
        ("Motion, even", "2 mm left-right, 12 mm along z", MotionBlur((2, 0, 12))),
        (
            "Motion, double exposure",
            "2 mm left-right, 12 mm along z, half of the time at each end",
            MotionBlur((2, 0, 12), 1),
        ),
    ]
    original = case.panel("coronal", "Original", f"slices {case.spacing[2]:.3g} mm apart", case.hu)
    return [original, *(case.alone("coronal", *each) for each in shown)]


def _presets(case: Case) -> list[Section]:
    rows = []
    for seed in DRAWS:
        panels = []
        for name in (name for name in SHOWN_PRESETS if name in newest_presets()):
            record = newest_presets()[name].sample(phase_draws(seed, 0, "", Phase.PORTAL_VENOUS))
            degraded = record.apply(case.hu, case.spacing)
            panels.append(case.panel("axial", f"Preset {name}, seed {seed}", record.describe(), degraded))
        rows.append(panels)
    heading = "Presets: a column each, a draw each row"
    return [Section("" if number else heading, panels) for number, panels in enumerate(rows)]


def _draw(case: Case, path: Path) -> None:
    caption = f"{case.source} {HOW.format(low=ABDOMEN.lower, high=ABDOMEN.upper, times=ENLARGED)}"
    path.write_bytes(small_png(gallery(case.title, sections(case), caption)))
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
