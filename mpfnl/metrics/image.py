"""PSNR and SSIM of 3D volumes. Imports nothing but torch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mpfnl.shapes import Features

# A slab of this many voxels and its filtered maps stay in a processor's cache.
_SLAB_VOXELS = 2**17
_SLAB_PLANES = 8


def psnr(
    prediction: Features,
    target: Features,
    data_range: float = 1.0,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Peak signal-to-noise ratio in dB, one value for each batch element.

    10 log10(data_range^2 / MSE), with the mean squared error over all channels and voxels. Identical
    volumes give `inf`; a NaN in the input gives NaN.

    Args:
        prediction: `(batch, channel, x, y, z)`, floating point.
        target: The same shape.
        data_range: Span of the intensities: 1 for volumes windowed to [0, 1].
        mask: Boolean, `(batch, 1 or channel, x, y, z)`; the error is averaged over its true voxels.

    Returns:
        `(batch,)`, float32 (float64 for float64 input).

    Raises:
        ValueError: If the shapes differ, are not 5-D or empty, or a volume's mask is empty.
        TypeError: If the volumes are not floating point or the mask is not boolean.

    >>> target = torch.zeros(1, 1, 4, 4, 4)
    >>> psnr(target + 0.1, target)  # a mean squared error of 0.01
    tensor([20.])
    """
    prediction, target, mask = _checked(prediction, target, data_range, mask)
    total = prediction.new_zeros(prediction.shape[0])
    for slab in _slabs(prediction.shape, overlap=0):
        error = (prediction[:, :, slab] - target[:, :, slab]).square()
        chosen = None if mask is None else mask[:, :, slab]
        total = total + _sum(error, chosen)
    mean = total / _count(prediction, mask)
    decibels: Tensor = 10 * torch.log10(data_range**2 / mean)
    return decibels


