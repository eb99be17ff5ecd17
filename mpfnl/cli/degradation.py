"""The command that degrades a scan, by a draw from a preset or as recorded."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mpfnl.cli.options import Sharing
from mpfnl.errors import (
    DamagedError,
    FormatError,
    InputError,
    IntensityError,
    NotFoundError,
    OptionError,
    OutputError,
)
from mpfnl.phases import PhaseName

if TYPE_CHECKING:
    from mpfnl.transforms.degradation import Record
    from mpfnl.volumes import Volume

Json: TypeAlias = dict[str, Any]

_DEFAULTS: Json = {
    "preset": "paper",
    "seed": 0,
    "phase": "portal_venous",
    "study": "",
    "sharing": "nothing",
}  # None in the signature tells an option that was given beside --replay from one that was not
_SPACING = "spacing_mm"
_SAME_SPACING = 1e-3  # of the spacing: what file formats round


def degrade(
    scan: Path,
    *,
    output: Path,
    preset: str | None = None,
    seed: int | None = None,
    phase: PhaseName | None = None,
    study: str | None = None,
    sharing: Sharing | None = None,
    record: Path | None = None,
    replay: Path | None = None,
) -> None:
    """Degrade one scan by a draw from a preset, or exactly as recorded.

    The result has the scan's grid and number type, in HU. With --seed, --phase and --study it equals the
    degraded scan of that study in mpfnl evaluate, provided that the scan holds whole numbers.

    Args:
        scan: Scan in HU: NIfTI, NRRD, MetaImage or a DICOM folder.
        output: Degraded scan to write, .nii.gz or .nii.
        preset: Preset to draw from: {presets}, or the name in a record (default: paper).
        seed: Seed of the draw (default: 0).
        phase: Contrast phase of the scan (default: portal_venous).
        study: Name of the study in its manifest (default: none).
        sharing: Parameters that the phases of a study share: nothing, or those of the acquisition (default:
            nothing).
        record: JSON file to write the drawn parameters to.
        replay: Record to apply instead of a draw.
    """
    from mpfnl.volumes import read_volume
    from mpfnl.volumes.writing import check_output

    drawn_by = {"preset": preset, "seed": seed, "phase": phase, "study": study, "sharing": sharing}
    given = [name for name, value in (drawn_by | {"record": record}).items() if value is not None]
    if replay is None:
        check_output(output, [scan])
        if record is not None:
            _check_record(record, [scan, output])
        drawn = _draw(**_DEFAULTS | {name: drawn_by[name] for name in given if name != "record"})
        volume = read_volume(scan).canonical()
        _write(output, record, volume, drawn, f"--preset {preset or _DEFAULTS['preset']}")
        return
    if given:
        options = ", ".join(f"--{name}" for name in given)
        raise OptionError(f"--replay {replay}: a record is complete; leave out {options}")
    check_output(output, [scan, replay])
    recorded = _read_record(replay)
    volume = read_volume(scan).canonical()
    _warn_of_other_spacing(replay, recorded, volume)
    _write(output, None, volume, recorded, str(replay))


@dataclass(frozen=True)
class _Drawn:
    """A record, and what its file states beside the degradations."""

    record: Record
    beside: Json = field(default_factory=dict)


def preset_names() -> str:
    """The short names of the registered presets, for help texts."""
    from mpfnl.transforms.degradation import newest_presets

    return ", ".join(newest_presets())


def _draw(preset: str, seed: int, phase: str, study: str, sharing: str) -> _Drawn:
    from mpfnl import __version__
    from mpfnl.transforms.degradation import find_preset
    from mpfnl.transforms.seeds import Sharing, phase_draws

    if seed < 0:
        raise OptionError(f"--seed {seed}: give 0 or more")
    draws = phase_draws(seed, 0, study, phase, sharing=Sharing(sharing))
    beside = {"seed": seed, "phase": phase, "study": study, "sharing": sharing, "mpfnl": __version__}
    return _Drawn(find_preset(preset).sample(draws), beside)


def _check_record(record: Path, others: Sequence[Path]) -> None:
    """Checks the record's path before any work is done."""
    if record.suffix.lower() != ".json":
        raise OutputError(f"{record}: a record's name must end in .json; choose another name")
    if record.is_dir():
        raise OutputError(f"{record}: the record is a folder; give the name of a file in it")
    for other in others:
        if record.resolve() == other.resolve() or (
            record.exists() and other.exists() and record.samefile(other)
        ):
            raise OutputError(f"{record}: the record is the input or the output ({other}); choose another")
    if not record.parent.is_dir():
        raise OutputError(f"{record}: the folder {record.parent} does not exist; create it first")
    if not os.access(record.parent, os.W_OK):
        raise OutputError(f"{record}: the folder {record.parent} is read-only; choose another folder")


