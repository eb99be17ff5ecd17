"""The backward kernels: operands with their extra columns, then one pass over the other side for each tile.

No sum is shared between programs, so nothing is added atomically and the result is deterministic.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# Triton's language has no types.

from __future__ import annotations

import triton
import triton.language as tl

from mpfnl.ops.nonlocal_attention.kernels.primitives import (
    GAIN,
    gradient_scale,
    in_range,
    load_rows,
    narrowed,
    product,
    put_column,
    rounded,
    store_rows,
    upwards,
    value_scale,
)


@triton.jit
def pack_backward(
    query,
    key,
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
    grad_batch,
    grad_row,
    grad_column,
    query_factor,
    key_factor,
    half_range,
    C: tl.constexpr,
    CV: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_V: tl.constexpr,
    ROWS: tl.constexpr,
    SHIFT: tl.constexpr,
    LIFT: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """Writes the operands of `attention_backward`, rows beyond the last as zeros.

    With E = exp2(score - a_i), or exp2(score - a_i - a_j) where symmetric, probabilities are
    p_ij 2^SHIFT = E_ij alpha_i beta_j. alpha is folded into the gradient, beta (a power of two, so exactly)
    into the value. Where their range is too large for the format (`in_range`) neither is, the offsets are
    zero, and `attention_backward` subtracts the log-sums itself. delta_i = sum_j p_ij dp_ij follows from the
    gradient as it was rounded, and is kept in two columns: so dp - delta cancels as in exact arithmetic.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    batch = tl.program_id(1).to(tl.int64)
    columns, columns_v = tl.arange(0, WIDTH), tl.arange(0, WIDTH_V)
    by_grad = gradient_scale(tl.load(largest_grad + batch), CV) * tl.exp2(LIFT * 1.0)
    by_value = value_scale(tl.load(largest_value + batch))
    low, high = tl.load(lowest + batch), tl.load(highest + batch)
    is_query, is_key = tl.where(rows < n, 1.0, 0.0), tl.where(rows < m, 1.0, 0.0)

    log_sum = tl.load(lse + batch * n + rows, mask=rows < n, other=0.0)
    if SYMMETRIC:
        middle = tl.ceil((low + high) / 4 - SHIFT / 2)
        offset = upwards(tl.ceil((log_sum - SHIFT) / 2))
        alpha = tl.where(rows < n, tl.exp2(offset - log_sum + middle + SHIFT), 0.0)
        beta = tl.where(rows < m, tl.exp2(offset - middle), 0.0)
    else:
        offset = upwards(tl.ceil(log_sum - SHIFT))
        alpha = tl.where(rows < n, tl.exp2(offset - log_sum + SHIFT), 0.0)
        beta = is_key
    if not in_range(low, high, half_range):
        offset, alpha, beta = tl.zeros_like(offset), is_query, is_key
    offset_column = (-offset / GAIN * is_query).to(OPERAND)

    keys = load_rows(key + batch * key_batch, key_row, key_column, rows, columns, m, C) * key_factor
    keys = put_column(rounded(keys, OPERAND), columns, C, (is_key * GAIN).to(OPERAND))
    if SYMMETRIC:
        keys = put_column(keys, columns, C + 1, offset_column)
    else:
        queries = load_rows(query + batch * query_batch, query_row, query_column, rows, columns, n, C)
        queries = put_column(rounded(queries * query_factor, OPERAND), columns, C, offset_column)
        store_rows(packed_query + batch * length * WIDTH, rows, columns, queries, WIDTH)
    store_rows(packed_key + batch * length * WIDTH, rows, columns, keys, WIDTH)

    values = load_rows(value + batch * value_batch, value_row, value_column, rows, columns_v, m, CV)
    values = rounded(values * (beta * by_value)[:, None], OPERAND)
    values = put_column(values, columns_v, CV, beta.to(OPERAND))
    values = put_column(values, columns_v, CV + 1, beta.to(OPERAND))
    store_rows(packed_value + batch * length * WIDTH_V, rows, columns_v, values, WIDTH_V)

    grads = load_rows(grad + batch * grad_batch, grad_row, grad_column, rows, columns_v, n, CV)
    grads = rounded(grads * (alpha * by_grad)[:, None], OPERAND)
    result = load_rows(out + batch * n * CV, CV, 1, rows, columns_v, n, CV)
    delta = -tl.sum(grads.to(tl.float32) * result, 1) * by_value
    coarse = rounded(delta, OPERAND)
    fine = rounded(delta - coarse.to(tl.float32), OPERAND)
    grads = put_column(grads, columns_v, CV, coarse)
    grads = put_column(grads, columns_v, CV + 1, fine)
    store_rows(packed_grad + batch * length * WIDTH_V, rows, columns_v, grads, WIDTH_V)


