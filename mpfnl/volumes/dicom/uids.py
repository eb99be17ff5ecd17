"""Unique identifiers that depend on what they stand for alone. The standard library only."""

from __future__ import annotations

import uuid

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "mpfnl")


def make_uid(*parts: object) -> str:
    """A UID under the root 2.25: the same for the same parts, another for others.

    It is the decimal form of a name-based UUID (DICOM PS3.5, B.2; RFC 9562, version 5).

    Args:
        parts: What it stands for; their texts count.
    """
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(0).join(map(str, parts))).int}"
