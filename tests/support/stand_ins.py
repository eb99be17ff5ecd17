"""Small files in place of those that the documents name; each is made when one first asks for it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

import mpfnl
from mpfnl.cli.main import main
from mpfnl.data.manifest import read_manifest, write_manifest
from mpfnl.models.enhancement import EnhancementModule
from mpfnl.phantoms.config import SMALL
from mpfnl.phantoms.vindr import write_vindr_cohort
from mpfnl.phases import Phase
from mpfnl.volumes import read_volume, write_volume

Maker: TypeAlias = Callable[[Path, Path], None]  # gets what to write, and a small cohort's CSV

SMALL_FIT = (
    "--trainer.max_epochs=1 --trainer.accelerator=cpu --trainer.devices=1 --trainer.strategy=auto "
    "--data.patch_size=16 --data.patches_per_study=2 --data.batch_size=2 --data.workers=0"
)
SMALL_PFNL3D = "--model.features=8 --model.blocks=1"


def a_scan(phase: Phase) -> Maker:
    def make(path: Path, cohort: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(next(iter(read_manifest(cohort))).file(phase), path)

    return make


def a_cohort(path: Path, cohort: Path) -> None:
    """The small cohort with pancreas masks."""
    shutil.copytree(cohort.parent, path.parent, dirs_exist_ok=True)
    studies = []
    for study in read_manifest(path):
        scan = read_volume(study.file(Phase.PORTAL_VENOUS))
        mask = ((scan.data > 60) & (scan.data < 160)).astype(np.uint8)
        pancreas = path.parent / study.study_id / "pancreas.nii.gz"
        write_volume(pancreas, mask, like=scan, dtype=np.dtype(np.uint8))
        studies.append(replace(study, masks={**study.masks, "pancreas": pancreas}))
    write_manifest(path, studies)


def weights(network: Callable[[], EnhancementModule]) -> Maker:
    def make(path: Path, cohort: Path) -> None:
        torch.manual_seed(0)
        network().save_pretrained(path)

    return make


def small_pfnl3d() -> EnhancementModule:
    return mpfnl.PFNL3D(features=8, blocks=1)


def small_rcan3d() -> EnhancementModule:
    """It returns what it is given; with drawn weights nothing like a scan would come out."""
    model = mpfnl.RCAN3D(channels=8, groups=1, blocks=1)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.zero_()
        model.network.first.weight[0, 0, 1, 1, 1] = 1
        model.network.last.weight[0, 0, 1, 1, 1] = 1
    return model


def vindr(path: Path, cohort: Path) -> None:
    write_vindr_cohort(path, patients=3, config=replace(SMALL, misalignment=0), lacking=1)


def waw_tace(path: Path, cohort: Path) -> None:
    for number, study in enumerate(read_manifest(cohort).split("train")):
        for phase, scan in enumerate(study.scans.values()):
            (path / f"{number}").mkdir(parents=True, exist_ok=True)
            shutil.copy(scan, path / f"{number}" / f"{number}_{phase}_scan.nii.gz")


def fitted(name: str) -> Maker:
    """A file that a short run of `mpfnl fit` leaves, by its name; all come from one run."""

    def make(path: Path, cohort: Path) -> None:
        log = path.parents[1] / "log"
        words = ["fit", "--config", "pfnl3d.yaml", "--data.manifest", str(cohort), *SMALL_FIT.split()]
        words += [*SMALL_PFNL3D.split(), f"--trainer.default_root_dir={log}"]
        assert log.exists() or main(words) == 0
        (made,) = log.rglob(name)
        shutil.copy(made, path)

    return make


STAND_INS: dict[str, Maker] = {
    "nc.nii.gz": a_scan(Phase.NONCONTRAST),
    "art.nii.gz": a_scan(Phase.ARTERIAL),
    "arterial.nii.gz": a_scan(Phase.ARTERIAL),
    "pv.nii.gz": a_scan(Phase.PORTAL_VENOUS),
    "scan.nii.gz": a_scan(Phase.PORTAL_VENOUS),
    "cohort.csv": a_cohort,
    "prepared/cohort.csv": a_cohort,
    "vindr/": vindr,
    "vindr-multiphase/": vindr,
    "waw-tace/": waw_tace,
    "demo/weights/PFNL3D": weights(small_pfnl3d),
    "weights/PFNL3D": weights(small_pfnl3d),
    "pfnl3d/": weights(small_pfnl3d),
    "rcan3d/": weights(small_rcan3d),
    "config.yaml": fitted("config.yaml"),
    "last.ckpt": fitted("last.ckpt"),
}
"""By the name in the documents; a slash ends that of a folder."""

WRITTEN = re.compile(r"""(?:(?:-o|--output|--record)[ =]+|save_pretrained\(["'])([\w./-]+)""")


def named_in(text: str) -> list[str]:
    """The stand-ins that a block names and does not make itself."""
    made = [name.rstrip("/") for name in WRITTEN.findall(text)]
    named = [name for name in STAND_INS if re.search(rf"(?<![\w./-]){re.escape(name)}", text)]
    return [name for name in named if not any(f"{name.rstrip('/')}/".startswith(f"{own}/") for own in made)]


@dataclass(frozen=True)
class Shelf:
    """The stand-ins that were made so far.

    Args:
        folder: Where they are kept, each in a folder of its own.
        cohort: The small cohort's CSV.
    """

    folder: Path
    cohort: Path

    def lend(self, name: str, folder: Path) -> None:
        """Copies a stand-in, and what belongs to it, into a folder."""
        kept = self.folder / str(list(STAND_INS).index(name))
        if not kept.exists():
            (kept / name).parent.mkdir(parents=True)
            STAND_INS[name](kept / name, self.cohort)
        shutil.copytree(kept, folder, dirs_exist_ok=True)
