"""The command that enhances one patient's scan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpfnl.cli.options import Precision, torch_device, torch_precision
from mpfnl.errors import OptionError, OutputError
from mpfnl.phases import Phase

if TYPE_CHECKING:
    from mpfnl.inference.enhancement import StudyEnhancement
    from mpfnl.inference.tiling import Tiling
    from mpfnl.models.enhancement import EnhancementModule
    from mpfnl.volumes.dicom.provenance import Derivation

IMAGE_SUFFIXES = (".nii", ".gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm", ".ima", ".hdr", ".img", ".raw")


def enhance(
    *,
    weights: str,
    output: Path,
    phase: list[str] | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    max_memory: float | None = None,
    self_ensemble: bool = False,
    strength: float | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> None:
    """Enhance one patient's scan.

    The result has the target phase's grid and number type, in HU, and overlays it in any viewer. Bone, gas
    and other voxels that truly lie outside of the model's HU window keep the input's values. The phases used
    and the predicted memory are printed before the start. NIfTI files are read and written slab by slab, so
    that their length hardly matters.

    Args:
        weights: Model: a weights folder, a Lightning checkpoint, the name of shipped weights, or owner/name
            on the Hugging Face Hub.
        output: Enhanced scan: a .nii.gz or .nii file, or a folder for a DICOM series; a series needs a DICOM
            scan of the target phase, from which it is derived.
        phase: Scan of each phase in HU as NAME=FILE, all on one grid: NIfTI, NRRD, MetaImage or a DICOM
            folder. Phases that the model does not take are not read.
        tile: Edge of the tiles in voxels; by default that of the model's training patches (64 if unknown), or
            less if memory is short.
        overlap: Voxels shared by neighbouring tiles; by default the number that suits the model.
        max_memory: Memory limit of this process in GB (1e9 bytes); by default 0.8 of the free memory.
        self_ensemble: Mean over eight orientations of each tile; eight times the work.
        strength: Share of the enhanced scan in the result, from 0 (the input) to 1 (the network's result); by
            default 1, or less where the scan is as good as the model's references.
        device: Device: auto, cpu, cuda or cuda:N; auto is a GPU if there is one.
        precision: Number type: auto, bf16 or fp32; auto is bf16 if the device computes in it.
    """
    from mpfnl.inference.enhancement import EnhanceOptions, open_study
    from mpfnl.models.loading import load_model
    from mpfnl.networks.capabilities import network_capabilities
    from mpfnl.volumes.dicom.derived import check_derived_output, derived_series_writer
    from mpfnl.volumes.orientation import in_stored_order
    from mpfnl.volumes.writing import check_output

    files = phase_files(phase or [])
    as_dicom = _is_folder(output)
    if not as_dicom:
        check_output(output, files.values())
    model = load_model(weights).to(torch_device(device))
    if as_dicom and network_capabilities(model.network).scale > 1:
        raise OutputError(
            f"{output}: a DICOM series is written on its source's grid, and the result of this"
            f" {model.name} lies on a finer one; give the name of a .nii.gz file"
        )
    if as_dicom and model.target in files:
        check_derived_output(output, files[model.target])
    sources = {name: file for name, file in files.items() if name in model.phases}
    if len(sources) < len(files):
        unused = ", ".join(name.label for name in files if name not in sources)
        print(f"this {model.name} does not take: {unused}")
    options = EnhanceOptions(
        _model_tiling(model, tile, overlap),
        torch_precision(precision),
        progress=True,
        self_ensemble=self_ensemble,
        max_memory=_bytes(max_memory),
        strength=strength,
    )
    with open_study(model, sources, options, keeps_result=False) as study:
        print("\n".join(study.lines), flush=True)
        if as_dicom:
            about = _derivation(model, study, self_ensemble=self_ensemble)
            with derived_series_writer(output, files[model.target], about) as series:
                writer = in_stored_order(series, study.grid)
                for _, slab in study.slabs():
                    writer.write(slab)
        else:
            study.write(output)
    sides = "x".join(map(str, (study.grid.stored or study.grid).shape))
    kind = "DICOM series, with the source's patient data, " if as_dicom else ""
    print(f"{output}: {kind}{model.target.label} phase, {sides} voxels")


def phase_files(words: Sequence[str]) -> dict[Phase, Path]:
    """The scans of `--phase NAME=FILE ...` by phase.

    Raises:
        OptionError: If a word has another form, or a phase is unknown or named twice.

    >>> phase_files(["arterial=a.nii.gz"])[Phase.ARTERIAL].name
    'a.nii.gz'
    """
    files: dict[Phase, Path] = {}
    for word in words:
        name, equals, file = word.partition("=")
        if not equals or not file:
            raise OptionError(f"--phase {word}: give NAME=FILE")
        if name not in list(Phase):
            raise OptionError(f"--phase {word}: no such phase; the phases are {', '.join(Phase)}")
        if Phase(name) in files:
            raise OptionError(f"--phase {word}: the phase is named twice; the phases are {', '.join(Phase)}")
        files[Phase(name)] = Path(file)
    return files


def _is_folder(output: Path) -> bool:
    """Whether a name means a folder: it has no suffix of an image file."""
    return not output.name.lower().endswith(IMAGE_SUFFIXES)


def _derivation(model: EnhancementModule, study: StudyEnhancement, *, self_ensemble: bool) -> Derivation:
    """The derivation that the DICOM series states."""
    from mpfnl import __version__
    from mpfnl.volumes.dicom.provenance import Derivation

    record = model.training_record
    remarks = [
        "Enhanced by a neural network",
        "mean over eight orientations" if self_ensemble else "",
        f"{1 - study.restorer.strength:.0%} of the measured scan" if study.restorer.strength < 1 else "",
        "" if record is None else record.origin,
    ]
    description = ", ".join(filter(None, remarks))
    digest = "" if model.source is None else model.source.sha256
    return Derivation(model.name, digest, __version__, study.selection.phases, description)


def _model_tiling(model: EnhancementModule, tile: int | None, overlap: int | None) -> Tiling | None:
    """The tiling of `--tile` and `--overlap`; None for the model's own."""
    from mpfnl.inference.tiling import network_tiling

    if tile is None and overlap is None:
        return None
    try:
        return network_tiling(model.network, model.patch_size if tile is None else tile, overlap)
    except ValueError as error:
        raise OptionError(f"--tile {tile} --overlap {overlap}: {error}") from None


def _bytes(gigabytes: float | None) -> int | None:
    from mpfnl.inference.memory import GB

    if gigabytes is None:
        return None
    if not gigabytes > 0:
        raise OptionError(f"--max-memory {gigabytes:g}: give more than 0 GB")
    return int(gigabytes * GB)
