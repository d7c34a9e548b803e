"""The hash grid's two Triton kernels: one program per block of points and level, features as vectors.

Importing this needs the package triton. Integers are 32 bits and wrap, as tiny-cuda-nn's do."""

from typing import no_type_check

import triton
import triton.language as tl

PRIME_Y: tl.constexpr = tl.constexpr(2654435761 - 2**32)
PRIME_Z: tl.constexpr = tl.constexpr(805459861)


@triton.jit
@no_type_check
def corner_of(points, n_points, point, known, scale, resolution, entries, dense, number: tl.constexpr):
    """Row in the level and trilinear weight of corner `number` of the cells that points [3, n] lie in."""
    x = tl.load(points + point, mask=known, other=0.0) * scale + 0.5
    y = tl.load(points + n_points + point, mask=known, other=0.0) * scale + 0.5
    z = tl.load(points + 2 * n_points + point, mask=known, other=0.0) * scale + 0.5
    left, low, near = tl.floor(x), tl.floor(y), tl.floor(z)
    right: tl.constexpr = number % 2
    up: tl.constexpr = number // 2 % 2
    far: tl.constexpr = number // 4
    weight_x = x - left if right else 1 - (x - left)
    weight_y = y - low if up else 1 - (y - low)
    weight_z = z - near if far else 1 - (z - near)
    at_x, at_y, at_z = left.to(tl.int32) + right, low.to(tl.int32) + up, near.to(tl.int32) + far
    hashed = (at_x ^ (at_y * PRIME_Y) ^ (at_z * PRIME_Z)) & (entries - 1)
    counted = (at_x + at_y * resolution + at_z * (resolution * resolution)) % entries
    counted = tl.where(counted < 0, counted + entries, counted)  # the remainder has the sign of the dividend
    return tl.where(dense != 0, counted, hashed), weight_x * weight_y * weight_z


@triton.jit
@no_type_check
def encode(
    points, n_points, scales, resolutions, entries, offsets, denses, table, encoded,
    FEATURES: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """encoded [n, levels * FEATURES] = the eight weighted rows of each level."""
    level, levels = tl.program_id(1), tl.num_programs(1)
    point, feature = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, VECTOR)
    known = point < n_points
    both = known[:, None] & (feature < FEATURES)[None, :]
    scale, resolution, rows = tl.load(scales + level), tl.load(resolutions + level), tl.load(entries + level)
    dense, first = tl.load(denses + level), tl.load(offsets + level)
    total = tl.zeros((BLOCK, VECTOR), tl.float32)
    for number in tl.static_range(8):
        row, weight = corner_of(points, n_points, point, known, scale, resolution, rows, dense, number)
        place = (first + row)[:, None] * FEATURES + feature[None, :]
        total += weight[:, None] * tl.load(table + place, mask=both, other=0.0)
    place = point.to(tl.int64)[:, None] * (levels * FEATURES) + level * FEATURES + feature[None, :]
    tl.store(encoded + place, total, mask=both)


@triton.jit
@no_type_check
def add_adjoint(
    points, n_points, scales, resolutions, entries, offsets, denses, gradient, pull,
    FEATURES: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """gradient [rows, FEATURES] += what pull [n, levels * FEATURES] says, in no fixed order (atomics)."""
    level, levels = tl.program_id(1), tl.num_programs(1)
    point, feature = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, VECTOR)
    known = point < n_points
    both = known[:, None] & (feature < FEATURES)[None, :]
    scale, resolution, rows = tl.load(scales + level), tl.load(resolutions + level), tl.load(entries + level)
    dense, first = tl.load(denses + level), tl.load(offsets + level)
    place = point.to(tl.int64)[:, None] * (levels * FEATURES) + level * FEATURES + feature[None, :]
    part = tl.load(pull + place, mask=both, other=0.0)
    for number in tl.static_range(8):
        row, weight = corner_of(points, n_points, point, known, scale, resolution, rows, dense, number)
        place = (first + row)[:, None] * FEATURES + feature[None, :]
        tl.atomic_add(gradient + place, weight[:, None] * part, mask=both, sem="relaxed")
