"""Fine-tunes the shipped networks on patients and phantoms: python benchmarks/patients.py PREPARED FOLDER.

`PREPARED` is the folder `studies` that `mpfnl prepare` made of the real multiphase studies. The training
set holds them at their own voxels and averaged to 3 mm, and phantoms with lesions, whose targets have
hardly any noise. Each scan is degraded by `mixed`, and small lesions and vessels are inserted into each
patch. `--leave-out PATIENT` trains without a patient and evaluates the patient's studies, at both voxel
sizes, with the degradations of `--presets`; it may be repeated. `--ship` trains on all patients and writes
the weights to the package. An interrupted training continues from the last epoch.

Rows of FOLDER/patients.csv: one study, voxel size, degradation and method; PSNR of the whole volume and of
the part that all phases cover (eroded by 10 mm), RMSE in the body, edges, and the part that is covered.
`--noise` writes FOLDER/patients_noise.csv: the noise of each scan, and the strength that follows from it.
"""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import REPOSITORY, provenance, write_csv
from numpy.typing import NDArray
from scipy import ndimage

from mpfnl.data.degradation import SampleSettings, degrade_study
from mpfnl.data.manifest import Split, SplitCounts, Study, read_manifest, write_manifest
from mpfnl.data.studies import load_study
from mpfnl.experiments.budget import Machine, TrainingBudget
from mpfnl.experiments.candidates import SMALL_CLIP, Candidate, LearningRate
from mpfnl.experiments.training import TrainingRun, TrainingSet
from mpfnl.inference.hounsfield import noise_sd
from mpfnl.inference.strength import noise_strength
from mpfnl.inference.tiling import Tiling
from mpfnl.losses import ContrastLoss
from mpfnl.models import EnhancementModule, TrainingRecord
from mpfnl.models.loading import load_model
from mpfnl.phantoms import PhantomConfig, write_cohort
from mpfnl.phantoms.config import SMALL, THREE_MM
from mpfnl.phases import PHASES, Phase
from mpfnl.samples import ReferenceNoise
from mpfnl.transforms.degradation import find_preset
from mpfnl.transforms.insertion import StructureInsertion
from mpfnl.volumes import Volume, read_volume, write_volume
from mpfnl.window import ABDOMEN, BODY_HU, COVERED_FROM_HU, UNCOVERED_HU

SEEDS = {"three-mm": 7109, "fine": 7110}
"""Of the phantoms; the first is that of patches and degradation, too."""
COMMON: dict[str, Any] = {"misalignment": 0.2, "noise_hu": (0.0, 3.0), "liver_lesion_probability": 1.0}
CONFIGS: dict[str, PhantomConfig] = {
    "three-mm": replace(THREE_MM, **COMMON),
    "fine": replace(SMALL, in_plane_mm=(1.4, 2.2), slice_mm=(2.0, 3.0), **COMMON),
}
COUNTS = {"three-mm": SplitCounts(train=24, val=2, test=0), "fine": SplitCounts(train=12, val=2, test=0)}
PATCH = 24
TIMES = 3  # a patient's scans are as many studies
COARSE_MM = 3.0
PHASE_DROPOUT = 0.25
RATE = LearningRate(1e-3, warm_up=0.1, betas=(0.95, 0.99), method="muon")
STARTS = {"PFNL3D": "pfnl3d-phantoms", "RCAN3D": "rcan3d-phantoms"}
DATA = (
    "non-contrast, arterial and portal venous CT of 4 patients with liver cancer (6 studies) of the "
    "HCC-TACE-Seg collection, The Cancer Imaging Archive (Moawad et al., 2021), doi 10.7937/TCIA.5FNA-0924, "
    "CC BY 4.0, changed (cropped, registered, averaged to coarser voxels); and phantoms of mpfnl (simulated "
    "anatomy and contrast)"
)
NOTES = (
    "Four patients, all with cirrhosis and liver cancer, of one collection: no clinical evidence. Where the "
    "weights are used, cite Moawad et al. (doi 10.7937/TCIA.5FNA-0924), Morshid et al. 2019 (doi "
    "10.1148/ryai.2019180021) and Clark et al. 2013 (doi 10.1007/s10278-013-9622-7). The network is far "
    "smaller than the paper's."
)
PRESETS = ("none", "mild", "paper", "severe")
EVALUATION_SEED = 20
TILING = Tiling(64, 16)  # half the time of tiles of the training patches' size


