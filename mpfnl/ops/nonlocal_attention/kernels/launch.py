"""Launches the kernels: buffers, formats, tiles."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from mpfnl.ops.nonlocal_attention.blockwise import LOG2E
from mpfnl.ops.nonlocal_attention.kernels.backward import attention_backward, pack_backward
from mpfnl.ops.nonlocal_attention.kernels.forward import attention_forward, pack_forward
from mpfnl.ops.nonlocal_attention.kernels.primitives import INTERPRETED


@dataclass(frozen=True)
class Tiles:
    """Tile sizes of a kernel.

    Args:
        rows: Positions per program: a power of two, 16 to 128.
        columns: Positions per step of the loop: a power of two, 16 to 128.
        warps: Warps per program.
        stages: Tiles in flight.
    """

    rows: int
    columns: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Format:
    """Constants that depend on the operands' format.

    Args:
        operand: Triton type of the operands.
        shift: Exponent of the largest weight; float16 needs its whole range.
        least: Smallest sum of a row's weights, per key, at which weights rounded to zero do not matter.
        lift: Exponent of the factor on gradients that prevents rounding to zero.
        half_range: Exponent of the largest factor that the symmetric form folds into an operand.
    """

    operand: tl.dtype
    shift: int
    least: float
    lift: int
    half_range: int

    def constants(self) -> dict[str, object]:
        """Compile-time constants of the backward kernels."""
        return {
            "SHIFT": self.shift,
            "LIFT": self.lift,
            "OPERAND": self.operand,
        }


# float16 is exact down to 2^-14 and rounds by 2^-25 at most below: if the sum is 2^-14 a key, that is 2^-11
# of it. The others have float32's exponents: 2^-126.
FORMATS = {
    torch.float16: Format(tl.float16, 14, 2.0**-14, 10, 5),
    torch.bfloat16: Format(tl.bfloat16, 0, 2.0**-100, 0, 40),
    torch.float32: Format(tl.float32, 0, 2.0**-100, 0, 40),
}
PADDING = 128  # rows of the buffers are a multiple of every tile
PACKING_ROWS = 64

# Largest row of the widest operand in bytes, to the largest tiles that fit the shared memory of every GPU of
# compute capability 8.0 or more.
FORWARD_TILES = {
    64: Tiles(128, 64, 4, 3),
    128: Tiles(128, 64, 4, 2),
    256: Tiles(64, 64, 4, 2),
    512: Tiles(32, 32, 4, 1),
}
BACKWARD_TILES = {
    64: Tiles(128, 64, 8, 2),
    128: Tiles(64, 64, 4, 2),
    256: Tiles(64, 32, 4, 1),
    512: Tiles(16, 16, 4, 1),
}

_forward_tiles: Tiles | None = None  # set by `use_tiles`
_backward_tiles: Tiles | None = None


@contextmanager
def use_tiles(forward: Tiles | None = None, backward: Tiles | None = None) -> Iterator[None]:
    """Tile sizes within a `with` block, for tests and tuning.

    Args:
        forward: Tiles of the forward kernel; unchanged if None.
        backward: Tiles of the backward kernels; unchanged if None.
    """
    global _forward_tiles, _backward_tiles
    before = _forward_tiles, _backward_tiles
    _forward_tiles, _backward_tiles = forward or before[0], backward or before[1]
    try:
        yield
    finally:
        _forward_tiles, _backward_tiles = before


def forward(query: Tensor, key: Tensor | None, value: Tensor, operands: torch.dtype) -> tuple[Tensor, Tensor]:
    """Softmax attention over all positions.

    Args:
        query: `(batch, N, C)`, any strides, C at most 64.
        key: `(batch, M, C)`; None if it is the query.
        value: `(batch, M, C_v)`, C_v at most 64.
        operands: float16, bfloat16, or float32 for tf32.

    Returns:
        `(batch, N, C_v)`, and the logarithm to base 2 of each row's sum of exp(score), `(batch, N)`; float32.

    Raises:
        ValueError: If there are more channels, the format is another, or the device is not CUDA.
    """
    if query.device.type != "cuda" and not INTERPRETED.value:
        raise ValueError(f"the Triton kernels need a CUDA device; these tensors are on {query.device}")
    keys = query if key is None else key
    shape = _Shape.of(query, keys, value)
    form = _format_of(operands)
    packed_query, packed_key = shape.buffers(2 - (key is None), shape.width, query, operands)
    packed_value, _ = shape.buffers(1, shape.width_v, query, operands)
    largest = torch.zeros(shape.batch, dtype=torch.float32, device=query.device)
    out = torch.empty(shape.batch, shape.n, shape.cv, dtype=torch.float32, device=query.device)
    lse = torch.empty(shape.batch, shape.n, dtype=torch.float32, device=query.device)
    factors = _factors(symmetric=key is None)
    with _on(query):
        pack_forward[(shape.length // PACKING_ROWS, shape.batch)](
            query,
            keys,
            value,
            packed_query,
            packed_key,
            packed_value,
            largest,
            shape.n,
            shape.m,
            shape.length,
            *query.stride(),
            *keys.stride(),
            *value.stride(),
            *factors,
            **shape.constants(),
            ROWS=PACKING_ROWS,
            SYMMETRIC=key is None,
            OPERAND=form.operand,
        )
        tiles = shape.forward_tiles(operands)
        attention_forward[(triton.cdiv(shape.n, tiles.rows), shape.batch)](
            packed_query,
            packed_key,
            packed_value,
            largest,
            out,
            lse,
            shape.n,
            shape.m,
            shape.length,
            form.least * shape.m,
            **shape.constants(),
            **_cut(tiles),
            SHIFT=form.shift,
            OPERAND=form.operand,
            PRECISION="tf32",
        )
    return out, lse


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor | None,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    operands: torch.dtype,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The gradients of `forward`.

    Args:
        grad: Gradient of the output, `(batch, N, C_v)`, any strides.
        query: Query of `forward`.
        key: Key of `forward`.
        value: Value of `forward`.
        out: Result of `forward`.
        lse: Result of `forward`.
        operands: Operand format of `forward`.

    Returns:
        The gradients of the query, the key (None if it is the query, whose gradient then holds both) and the
        value, in their dtypes.
    """
    symmetric = key is None
    keys = query if key is None else key
    shape = _Shape.of(query, keys, value)
    form = _format_of(operands)
    packed_query, packed_key = shape.buffers(2 - symmetric, shape.width, query, operands)
    packed_value, packed_grad = shape.buffers(2, shape.width_v, query, operands)
    grad_query, grad_value = query.new_empty(query.shape), value.new_empty(value.shape)
    grad_key = None if symmetric else keys.new_empty(keys.shape)
    largest_grad, largest_value = (
        torch.linalg.vector_norm(t, math.inf, dim=(1, 2), dtype=torch.float32) for t in (grad, value)
    )
    lowest, highest = torch.aminmax(lse, dim=1)
    padded_lse = functional.pad(lse, (0, shape.length - shape.n))
    factors = _factors(symmetric)
    half_range = float(form.half_range) if symmetric else math.inf  # else none depends on two log-sums
    common = {**shape.constants(), **form.constants(), "SYMMETRIC": symmetric}
    with _on(query):
        pack_backward[(shape.length // PACKING_ROWS, shape.batch)](
            query,
            keys,
            value,
            grad,
            out,
            lse,
            largest_grad,
            largest_value,
            lowest,
            highest,
            packed_query,
            packed_key,
            packed_value,
            packed_grad,
            shape.n,
            shape.m,
            shape.length,
            *query.stride(),
            *keys.stride(),
            *value.stride(),
            *grad.stride(),
            *factors,
            half_range,
            **common,
            ROWS=PACKING_ROWS,
        )
        query_side, key_side = (packed_query, packed_grad), (packed_key, packed_value)

        def run(
            own: tuple[Tensor, Tensor],
            other: tuple[Tensor, Tensor],
            positions: Tensor,
            sizes: tuple[int, int],
            factor: float,
            with_value: bool,
        ) -> None:
            tiles = shape.backward_tiles(operands)
            attention_backward[(triton.cdiv(sizes[0], tiles.rows), shape.batch)](
                own[0],
                other[0],
                own[1],
                other[1],
                other[1],
                own[1],
                padded_lse,
                largest_grad,
                largest_value,
                lowest,
                highest,
                positions,
                grad_value,
                *sizes,
                shape.length,
                1 / factor,
                half_range,
                **common,
                **_cut(tiles),
                VALUE=with_value,
                PRECISION="tf32",
            )

        if grad_key is None:
            both = (packed_key, packed_grad)
            run(key_side, both, grad_query, (shape.n, shape.m), factors[1], True)
        else:
            run(query_side, key_side, grad_query, (shape.n, shape.m), factors[1], False)
            run(key_side, query_side, grad_key, (shape.m, shape.n), factors[0], True)
    return grad_query, grad_key, grad_value


@dataclass(frozen=True)
class _Shape:
    batch: int
    n: int
    m: int
    c: int
    cv: int

    @classmethod
    def of(cls, query: Tensor, key: Tensor, value: Tensor) -> _Shape:
        widest = max(query.shape[2], value.shape[2])
        if widest > 64:
            raise ValueError(f"the Triton kernels take 64 channels at most, not {widest}; use SDPA")
        return cls(query.shape[0], query.shape[1], key.shape[1], query.shape[2], value.shape[2])

    @property
    def length(self) -> int:
        """Rows of the buffers."""
        named = [tiles for tiles in (_forward_tiles, _backward_tiles) if tiles is not None]
        multiple = max([PADDING, *(max(tiles.rows, tiles.columns) for tiles in named)])
        return triton.cdiv(max(self.n, self.m), multiple) * multiple

    @property
    def width(self) -> int:
        """Columns of the buffers of query and key: two more than channels at least."""
        return max(16, triton.next_power_of_2(self.c + 2))

    @property
    def width_v(self) -> int:
        """Columns of the buffers of the value and the gradient."""
        return max(16, triton.next_power_of_2(self.cv + 2))

    def forward_tiles(self, operands: torch.dtype) -> Tiles:
        """The tiles of `use_tiles`, else those that fit."""
        return _forward_tiles or FORWARD_TILES[self._row_bytes(operands)]

    def backward_tiles(self, operands: torch.dtype) -> Tiles:
        """The tiles of `use_tiles`, else those that fit."""
        return _backward_tiles or BACKWARD_TILES[self._row_bytes(operands)]

    def _row_bytes(self, operands: torch.dtype) -> int:
        return max(64, max(self.width, self.width_v) * operands.itemsize)

    def buffers(self, count: int, width: int, like: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Two buffers for packed operands; one, twice, if the count is 1."""
        made = torch.empty(count, self.batch, self.length, width, dtype=dtype, device=like.device)
        return made[0], made[-1]

    def constants(self) -> dict[str, int]:
        return {"C": self.c, "CV": self.cv, "WIDTH": self.width, "WIDTH_V": self.width_v}


def _factors(symmetric: bool) -> tuple[float, float]:
    """Factors on query and key, with which exp2 of their product is exp of the score."""
    return (math.sqrt(LOG2E), math.sqrt(LOG2E)) if symmetric else (LOG2E, 1.0)


def _format_of(operands: torch.dtype) -> Format:
    if operands not in FORMATS:
        raise ValueError(f"the Triton kernels compute in float16, bfloat16 or tf32 (float32), not {operands}")
    return FORMATS[operands]


def _cut(tiles: Tiles) -> dict[str, int]:
    return {
        "ROWS": tiles.rows,
        "COLUMNS": tiles.columns,
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
    }


def _on(tensor: Tensor):  # type: ignore[no-untyped-def]
    """Triton launches on the current device: makes it the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else nullcontext()
