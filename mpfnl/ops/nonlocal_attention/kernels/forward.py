"""The forward kernels: operands with extra columns, then one pass over the keys for each tile of rows."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# Triton's language has no types.

from __future__ import annotations

import triton
import triton.language as tl

from mpfnl.ops.nonlocal_attention.kernels.primitives import (
    GAIN,
    load_rows,
    product,
    put_column,
    rounded,
    store_rows,
    upwards,
)


@triton.jit
def pack_forward(
    query,
    key,
    value,
    packed_query,
    packed_key,
    packed_value,
    largest,
    n,
    m,
    length,
    query_batch,
    query_row,
    query_column,
    key_batch,
    key_row,
    key_column,
    value_batch,
    value_row,
    value_column,
    query_factor,
    key_factor,
    C: tl.constexpr,
    CV: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_V: tl.constexpr,
    ROWS: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """Writes [key, GAIN], [value, 1] and, unless it is the key, [query]; and the largest |key|^2 of a batch.

    Rows beyond the last key are zero, the extra columns too: their weight is finite and their value nothing.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    batch = tl.program_id(1).to(tl.int64)
    columns, columns_v = tl.arange(0, WIDTH), tl.arange(0, WIDTH_V)
    is_key = tl.where(rows < m, 1.0, 0.0)

    keys = load_rows(key + batch * key_batch, key_row, key_column, rows, columns, m, C) * key_factor
    keys = rounded(keys, OPERAND)
    exact = keys.to(tl.float32)
    tl.atomic_max(largest + batch, tl.max(tl.sum(exact * exact, 1), 0))
    keys = put_column(keys, columns, C, (is_key * GAIN).to(OPERAND))
    store_rows(packed_key + batch * length * WIDTH, rows, columns, keys, WIDTH)

    values = load_rows(value + batch * value_batch, value_row, value_column, rows, columns_v, m, CV)
    values = put_column(rounded(values, OPERAND), columns_v, CV, is_key.to(OPERAND))
    store_rows(packed_value + batch * length * WIDTH_V, rows, columns_v, values, WIDTH_V)

    if not SYMMETRIC:
        queries = load_rows(query + batch * query_batch, query_row, query_column, rows, columns, n, C)
        queries = rounded(queries * query_factor, OPERAND)
        store_rows(packed_query + batch * length * WIDTH, rows, columns, queries, WIDTH)


@triton.jit
def attention_forward(
    packed_query,
    packed_key,
    packed_value,
    largest,
    out,
    lse,
    n,
    m,
    length,
    least,
    C: tl.constexpr,
    CV: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_V: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SHIFT: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile of rows: product, exp2, product over the keys; again with the running maximum if that failed.

    The offset of a row lies in column C of the query, its sum of weights in column CV of the result.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    batch = tl.program_id(1).to(tl.int64)
    columns, columns_v = tl.arange(0, WIDTH), tl.arange(0, WIDTH_V)
    keys = packed_key + batch * length * WIDTH
    values = packed_value + batch * length * WIDTH_V

    query = tl.load(packed_query + batch * length * WIDTH + rows[:, None] * WIDTH + columns[None, :])
    exact = tl.where((columns < C)[None, :], query, 0.0).to(tl.float32)
    bound = tl.sqrt(tl.sum(exact * exact, 1) * tl.load(largest + batch))  # Cauchy and Schwarz
    offset = upwards(bound - SHIFT)
    query = put_column(exact, columns, C, -offset / GAIN).to(OPERAND)

    tile = tl.arange(0, COLUMNS)
    blank = tl.zeros([ROWS, COLUMNS], tl.float32)
    sums = tl.zeros([ROWS, WIDTH_V], tl.float32)
    for start in range(0, m, COLUMNS):
        key = tl.load(keys + (start + tile)[:, None] * WIDTH + columns[None, :])
        weights = tl.exp2(product(query, tl.trans(key), blank, PRECISION))
        value = tl.load(values + (start + tile)[:, None] * WIDTH_V + columns_v[None, :])
        sums = product(rounded(weights, OPERAND), value, sums, PRECISION)
    total = tl.sum(tl.where((columns_v == CV)[None, :], sums, 0.0), 1)

    smallest = tl.min(total, 0)
    if not (smallest >= least):  # weights that matter were rounded away, or something is not finite
        query = exact.to(OPERAND)
        maximum = tl.full([ROWS], float("-inf"), tl.float32)
        sums = tl.zeros([ROWS, WIDTH_V], tl.float32)
        for start in range(0, m, COLUMNS):
            key = tl.load(keys + (start + tile)[:, None] * WIDTH + columns[None, :])
            scores = product(query, tl.trans(key), blank, PRECISION)
            scores = tl.where((start + tile < m)[None, :], scores, float("-inf"))
            larger = tl.maximum(maximum, tl.max(scores, 1))
            weights = tl.exp2(scores - larger[:, None] + SHIFT)
            value = tl.load(values + (start + tile)[:, None] * WIDTH_V + columns_v[None, :])
            sums = sums * tl.exp2(maximum - larger)[:, None]
            sums = product(rounded(weights, OPERAND), value, sums, PRECISION)
            maximum = larger
        total = tl.sum(tl.where((columns_v == CV)[None, :], sums, 0.0), 1)
        offset = maximum - SHIFT

    result = sums / total[:, None]
    place = (batch * n + rows)[:, None] * CV + columns_v[None, :]
    tl.store(out + place, result, mask=(rows < n)[:, None] & (columns_v < CV)[None, :])
    tl.store(lse + batch * n + rows, tl.log2(total) + offset, mask=rows < n)
