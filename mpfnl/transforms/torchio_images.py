"""What the transforms that degrade ask of a subject's images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torchio as tio

from mpfnl.errors import InputError
from mpfnl.transforms.degradation import apply_parameters, operations_of


def degrade_image(name: str, image: tio.Image, parameters: Mapping[str, Any]) -> None:
    """Degrades an image as recorded.

    Args:
        name: Of the image in its subject.
        image: A CT in HU, changed in place.
        parameters: See `apply_parameters`.

    Raises:
        InputError: The image has more than one channel, the record cannot be read, or the third axis does not
            run along the body where an operation needs slices there.
    """
    if image.num_channels != 1:
        raise InputError(f"phase {name}: {image.num_channels} channels; give a CT with one")
    for operation in operations_of(parameters):
        if operation.axial and image.orientation[2] not in ("S", "I"):
            raise InputError(
                f"phase {name}: {operation.kind} needs slices along the third axis, and the image's axes are "
                f"{''.join(image.orientation)}; apply tio.ToCanonical() first"
            )
    spacing = [float(step) for step in image.spacing]
    image.set_data(apply_parameters(image.data[0].float(), spacing, parameters)[None])
