"""The command that degrades a scan, by a draw of a preset or by a record."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from mpfnl.cli.options import Sharing
from mpfnl.errors import InputError

if TYPE_CHECKING:
    from mpfnl.transforms.degradation import Operation
    from mpfnl.volumes import Volume

DrawnPhase: TypeAlias = Literal["noncontrast", "arterial", "portal_venous", "delayed"]
Json: TypeAlias = dict[str, Any]

_DEFAULTS: Json = {
    "preset": "paper",
    "seed": 0,
    "phase": "portal_venous",
    "study": "",
    "sharing": "nothing",
}  # None in the signature, so that what was said beside --replay can be told from what was not
_SPACING = "spacing_mm"
_SAME_SPACING = 1e-3  # of the spacing: what file formats round


def degrade(
    scan: Path,
    *,
    output: Path,
    preset: str | None = None,
    seed: int | None = None,
    phase: DrawnPhase | None = None,
    study: str | None = None,
    sharing: Sharing | None = None,
    record: Path | None = None,
    replay: Path | None = None,
) -> None:
    """Degrade one scan: by a draw of a preset, or exactly as recorded.

    The result has the scan's grid and number type, in HU. With --seed, --phase and --study it is the degraded
    scan that mpfnl evaluate makes of that study, where the scan holds whole numbers.

    Args:
        scan: The scan in HU: NIfTI, NRRD, MetaImage or a DICOM folder.
        output: The degraded scan to write, .nii.gz or .nii.
        preset: What to draw from; paper if not given. Others are mild, severe, low-dose, thick-slices,
            motion, metal, and the names under which they are recorded.
        seed: Of the draw; 0 if not given.
        phase: Whose draw it is; portal_venous if not given.
        study: Whose draw it is: the study's name in a manifest; none if not given.
        sharing: What the phases of a study have in common: nothing (if not given) or the acquisition.
        record: A .json file to write what was drawn into.
        replay: A record to apply in place of a draw.
    """
    from mpfnl.volumes import read_volume
    from mpfnl.volumes.writing import check_output

    drawn_by = {"preset": preset, "seed": seed, "phase": phase, "study": study, "sharing": sharing}
    given = [name for name, value in (drawn_by | {"record": record}).items() if value is not None]
    if replay is None:
        check_output(output, [scan])
        if record is not None:
            _check_record(record, [scan, output])
        parameters = _drawn(**_DEFAULTS | {name: drawn_by[name] for name in given if name != "record"})
        volume = read_volume(scan)
        _write(output, record, volume, parameters, f"--preset {preset or _DEFAULTS['preset']}")
        return
    if given:
        options = ", ".join(f"--{name}" for name in given)
        raise InputError(f"--replay {replay}: a record says everything; leave out {options}")
    check_output(output, [scan, replay])
    parameters = _read_record(replay)
    volume = read_volume(scan)
    _tell_other_spacing(replay, parameters, volume)
    _write(output, None, volume, parameters, str(replay))


def _drawn(preset: str, seed: int, phase: str, study: str, sharing: str) -> Json:
    """Draws, and notes what decided it."""
    from mpfnl import __version__
    from mpfnl.transforms.degradation import find_preset, sample_parameters
    from mpfnl.transforms.seeds import Sharing, phase_draws

    if seed < 0:
        raise InputError(f"--seed {seed}: give 0 or more")
    draws = phase_draws(seed, 0, study, phase, sharing=Sharing(sharing))
    drawn = sample_parameters(find_preset(preset), draws)
    decided = {"seed": seed, "phase": phase, "study": study, "sharing": sharing}
    return drawn | decided | {"mpfnl": __version__}


def _check_record(record: Path, others: Sequence[Path]) -> None:
    """Refuses a place for the record before any work is done."""
    if record.suffix.lower() != ".json":
        raise InputError(f"{record}: a record's name must end in .json; choose another name")
    if record.is_dir():
        raise InputError(f"{record}: the record is a folder; give the name of a file in it")
    for other in others:
        if record.resolve() == other.resolve() or (
            record.exists() and other.exists() and record.samefile(other)
        ):
            raise InputError(f"{record}: the record is the input or the output ({other}); choose another")
    if not record.parent.is_dir():
        raise InputError(f"{record}: the folder {record.parent} does not exist; make it first")
    if not os.access(record.parent, os.W_OK):
        raise InputError(f"{record}: the folder {record.parent} is read-only; choose another place")


def _read_record(path: Path) -> Json:
    """Reads a record and checks its operations.

    Raises:
        InputError: It is missing, no JSON, or no record of a degradation.
    """
    from mpfnl.transforms.degradation import operations_of

    try:
        parameters = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such record; mpfnl degrade --record writes one") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); give a record") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no JSON ({error}); give what mpfnl degrade --record wrote") from error
    if not isinstance(parameters, dict):
        raise InputError(f"{path}: is no record of a degradation; give what mpfnl degrade --record wrote")
    try:
        operations_of(parameters)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return parameters


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it holds {name}")


def _tell_other_spacing(record: Path, parameters: Mapping[str, Any], volume: Volume) -> None:
    recorded = parameters.get(_SPACING)
    if not isinstance(recorded, list) or not all(isinstance(step, (int, float)) for step in recorded):
        return
    same = len(recorded) == 3 and all(
        math.isclose(one, other, rel_tol=_SAME_SPACING)
        for one, other in zip(recorded, volume.spacing, strict=True)
    )
    if not same:
        print(
            f"{record}: was recorded at a spacing of {_by(recorded)} mm and is applied to one of"
            f" {_by(volume.spacing)} mm: the mm and HU are the same, the voxels' values are not"
        )


def _write(output: Path, record: Path | None, volume: Volume, parameters: Json, source: str) -> None:
    """Degrades and writes: scan and record, or neither."""
    from mpfnl.files import atomic_file
    from mpfnl.transforms.degradation import operations_of
    from mpfnl.volumes import write_volume

    hu = _degraded(volume, parameters, source)
    if record is None:
        write_volume(output, hu, like=volume)
    else:
        text = _as_text(parameters | {_SPACING: [round(step, 6) for step in volume.spacing]})
        with atomic_file(record) as file:
            file.write(text.encode())
            write_volume(output, hu, like=volume)
    operations = operations_of(parameters)
    preset = parameters.get("preset")
    name = preset if isinstance(preset, str) else "no preset"
    count = f"{len(operations)} operation{'' if len(operations) == 1 else 's'}"
    also = "" if record is None else f" (recorded in {record})"
    print(f"{output}: {name}, {count}: {in_words(operations)}{also}")


def _degraded(volume: Volume, parameters: Json, source: str) -> Any:
    import numpy as np
    import torch

    from mpfnl.transforms.degradation import apply_parameters

    hu = torch.from_numpy(volume.data.astype(np.float32))
    try:
        degraded = apply_parameters(hu, volume.spacing, parameters).numpy()
    except InputError:
        raise
    except (ValueError, MemoryError) as error:  # the operation takes its numbers, the scan does not bear them
        raise InputError(f"{source}: cannot be applied to {volume.name} ({error})") from error
    if not np.isfinite(degraded).all():
        raise InputError(f"{source}: gives voxels that are no numbers; look for numbers too large in it")
    return degraded


def _as_text(parameters: Json) -> str:
    """Readable JSON: indented, an operation's numbers side by side."""
    operations = ",\n".join(f"    {json.dumps(operation)}" for operation in parameters["operations"])
    others = {name: value for name, value in parameters.items() if name != "operations"}
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in others.items()]
    listed = f"[\n{operations}\n  ]" if operations else "[]"
    return "{\n" + ",\n".join([*lines, f'  "operations": {listed}']) + "\n}\n"


