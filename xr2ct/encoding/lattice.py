"""The hash grid on lattices in pure PyTorch: planes of vertices are gathered once, interpolated by three small matrix
products, and the adjoint is written out, so that the whole table's gradient is one buffer that is never copied."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from xr2ct.encoding.buffers import empty_buffer
from xr2ct.encoding.levels import Levels, row_of_vertex, rows_of
from xr2ct.encoding.reference import interpolation, tables


def encode_lattice(
    table: Float[Tensor, "rows features"],
    levels: Levels,
    z: Float[Tensor, "z"],
    y: Float[Tensor, "y"],
    x: Float[Tensor, "x"],
) -> Float[Tensor, "z y x channels"]:
    """Encode all combinations of three coordinate vectors."""
    return EncodeLattice.apply(table, levels, z, y, x)


class EncodeLattice(torch.autograd.Function):
    """Linear in the table: the backward pass needs the rows and weights, nothing of the table."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, levels: Levels, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
        ctx.levels, ctx.like, ctx.steps, encoded = levels, table[:0], [], []
        for level, rows in zip(levels, tables(table, levels), strict=True):
            (vz, wz), (vy, wy), (vx, wx) = (interpolation(axis.cpu(), level, table) for axis in (z, y, x))
            row = row_of_vertex(level, vx, vy[:, None], vz[:, None, None]).flatten()
            value = (wz @ rows.index_select(0, row).view(len(vz), -1)).view(len(z), len(vy), -1)
            encoded.append(wx @ (wy @ value).view(len(z), len(y), len(vx), -1))
            ctx.steps.append((row, wz, wy, wx))
        return torch.cat(encoded, dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor | None, ...]:
        features = ctx.like.shape[1]
        gradient = zero_table(ctx.levels, features, ctx.like)
        parts = zip(tables(gradient, ctx.levels), ctx.steps, pull.split(features, dim=-1), strict=True)
        for rows, (row, wz, wy, wx), part in parts:
            value = (wx.T @ part).flatten(2)  # z y (vx f)
            value = (wy.T @ value).flatten(1)  # z (vy vx f)
            rows.index_add_(0, row, (wz.T @ value).view(-1, features))
        return gradient, None, None, None, None


def zero_table(levels: Levels, features: int, like: Tensor) -> Float[Tensor, "rows features"]:
    """Zeros of the table's shape, type and device."""
    if like.device.type == "cpu" and like.dtype == torch.float32:
        return empty_buffer(rows_of(levels), features).zero_()
    return like.new_zeros(rows_of(levels), features)