def coarse(volume: Volume) -> Volume:
    """A scan averaged to voxels of 3 mm; a voxel that the scan covers by less than 95 % is not covered."""
    factors = np.array(volume.spacing) / COARSE_MM
    covered = (volume.data >= COVERED_FROM_HU).astype(np.float32)
    sigma = [max(0.0, 0.5 * np.sqrt(1 / f**2 - 1)) if f < 1 else 0.0 for f in factors]
    smooth = ndimage.gaussian_filter(np.where(covered > 0, volume.data, 0).astype(np.float32), sigma)
    weight = ndimage.gaussian_filter(covered, sigma)
    shape = np.floor(np.array(volume.shape) * factors).astype(int)
    place = [(np.arange(n) + 0.5) / f - 0.5 for n, f in zip(shape, factors, strict=True)]
    grid = np.meshgrid(*place, indexing="ij")
    hu = ndimage.map_coordinates(smooth / np.maximum(weight, 1e-3), grid, order=1, mode="nearest")
    share = ndimage.map_coordinates(weight, grid, order=1, mode="nearest")
    affine = volume.affine @ np.diag([*(1 / factors), 1.0])
    affine[:3, 3] = (volume.affine @ np.array([*(0.5 / factors - 0.5), 1.0]))[:3]
    data = np.where(share < 0.95, UNCOVERED_HU, np.rint(hu)).astype(np.int16)
    return Volume.from_array(data, affine)


def real_studies(prepared: Path, folder: Path) -> list[Study]:
    """The prepared studies at both voxel sizes, with the phases that each has."""
    studies = []
    for place in sorted(path.parent for path in prepared.glob(f"*/{Phase.PORTAL_VENOUS}.nii")):
        for size in ("own", "3mm"):
            scans = {}
            for phase in PHASES:
                source = place / f"{phase}.nii"
                if not source.exists():
                    continue
                file = folder / f"{place.name}-{size}" / f"{phase}.nii"
                scans[phase] = file
                if file.exists():
                    continue
                volume = read_volume(source)
                volume = coarse(volume) if size == "3mm" else volume
                file.parent.mkdir(parents=True, exist_ok=True)
                write_volume(file, volume.data, like=volume, dtype=np.dtype(np.int16))
            patient = "HCC_" + place.name[3:6]
            studies.append(Study(f"{place.name}-{size}", patient, Split.TRAIN, scans))
    return studies


def phantom_studies(folder: Path) -> list[Study]:
    """The phantoms, made where they are not there."""
    studies: list[Study] = []
    for name, config in CONFIGS.items():
        cohort = folder / name / "cohort.csv"
        if not cohort.exists():
            count = len(COUNTS[name].assignment())
            write_cohort(folder / name, count, SEEDS[name], config, COUNTS[name], progress=True)
        studies += read_manifest(cohort)
    return studies


def training_set(folder: Path, real: Sequence[Study], phantoms: Sequence[Study], name: str) -> TrainingSet:
    """Real studies several times, and phantoms, in one manifest."""
    repeated = [
        replace(study, study_id=f"{study.study_id}-{time}") for study in real for time in range(TIMES)
    ]
    manifest = write_manifest(folder / f"{name}.csv", [*repeated, *phantoms])
    return TrainingSet(read_manifest(manifest.path), find_preset("mixed"), StructureInsertion())


def candidate(network: str, name: str) -> Candidate:
    """The shipped network, to be fine-tuned."""
    settings: dict[str, Any] = {"loss": ContrastLoss()}
    if network == "PFNL3D":
        settings["phase_dropout"] = PHASE_DROPOUT
    make = partial(EnhancementModule.from_pretrained, STARTS[network], **settings)
    return Candidate(name, make, RATE, SMALL_CLIP, STARTS[network])