def in_words(operations: Sequence[Operation]) -> str:
    """Operations for people: "blur 1.4 mm, noise 25 HU".

    Args:
        operations: In the order in which they apply.
    """
    return ", ".join(_words(operation) for operation in operations) or "nothing was drawn"


def _words(operation: Operation) -> str:
    from mpfnl.transforms.degradation import (
        Blur,
        Clip,
        GaussianNoise,
        LowDose,
        MetalStreaks,
        MotionBlur,
        PoissonNoise,
        Resize,
        ThickSlices,
    )

    match operation:
        case Clip(lower_hu=lower, upper_hu=upper):
            return f"clip to [{lower:g}, {upper:g}] HU"
        case Blur(fwhm_mm=widths):
            return f"blur {_by(widths[:1] if len(set(widths)) == 1 else widths)} mm"
        case Resize(voxel_mm=voxel):
            return f"voxels of {_by(voxel)} mm and back"
        case GaussianNoise(sd_hu=sd):
            return f"noise {sd:.3g} HU"
        case PoissonNoise(sd_water_hu=sd):
            return f"Poisson noise {sd:.3g} HU"
        case LowDose(dose_fraction=dose):
            return f"{100 * dose:.3g} % of the dose"
        case ThickSlices(thickness_mm=thickness, increment_mm=increment, profile=profile):
            return f"{profile} slices of {thickness:.3g} mm every {increment:.3g} mm"
        case MotionBlur(amplitude_mm=way, double_exposure=share):
            doubled = f" with {100 * share:.3g} % double exposure" if share else ""
            return f"motion {_by(way)} mm{doubled}"
        case MetalStreaks(implants=implants, streak_hu=strength):
            count = f"{len(implants)} implant{'' if len(implants) == 1 else 's'}"
            return f"{count} with streaks of {strength:.3g} HU"
        case _:
            return operation.kind.replace("_", " ")


def _by(lengths: Sequence[float]) -> str:
    return " x ".join(f"{length:.3g}" for length in lengths)
