"""Operations to and from plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeAlias

from mpfnl.errors import InputError
from mpfnl.transforms.degradation.operations import (
    Blur,
    Clip,
    GaussianNoise,
    Operation,
    PoissonNoise,
    Resize,
)
from mpfnl.transforms.degradation.scanner import LowDose, MetalStreaks, MotionBlur, ThickSlices

AnyKind: TypeAlias = (
    Clip | Blur | Resize | GaussianNoise | PoissonNoise | LowDose | ThickSlices | MotionBlur | MetalStreaks
)

KINDS: dict[str, type[AnyKind]] = {
    cls.kind: cls
    for cls in (
        Clip,
        Blur,
        Resize,
        GaussianNoise,
        PoissonNoise,
        LowDose,
        ThickSlices,
        MotionBlur,
        MetalStreaks,
    )
}
"""Every operation by the name under which it is recorded."""


def operation_from_json(record: Mapping[str, Any]) -> Operation:
    """Reads an operation back from plain JSON.

    Args:
        record: What `Operation.to_json` wrote.

    Returns:
        The operation, equal to the one that was written.

    Raises:
        InputError: The kind is unknown, or the numbers are not the kind's.
    """
    cls = KINDS.get(str(record.get("kind")))
    if cls is None:
        known = ", ".join(KINDS)
        raise InputError(f"unknown degradation operation {record.get('kind')!r}: use one of {known}")
    numbers = {name: value for name, value in record.items() if name != "kind"}
    try:
        return cls(**numbers)
    except (TypeError, ValueError) as error:
        names = ", ".join(field.name for field in fields(cls))
        raise InputError(f"bad degradation operation {cls.kind!r} (it takes {names}): {error}") from error


def operations_of(parameters: Mapping[str, Any]) -> list[Operation]:
    """The operations of a record, in the order in which they apply.

    Raises:
        InputError: The record has no list of operations, or one of them cannot be read.
    """
    records = parameters.get("operations")
    if not isinstance(records, list) or not all(isinstance(record, Mapping) for record in records):
        raise InputError("the degradation's record has no list 'operations' of blur, ...: record it again")
    return [
        operation_from_json({name: value for name, value in record.items() if name != "stage"})
        for record in records
    ]
