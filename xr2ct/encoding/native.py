"""The hash grid point by point by the C kernel of xr2ct/kernels: float32, CPU, the same bits for any number of
threads, and in the encoding the bits of the reference."""

import ctypes
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from xr2ct.encoding import reference
from xr2ct.encoding.buffers import empty_buffer
from xr2ct.encoding.levels import Levels, rows_of
from xr2ct.errors import UserError
from xr2ct.native import call

MOST_FEATURES = 32  # of the kernel


def encode_points(
    table: Float[Tensor, "rows features"], levels: Levels, points: Float[Tensor, "n 3"]
) -> Float[Tensor, "n channels"]:
    """Encode scattered points (x, y, z); points that need a gradient themselves go through the reference."""
    for name, value in {"table": table, "points": points}.items():
        if not can_encode(value.device, value.dtype, table.shape[1]):
            raise UserError(
                f"backend 'native': the {name} is {value.dtype} on {value.device}, {table.shape[1]} features; expected "
                f"torch.float32 on cpu, at most {MOST_FEATURES} features. Choose the backend 'reference'."
            )
    if points.requires_grad and torch.is_grad_enabled():
        return reference.encode_points(table, levels, points)
    return EncodePoints.apply(table.contiguous(), levels, points.T.contiguous())


def can_encode(device: torch.device, dtype: torch.dtype, features: int) -> bool:
    """Whether the kernel reads tables of this kind."""
    return device.type == "cpu" and dtype == torch.float32 and features <= MOST_FEATURES


class EncodePoints(torch.autograd.Function):
    """Of points [3, n]. Linear in the table: the backward pass needs the points, nothing of the table."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, levels: Levels, points: Tensor) -> Tensor:
        ctx.save_for_backward(points)
        ctx.levels, ctx.features = levels, table.shape[1]
        encoded = empty_buffer(points.shape[1], len(levels) * ctx.features)
        call("hash_grid_encode", c_levels(levels), len(levels), ctx.features, points, points.shape[1], table, encoded)
        return encoded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor | None, ...]:
        (points,), levels = ctx.saved_tensors, ctx.levels
        gradient = empty_buffer(rows_of(levels), ctx.features)
        call("hash_grid_adjoint", c_levels(levels), len(levels), ctx.features, points, points.shape[1], gradient,
             pull.contiguous())  # fmt: skip
        return gradient, None, None


class CLevel(ctypes.Structure):
    """`struct level` of the kernel."""

    _fields_ = [
        ("resolution", ctypes.c_int64),
        ("entries", ctypes.c_int64),
        ("offset", ctypes.c_int64),
        ("scale", ctypes.c_double),
    ]


@cache
def c_levels(levels: Levels) -> ctypes.Array:
    return (CLevel * len(levels))(
        *(CLevel(level.resolution, level.entries, level.offset, level.scale) for level in levels)
    )
