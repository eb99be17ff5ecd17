"""What happens in a scanner, as TorchIO transforms: low dose, thick slices, motion, metal.

They are deterministic and land in the subject's history. To draw their numbers by chance, use
`RandomDegradation(preset="low-dose")`, `"thick-slices"`, `"motion"` or `"metal"`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torchio as tio
from torchio.transforms.intensity_transform import IntensityTransform

from mpfnl.transforms import degradation
from mpfnl.transforms.degradation.low_dose import FULL_DOSE_SD_HU
from mpfnl.transforms.degradation.metal import Implant
from mpfnl.transforms.degradation.operations import Operation, Triple
from mpfnl.transforms.degradation.thick_slices import SliceProfile
from mpfnl.transforms.seeds import named_seed
from mpfnl.transforms.torchio_images import degrade_image

Names = Sequence[str] | None


class _ScannerTransform(IntensityTransform):
    """Applies one operation to every intensity image; label maps are left alone."""

    @abstractmethod
    def operation(self, name: str) -> Operation:
        """The operation for the image of that name."""

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Applies it.

        Raises:
            InputError: An image has more than one channel, or its slices do not lie along the third axis.
        """
        for name, image in self.get_images_dict(subject).items():
            degrade_image(name, image, {"operations": [self.operation(name).to_json()]})
        return subject


class LowDose(_ScannerTransform):
    """The noise that a lower dose would have added; see `mpfnl.transforms.degradation.LowDose`.

    The images must hold whole cross-sections of the body.

    Args:
        dose_fraction: Of the dose that the scans were made with, in (0, 1].
        seed: Of the noise; each image has noise of its own.
        full_dose_sd_hu: Standard deviation in the body, in HU, of the noise of the scans as they are.
        p: Probability that the transform is applied.
        copy: Whether the subject is copied first.
        include: Names of the only images to transform.
        exclude: Names of images to leave alone.
        keep: Names of images to keep as they were, each with its new name.
    """

    def __init__(
        self,
        dose_fraction: float = 0.25,
        seed: int = 0,
        full_dose_sd_hu: float = FULL_DOSE_SD_HU,
        p: float = 1.0,
        copy: bool = True,
        include: Names = None,
        exclude: Names = None,
        keep: dict[str, str] | None = None,
    ) -> None:
        super().__init__(p=p, copy=copy, include=include, exclude=exclude, keep=keep)
        self.dose_fraction, self.seed, self.full_dose_sd_hu = dose_fraction, seed, full_dose_sd_hu
        self.args_names = ["dose_fraction", "seed", "full_dose_sd_hu"]
        self.operation("")  # refuses impossible numbers here

    def operation(self, name: str) -> Operation:
        """Noise with a seed of the image's own."""
        return degradation.LowDose(self.dose_fraction, named_seed(self.seed, name), self.full_dose_sd_hu)


class ThickSlices(_ScannerTransform):
    """Thick slices along z; see `mpfnl.transforms.degradation.ThickSlices`.

    Args:
        thickness_mm: Full width at half maximum of the slice profile.
        increment_mm: Distance between slices; the thickness if None.
        profile: Shape of the slice profile.
        p: Probability that the transform is applied.
        copy: Whether the subject is copied first.
        include: Names of the only images to transform.
        exclude: Names of images to leave alone.
        keep: Names of images to keep as they were, each with its new name.
    """

    def __init__(
        self,
        thickness_mm: float = 5.0,
        increment_mm: float | None = None,
        profile: SliceProfile = SliceProfile.RECTANGLE,
        p: float = 1.0,
        copy: bool = True,
        include: Names = None,
        exclude: Names = None,
        keep: dict[str, str] | None = None,
    ) -> None:
        super().__init__(p=p, copy=copy, include=include, exclude=exclude, keep=keep)
        self.thickness_mm, self.profile = thickness_mm, profile
        self.increment_mm = thickness_mm if increment_mm is None else increment_mm
        self.args_names = ["thickness_mm", "increment_mm", "profile"]
        self.operation("")

    def operation(self, name: str) -> Operation:
        """The same for every image."""
        return degradation.ThickSlices(self.thickness_mm, self.increment_mm, self.profile)


class MotionBlur(_ScannerTransform):
    """Motion during the acquisition; see `mpfnl.transforms.degradation.MotionBlur`.

    Args:
        amplitude_mm: The whole path along x, y, z.
        double_exposure: Share of the time at the two ends of the path.
        p: Probability that the transform is applied.
        copy: Whether the subject is copied first.
        include: Names of the only images to transform.
        exclude: Names of images to leave alone.
        keep: Names of images to keep as they were, each with its new name.
    """

    def __init__(
        self,
        amplitude_mm: Triple = (0.0, 0.0, 5.0),
        double_exposure: float = 0.0,
        p: float = 1.0,
        copy: bool = True,
        include: Names = None,
        exclude: Names = None,
        keep: dict[str, str] | None = None,
    ) -> None:
        super().__init__(p=p, copy=copy, include=include, exclude=exclude, keep=keep)
        self.amplitude_mm, self.double_exposure = amplitude_mm, double_exposure
        self.args_names = ["amplitude_mm", "double_exposure"]
        self.operation("")

    def operation(self, name: str) -> Operation:
        """The same for every image."""
        return degradation.MotionBlur(self.amplitude_mm, self.double_exposure)


class MetalStreaks(_ScannerTransform):
    """Implants and their streaks; see `mpfnl.transforms.degradation.MetalStreaks`.

    The images must hold whole cross-sections of the body.

    Args:
        implants: Where the metal is.
        streak_hu: Strength of the streaks near the implants in HU.
        seed: Of the noise of the rays through metal; each image has noise of its own.
        p: Probability that the transform is applied.
        copy: Whether the subject is copied first.
        include: Names of the only images to transform.
        exclude: Names of images to leave alone.
        keep: Names of images to keep as they were, each with its new name.
    """

    def __init__(
        self,
        implants: Sequence[Implant],
        streak_hu: float = 50.0,
        seed: int = 0,
        p: float = 1.0,
        copy: bool = True,
        include: Names = None,
        exclude: Names = None,
        keep: dict[str, str] | None = None,
    ) -> None:
        super().__init__(p=p, copy=copy, include=include, exclude=exclude, keep=keep)
        self.implants, self.streak_hu, self.seed = tuple(implants), streak_hu, seed
        self.args_names = ["implants", "streak_hu", "seed"]
        self.operation("")

    def operation(self, name: str) -> Operation:
        """The same implants for every image: the metal is the patient's."""
        return degradation.MetalStreaks(self.implants, self.streak_hu, named_seed(self.seed, name))