@triton.jit
def attention_backward(
    own,
    other,
    own_first,
    other_first,
    own_second,
    other_second,
    lse,
    largest_grad,
    largest_value,
    lowest,
    highest,
    grad_positions,
    grad_values,
    n,
    m,
    length,
    factor,
    half_range,
    C: tl.constexpr,
    CV: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_V: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    VALUE: tl.constexpr,
    SHIFT: tl.constexpr,
    LIFT: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradients of one tile of positions, `own`, summed over all positions of the `other` side.

    - Of the query: own is the query and the gradient, other the key and the value.
    - Of key and value: own is the key and the value, other the query and the gradient; VALUE is set.
    - SYMMETRIC: both at once, with one exponential for each score and its mirror image.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    batch = tl.program_id(1).to(tl.int64)
    columns, columns_v = tl.arange(0, WIDTH), tl.arange(0, WIDTH_V)
    taken = columns
    if SYMMETRIC:  # the two extra columns change places
        taken = tl.where(columns == C, C + 1, tl.where(columns == C + 1, C, columns))
    place_v = rows[:, None] * WIDTH_V + columns_v[None, :]
    mine = tl.load(own + batch * length * WIDTH + rows[:, None] * WIDTH + taken[None, :])
    first = tl.load(own_first + batch * length * WIDTH_V + place_v)
    if SYMMETRIC:
        second = tl.load(own_second + batch * length * WIDTH_V + place_v)
    theirs = other + batch * length * WIDTH
    theirs_first = other_first + batch * length * WIDTH_V
    theirs_second = other_second + batch * length * WIDTH_V

    tile = tl.arange(0, COLUMNS)
    blank = tl.zeros([ROWS, COLUMNS], tl.float32)
    sum_positions = tl.zeros([ROWS, WIDTH], tl.float32)
    sum_values = tl.zeros([ROWS, WIDTH_V], tl.float32)
    if in_range(tl.load(lowest + batch), tl.load(highest + batch), half_range):
        for start in range(0, m, COLUMNS):
            across = (start + tile)[:, None]
            positions = tl.load(theirs + across * WIDTH + columns[None, :])
            weights = tl.exp2(product(mine, tl.trans(positions), blank, PRECISION))
            partner = tl.load(theirs_first + across * WIDTH_V + columns_v[None, :])
            changes = product(first, tl.trans(partner), blank, PRECISION)
            if SYMMETRIC:
                mirrored = tl.load(theirs_second + across * WIDTH_V + columns_v[None, :])
                changes = product(second, tl.trans(mirrored), changes, PRECISION)
            if VALUE:
                sum_values = product(rounded(weights, OPERAND), partner, sum_values, PRECISION)
            changes = weights * changes
            if LIFT != 0:
                changes *= tl.exp2(-LIFT * 1.0)
            sum_positions = product(rounded(changes, OPERAND), positions, sum_positions, PRECISION)
    else:  # the same from probabilities, p_ij 2^SHIFT = exp2(score - log_sum_i + SHIFT)
        # A score beyond its log-sum is one of the zero rows at the end; its weight must only be finite.
        sums_mine = tl.load(lse + batch * length + rows)
        for start in range(0, m, COLUMNS):
            across = (start + tile)[:, None]
            positions = tl.load(theirs + across * WIDTH + columns[None, :])
            scores = product(mine, tl.trans(positions), blank, PRECISION)
            partner = tl.load(theirs_first + across * WIDTH_V + columns_v[None, :])
            changes = product(first, tl.trans(partner), blank, PRECISION)
            sums_theirs = tl.load(lse + batch * length + start + tile)
            if VALUE:  # the other side is the query: the probabilities of its rows
                weights = tl.exp2(tl.minimum(scores - sums_theirs[None, :], 1.0) + SHIFT)
                sum_values = product(rounded(weights, OPERAND), partner, sum_values, PRECISION)
            else:
                weights = tl.exp2(tl.minimum(scores - sums_mine[:, None], 1.0) + SHIFT)
            changes = weights * changes
            if SYMMETRIC:
                mirrored = tl.load(theirs_second + across * WIDTH_V + columns_v[None, :])
                mirror = product(second, tl.trans(mirrored), blank, PRECISION)
                changes += tl.exp2(tl.minimum(scores - sums_mine[:, None], 1.0) + SHIFT) * mirror
            changes *= tl.exp2(-LIFT * 1.0)
            sum_positions = product(rounded(changes, OPERAND), positions, sum_positions, PRECISION)

    # LIFT is taken back already.
    by_grad = gradient_scale(tl.load(largest_grad + batch), CV) * tl.exp2(SHIFT * 1.0)
    by_value = value_scale(tl.load(largest_value + batch))
    place = (batch * n + rows)[:, None] * C + columns[None, :]
    inside = (rows < n)[:, None] & (columns < C)[None, :]
    result = sum_positions * (factor / (by_grad * by_value))
    tl.store(grad_positions + place, narrowed(result, grad_positions.dtype.element_ty), mask=inside)
    if VALUE:
        beta = tl.sum(tl.where((columns_v == CV)[None, :], first, 0.0).to(tl.float32), 1)
        place = (batch * n + rows)[:, None] * CV + columns_v[None, :]
        inside = (rows < n)[:, None] & (columns_v < CV)[None, :]
        scale = beta * (tl.exp2(-LIFT * 1.0) / by_grad)
        result = sum_values * scale[:, None]
        tl.store(grad_values + place, narrowed(result, grad_values.dtype.element_ty), mask=inside)
