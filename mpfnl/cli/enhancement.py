"""The command that enhances one patient's scan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mpfnl.cli.options import Precision, chosen_device, chosen_precision
from mpfnl.errors import InputError

if TYPE_CHECKING:
    from mpfnl.inference.tiling import Tiling
    from mpfnl.models.enhancement import EnhancementModule
    from mpfnl.phases import Phase
    from mpfnl.volumes.dicom.derivation import Derivation

IMAGE_SUFFIXES = (".nii", ".gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm", ".ima", ".hdr", ".img", ".raw")


def enhance(
    *,
    weights: str,
    output: Path,
    portal_venous: Path | None = None,
    arterial: Path | None = None,
    noncontrast: Path | None = None,
    delayed: Path | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    max_memory: float | None = None,
    self_ensemble: bool = False,
    device: str = "auto",
    precision: Precision = "auto",
) -> None:
    """Enhance one patient's scan.

    The result has the target phase's grid and number type, in HU, and opens on top of it. Bone, gas and
    whatever else truly lies outside of the window [-175, 275] HU keep the input's values. Which phases are
    used and how much memory it takes is said before the start. NIfTI files are read and written slab by slab,
    however long they are.

    Args:
        weights: The model: a weights folder, a Lightning checkpoint, the name of shipped weights, or
            owner/name on the Hugging Face Hub.
        output: The enhanced scan to write: a .nii.gz or .nii file, or a folder for a DICOM series derived
            from the scan that is enhanced, which must be DICOM then.
        portal_venous: The portal venous scan in HU: NIfTI, NRRD, MetaImage or a DICOM folder.
        arterial: The arterial scan on the same grid, where the model takes it.
        noncontrast: The non-contrast scan on the same grid, where the model takes it.
        delayed: The delayed scan on the same grid, where the model takes it.
        tile: Edge of the tiles in voxels that the volume is cut into; if not given the size of the model's
            training patches (64 where it is unknown), or less where memory does not suffice.
        overlap: Voxels shared by neighbouring tiles; if not given as many as the model needs.
        max_memory: GB (1e9 bytes) that this process may hold; if not given 0.8 of what is free.
        self_ensemble: Take the mean over eight orientations of each tile; eight times the work.
        device: auto, cpu, cuda or cuda:N; auto takes a GPU where there is one.
        precision: auto, bf16 or fp32; auto takes bf16 where the device computes in it.
    """
    from mpfnl.inference.enhancement import EnhanceOptions, open_study
    from mpfnl.models.loading import load_model
    from mpfnl.networks.capabilities import network_capabilities
    from mpfnl.phases import Phase
    from mpfnl.volumes.dicom.derived import check_derived_output, derived_series_writer
    from mpfnl.volumes.writing import check_output

    given = {
        Phase.NONCONTRAST: noncontrast,
        Phase.ARTERIAL: arterial,
        Phase.PORTAL_VENOUS: portal_venous,
        Phase.DELAYED: delayed,
    }
    files = {phase: file for phase, file in given.items() if file is not None}
    as_dicom = _is_folder(output)
    if not as_dicom:
        check_output(output, files.values())
    model = load_model(weights).to(chosen_device(device))
    if as_dicom and network_capabilities(model.network).scale > 1:
        raise InputError(
            f"{output}: a DICOM series is written on its source's grid, and the result of this"
            f" {type(model).__name__} lies on a finer one; give the name of a .nii.gz file"
        )
    if as_dicom and model.target in files:
        check_derived_output(output, files[model.target])
    unused = [phase for phase in files if phase not in model.phases]
    if unused:
        print(f"this {type(model).__name__} does not take: {', '.join(unused)}")
    options = EnhanceOptions(
        _chosen_tiling(model, tile, overlap),
        chosen_precision(precision),
        progress=True,
        self_ensemble=self_ensemble,
        max_memory=_bytes(max_memory),
    )
    sources = {phase: file for phase, file in files.items() if phase not in unused}
    with open_study(model, sources, options, keeps_result=False) as study:
        print("\n".join(study.lines), flush=True)
        if as_dicom:
            about = _derivation(model, weights, study.selection.phases, self_ensemble=self_ensemble)
            with derived_series_writer(output, files[model.target], about) as writer:
                for _, slab in study.slabs():
                    writer.write(slab)
        else:
            study.write(output)
    sides = "x".join(map(str, study.grid.shape))
    kind = "DICOM series, with the source's patient data, " if as_dicom else ""
    print(f"{output}: {kind}{model.target.replace('_', ' ')} phase, {sides} voxels")


def _is_folder(output: Path) -> bool:
    """Whether a name is meant for a folder: it ends like no image file."""
    return not output.name.lower().endswith(IMAGE_SUFFIXES)


def _derivation(
    model: EnhancementModule, weights: str, phases: tuple[Phase, ...], *, self_ensemble: bool
) -> Derivation:
    """What the DICOM series says of how it was made."""
    from mpfnl import __version__
    from mpfnl.files import file_digest
    from mpfnl.models.pretrained import WEIGHTS
    from mpfnl.models.sources import find_weights
    from mpfnl.volumes.dicom.derivation import Derivation

    path = Path(weights)
    digest = file_digest(path if path.is_file() else find_weights(weights) / WEIGHTS)
    record = model.training_record
    remarks = [
        "Enhanced by a neural network",
        "mean over eight orientations" if self_ensemble else "",
        "trained on phantoms, not on patients" if record is not None and record.saw_phantoms else "",
    ]
    return Derivation(type(model).__name__, digest, __version__, phases, ", ".join(filter(None, remarks)))


def _chosen_tiling(model: EnhancementModule, tile: int | None, overlap: int | None) -> Tiling | None:
    """The tiling of `--tile` and `--overlap`; None leaves it to the model."""
    from mpfnl.inference.tiling import network_tiling

    if tile is None and overlap is None:
        return None
    try:
        return network_tiling(model.network, model.patch_size if tile is None else tile, overlap)
    except ValueError as error:
        raise InputError(f"--tile {tile} --overlap {overlap}: {error}") from None


def _bytes(gigabytes: float | None) -> int | None:
    from mpfnl.inference.memory import GB

    if gigabytes is None:
        return None
    if not gigabytes > 0:
        raise InputError(f"--max-memory {gigabytes:g}: give more than 0 GB")
    return int(gigabytes * GB)