def train(data: TrainingSet, folder: Path, network: str, name: str, steps: int) -> Path:
    """Trains one network for about a number of steps, an epoch being 300."""
    per_study = max(1, 600 // len(data.studies))
    budget = TrainingBudget(
        epochs=1, patches_per_study=per_study, batch_size=2, patch_size=PATCH, seed=SEEDS["three-mm"]
    )
    epochs = max(1, steps // budget.steps_per_epoch(len(data.studies)))
    machine = Machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"), workers=0)
    run = TrainingRun(candidate(network, name), data, folder, replace(budget, epochs=epochs), machine)
    print(run.train(), flush=True)
    return run.weights


def ship(network: str, weights: Path, real: Sequence[Study]) -> Path:
    """Writes trained weights to the package, with their data, attribution and the noise of the references."""
    model = load_model(weights)
    patients = len({study.patient_id for study in real})
    model.training_record = replace(
        model.training_record or TrainingRecord(),
        data=DATA,
        notes=NOTES,
        patients=patients,
        reference_noise=reference_noise(real),
    )
    folder = REPOSITORY / "mpfnl" / "models" / "shipped" / f"{network.lower()}-patients"
    return model.save_pretrained(folder)


def reference_noise(real: Sequence[Study]) -> ReferenceNoise:
    """The noise of the targets as a power of the voxel volume, by least squares of the logarithms."""
    noise, volume = [], []
    for study in real:
        scan = read_volume(study.file(Phase.PORTAL_VENOUS))
        noise.append(noise_sd(scan.data, ABDOMEN))
        volume.append(float(np.prod(scan.spacing)))
    slope, offset = np.polyfit(np.log(np.array(volume) / 27.0), np.log(noise), 1)
    return ReferenceNoise(round(float(np.exp(offset)), 2), round(float(-slope), 3))


def evaluate(
    studies: Sequence[Study], models: Mapping[str, EnhancementModule], presets: Sequence[str]
) -> Iterator[dict[str, object]]:
    """Rows of each study, degradation and method."""
    for study in studies:
        for preset in presets:
            degradation = None if preset == "none" else find_preset(preset)
            settings = SampleSettings(PHASES, Phase.PORTAL_VENOUS, degradation, seed=EVALUATION_SEED)
            scans = load_study(study, settings.loaded)
            clean = scans.read(len(settings.loaded) - 1)
            degraded = degrade_study(scans, settings)
            masks = [hu >= COVERED_FROM_HU for hu in degraded.values()]
            covered = np.all([mask for mask in masks if mask.mean() > 0.01], axis=0)
            spacing = scans.grid.spacing
            inner = covered & (ndimage.distance_transform_edt(covered, sampling=spacing) > 10)
            for method, result in methods(degraded, scans.grid.affine, models):
                yield {
                    "study": study.study_id,
                    "degradation": preset,
                    "method": method,
                    "covered": round(float(covered.mean()), 3),
                    **scores(result, clean, inner, spacing),
                }


def noise_rows(studies: Sequence[Study], presets: Sequence[str]) -> Iterator[dict[str, object]]:
    """The noise of each study and degradation, and the strength that follows from it."""
    reference = reference_noise(studies)
    for study in studies:
        for preset in presets:
            degradation = None if preset == "none" else find_preset(preset)
            target = Phase.PORTAL_VENOUS
            settings = SampleSettings((target,), target, degradation, seed=EVALUATION_SEED)
            scans = load_study(study, settings.loaded)
            noise = noise_sd(degrade_study(scans, settings)[target], ABDOMEN)
            yield {
                "study": study.study_id,
                "degradation": preset,
                "noise_hu": round(noise, 1),
                "references_hu": round(reference.at(float(np.prod(scans.grid.spacing))), 1),
                "strength": noise_strength(noise, scans.grid.spacing, reference),
            }


def methods(
    degraded: Mapping[Phase, NDArray[np.int16]], affine: NDArray[Any], models: Mapping[str, EnhancementModule]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """The degraded scan, and each network's; that of several phases also with the portal venous one alone."""
    target = Phase.PORTAL_VENOUS
    yield "degraded", degraded[target]
    there = {
        str(phase): Volume.from_array(hu, affine)
        for phase, hu in degraded.items()
        if (hu >= COVERED_FROM_HU).mean() > 0.01
    }
    for name, model in models.items():
        if len(model.phases) > 1:
            yield (
                f"{name} portal venous",
                model.enhance({str(target): there[str(target)]}, tiling=TILING).data,
            )
            if len(there) > 1:
                yield name, model.enhance(there, tiling=TILING).data
        else:
            yield name, model.enhance({str(target): there[str(target)]}, tiling=TILING).data


def scores(
    result: NDArray[Any], clean: NDArray[np.int16], inner: NDArray[np.bool_], spacing: Sequence[float]
) -> dict[str, float]:
    """PSNR in the window, overall and where all phases cover; RMSE in the body; sharpness of its edges."""
    found, reference = (np.clip(hu.astype(np.float32), -175, 275) for hu in (result, clean))
    error = found - reference
    body = ndimage.binary_erosion(clean > BODY_HU, iterations=2)
    slopes = [ndimage.gaussian_gradient_magnitude(hu, 1.0 / np.array(spacing)) for hu in (found, reference)]
    strong = body & (slopes[1] > np.percentile(slopes[1][body], 95))
    return {
        "psnr_db": round(_psnr(error), 3),
        "psnr_covered_db": round(_psnr(error[inner]), 3) if inner.any() else float("nan"),
        "body_rmse_hu": round(float(np.sqrt((error[body] ** 2).mean())), 2),
        "edges": round(float(np.median(slopes[0][strong] / slopes[1][strong])), 3),
    }


def _psnr(error: NDArray[Any]) -> float:
    return float(10 * np.log10(ABDOMEN.width**2 / max(float((error.astype(np.float64) ** 2).mean()), 1e-6)))


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path, help="folder of prepared studies, one folder each")
    parser.add_argument("folder", type=Path, help="for phantoms, weights, logs and results")
    parser.add_argument("--networks", nargs="+", choices=list(STARTS), default=list(STARTS))
    parser.add_argument("--leave-out", nargs="*", default=[], metavar="PATIENT")
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--steps", type=int, default=900, help="training steps of two patches (900)")
    parser.add_argument(
        "--shipped", action="store_true", help="evaluate the shipped weights, without training"
    )
    parser.add_argument("--ship", action="store_true", help="train on all patients")
    parser.add_argument("--noise", action="store_true", help="measure the noise of all scans")
    parser.add_argument("--tag", default="", help="word in the names of the weights")
    chosen = parser.parse_args()
    data = chosen.folder / "data"
    real, phantoms = real_studies(chosen.prepared, data / "real"), phantom_studies(data)
    rows: list[dict[str, object]] = []
    for patient in chosen.leave_out:
        models = {}
        for network in chosen.networks:
            if chosen.shipped:
                models[network] = load_model(STARTS[network])
                continue
            used = training_set(
                data, [s for s in real if s.patient_id != patient], phantoms, f"without-{patient}"
            )
            name = f"{network}{chosen.tag}-without-{patient}"
            models[network] = load_model(train(used, chosen.folder, network, name, chosen.steps))
        for row in evaluate([s for s in real if s.patient_id == patient], models, chosen.presets):
            rows.append({"left_out": patient, "tag": chosen.tag} | row)
            print(row, flush=True)
    if chosen.noise:
        write_csv(chosen.folder / "patients_noise.csv", list(noise_rows(real, PRESETS)), provenance())
    if rows:
        name = "shipped" if chosen.shipped else f"patients{chosen.tag}"
        write_csv(chosen.folder / f"{name}-{'-'.join(chosen.leave_out)}.csv", rows, provenance())
    if chosen.ship:
        used = training_set(data, real, phantoms, "all")
        for network in chosen.networks:
            print(ship(network, train(used, chosen.folder, network, network, chosen.steps), real))


if __name__ == "__main__":
    main()