def _read_record(path: Path) -> _Drawn:
    """Reads and checks a record.

    Raises:
        InputError: The record is missing, is not JSON, or not that of a degradation.
    """
    from mpfnl.transforms.degradation import Record

    try:
        parameters = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise NotFoundError(f"{path}: there is no such record; mpfnl degrade --record writes one") from None
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read ({error.strerror or error}); give a record") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: is not JSON ({error}); give a record of mpfnl degrade") from error
    if not isinstance(parameters, dict):
        raise FormatError(f"{path}: is not the record of a degradation; give one of mpfnl degrade")
    try:
        return _Drawn(Record.from_json(parameters), parameters)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it holds {name}")


def _warn_of_other_spacing(file: Path, drawn: _Drawn, volume: Volume) -> None:
    from mpfnl.transforms.degradation.base import by

    recorded = drawn.beside.get(_SPACING)
    if not isinstance(recorded, list) or not all(isinstance(step, (int, float)) for step in recorded):
        return
    same = len(recorded) == 3 and all(
        math.isclose(one, other, rel_tol=_SAME_SPACING)
        for one, other in zip(recorded, volume.spacing, strict=True)
    )
    if not same:
        print(
            f"{file}: was recorded at a spacing of {by(recorded)} mm and is applied to one of"
            f" {by(volume.spacing)} mm: the mm and HU are the same, the voxels' values are not"
        )


def _write(output: Path, record: Path | None, volume: Volume, drawn: _Drawn, source: str) -> None:
    """Degrades and writes: scan and record, or neither."""
    from mpfnl.files import atomic_file
    from mpfnl.volumes import write_volume

    hu = _degraded(volume, drawn.record, source)
    if record is None:
        write_volume(output, hu, like=volume)
    else:
        spacing = {_SPACING: [round(step, 6) for step in volume.spacing]}
        text = _as_text(drawn.record.to_json() | drawn.beside | spacing)
        with atomic_file(record) as file:
            file.write(text.encode())
            write_volume(output, hu, like=volume)
    steps = len(drawn.record.steps)
    name = drawn.record.preset or "no preset"
    count = f"{steps} operation{'' if steps == 1 else 's'}"
    also = "" if record is None else f" (recorded in {record})"
    print(f"{output}: {name}, {count}: {drawn.record.describe()}{also}")


def _degraded(volume: Volume, record: Record, source: str) -> Any:
    import numpy as np
    import torch

    hu = torch.from_numpy(volume.data.astype(np.float32, order="C"))
    try:
        degraded = record.apply(hu, volume.spacing).numpy()
    except InputError:
        raise
    except (ValueError, MemoryError) as error:  # valid numbers that do not fit this scan
        raise OptionError(f"{source}: cannot be applied to {volume.name} ({error})") from error
    if not np.isfinite(degraded).all():
        raise IntensityError(f"{source}: the result is not finite; look for numbers that are too large")
    return degraded


def _as_text(parameters: Json) -> str:
    """Readable JSON: indented, an operation's numbers side by side."""
    operations = ",\n".join(f"    {json.dumps(operation)}" for operation in parameters["operations"])
    others = {name: value for name, value in parameters.items() if name != "operations"}
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in others.items()]
    listed = f"[\n{operations}\n  ]" if operations else "[]"
    return "{\n" + ",\n".join([*lines, f'  "operations": {listed}']) + "\n}\n"