def ssim(
    prediction: Features,
    target: Features,
    data_range: float = 1.0,
    sigma: float = 1.5,
    window_size: int = 11,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Structural similarity in 3D, one value for each batch element.

    Wang et al. 2004 (doi 10.1109/TIP.2003.819861) with a Gaussian window, K1 = 0.01, K2 = 0.03 and
    population covariances, averaged over the channels and over the windows that lie wholly inside
    the volume. It equals scikit-image's `structural_similarity` with `gaussian_weights=True` and
    `use_sample_covariance=False` where `window_size` is `2 * int(3.5 * sigma + 0.5) + 1`, as the
    defaults are.

    The volume is processed in slabs: without gradients the extra memory is a few slabs, whatever the volume's
    size. With gradients every slab stays in memory for the backward pass.

    Args:
        prediction: `(batch, channel, x, y, z)`, floating point.
        target: The same shape.
        data_range: Span of the intensities: 1 for volumes windowed to [0, 1].
        sigma: Standard deviation of the window in voxels.
        window_size: Side of the window in voxels, odd.
        mask: Boolean, `(batch, 1 or channel, x, y, z)`; the similarity is averaged over the windows whose
            centre is true. A window also covers voxels outside the mask.

    Returns:
        `(batch,)`, float32 (float64 for float64 input).

    Raises:
        ValueError: If the shapes differ or are not 5-D, a side is smaller than the window, the window
            is even, or a volume's mask holds no window's centre.
        TypeError: If the volumes are not floating point or the mask is not boolean.

    >>> black, white = torch.zeros(1, 1, 11, 11, 11), torch.ones(1, 1, 11, 11, 11)
    >>> ssim(white, white)
    tensor([1.])
    >>> ssim(black, white)  # C1 / (1 + C1) with C1 = 0.01^2
    tensor([9.9990e-05])
    """
    prediction, target, mask = _checked(prediction, target, data_range, mask)
    window = _gaussian_window(sigma, window_size)
    sides = tuple(prediction.shape[2:])
    if min(sides) < window_size:
        raise ValueError(
            f"the volume's sides are {sides} voxels; SSIM with a window of {window_size} needs at least "
            f"{window_size} along each axis (a smaller window_size, with a smaller sigma, is possible)"
        )
    border = window_size // 2
    if mask is not None:
        inside = slice(border, -border or None)
        mask = mask[:, :, inside, inside, inside]
    # Variances are differences of large numbers where the mean is large: subtract an offset first.
    offset = target.detach().mean(dim=(2, 3, 4), keepdim=True)
    total = prediction.new_zeros(prediction.shape[0])
    count = prediction.new_zeros(prediction.shape[0])
    for slab in _slabs(prediction.shape, overlap=2 * border):
        similarity = _similarity(prediction[:, :, slab], target[:, :, slab], offset, window, data_range)
        chosen = None if mask is None else mask[:, :, slab.start : slab.stop - 2 * border]
        total = total + _sum(similarity, chosen)
        count = count + _count(similarity, chosen, allow_empty=True)
    if mask is not None and not bool((count > 0).all()):
        raise ValueError("a volume's mask holds no voxel at which a whole SSIM window fits")
    return total / count


def _checked(
    prediction: Tensor, target: Tensor, data_range: float, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The volumes in float32 or better and the mask at their shape, or a clear error."""
    if prediction.shape != target.shape:
        raise ValueError(f"the prediction is {tuple(prediction.shape)}, the target is {tuple(target.shape)}")
    if prediction.ndim != 5 or prediction.numel() == 0:
        raise ValueError(f"volumes must be (batch, channel, x, y, z), not {tuple(prediction.shape)}")
    if not (prediction.is_floating_point() and target.is_floating_point()):
        raise TypeError(f"volumes must be floating point, not {prediction.dtype} and {target.dtype}")
    if not data_range > 0:
        raise ValueError(f"data_range is {data_range}; it must be positive")
    precision = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
    if mask is not None:
        if mask.dtype is not torch.bool:
            raise TypeError(f"the mask must be boolean, not {mask.dtype}")
        mask = mask.expand_as(prediction)
    return prediction.to(precision), target.to(precision), mask


def _slabs(shape: torch.Size, overlap: int) -> Iterator[slice]:
    """Slices along x that share `overlap` planes, each small enough to stay in the cache."""
    batch, channels, size, *plane = shape
    planes = max(_SLAB_PLANES, _SLAB_VOXELS // (batch * channels * plane[0] * plane[1]))
    for start in range(0, size - overlap, planes):
        yield slice(start, min(start + planes, size - overlap) + overlap)


def _sum(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None:
        values = values.where(mask, 0.0)
    return values.sum(dim=(1, 2, 3, 4))


def _count(like: Tensor, mask: Tensor | None, allow_empty: bool = False) -> Tensor:
    """The number of voxels that `_sum` adds up, for each batch element."""
    if mask is None:
        return like.new_full((like.shape[0],), float(like[0].numel()))
    count = mask.sum(dim=(1, 2, 3, 4)).to(like.dtype)
    if not allow_empty and not bool((count > 0).all()):
        raise ValueError("a volume's mask is empty")
    return count


def _gaussian_window(sigma: float, window_size: int) -> list[float]:
    if not sigma > 0:
        raise ValueError(f"sigma is {sigma} voxels; it must be positive")
    if window_size < 1 or window_size % 2 == 0:
        raise ValueError(f"window_size is {window_size}; it must be odd and positive")
    offsets = torch.arange(window_size, dtype=torch.float64) - window_size // 2
    weights = torch.exp(-0.5 * (offsets / sigma).square())
    normalized: list[float] = (weights / weights.sum()).tolist()
    return normalized


def _similarity(a: Tensor, b: Tensor, offset: Tensor, window: list[float], data_range: float) -> Tensor:
    """The SSIM of every whole window in a slab (Wang et al. 2004, equation 13)."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    a, b = a - offset, b - offset
    # Only the sum of the two variances is ever needed: four maps to filter, not five.
    maps = torch.stack((a, b, a.square() + b.square(), a * b))
    for dim in (3, 4, 5):
        maps = _weighted_sum(maps, window, dim)
    mean_a, mean_b, squares, product = maps.unbind()
    covariance = product - mean_a * mean_b
    variances = squares - mean_a.square() - mean_b.square()
    mean_a, mean_b = mean_a + offset, mean_b + offset
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    return luminance * (2 * covariance + c2) / (variances + c2)


def _weighted_sum(maps: Tensor, window: list[float], dim: int) -> Tensor:
    """A valid correlation along one axis with a symmetric window.

    Shifted sums and not `conv3d`: several times faster for so few channels on a CPU, and never
    silently rounded to TF32 on a GPU.
    """
    last = len(window) - 1
    size = maps.shape[dim] - last
    result = maps.narrow(dim, last // 2, size) * window[last // 2]
    for i in range(last // 2):
        pair = maps.narrow(dim, i, size) + maps.narrow(dim, last - i, size)
        result.add_(pair, alpha=window[i])
    return result
