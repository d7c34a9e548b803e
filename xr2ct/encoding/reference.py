"""The hash grid in plain PyTorch, on any device and in any precision: what every other backend is held against."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from xr2ct.encoding.levels import Level, Levels, row_of_vertex


def tables(table: Float[Tensor, "rows features"], levels: Levels) -> tuple[Float[Tensor, "entries features"], ...]:
    """The rows of each level."""
    return table.split([level.entries for level in levels])


def encode_points(
    table: Float[Tensor, "rows features"], levels: Levels, points: Float[Tensor, "n 3"]
) -> Float[Tensor, "n channels"]:
    """Encode scattered points (x, y, z): eq. 15 as written, eight corners each."""
    encoded = []
    for level, rows in zip(levels, tables(table, levels), strict=True):
        position = points * level.scale + 0.5
        corner = position.floor()
        fraction = position - corner
        total = torch.zeros(len(points), table.shape[1], dtype=points.dtype, device=points.device)
        for number in range(8):
            step = torch.tensor([number & 1, number >> 1 & 1, number >> 2 & 1], device=points.device)
            weight = torch.where(step.bool(), fraction, 1 - fraction).prod(dim=1, keepdim=True)
            row = row_of_vertex(level, *(corner.long() + step).unbind(dim=1))
            total = total + weight * functional.embedding(row, rows)
        encoded.append(total)
    return torch.cat(encoded, dim=1)


def encode_lattice(
    table: Float[Tensor, "rows features"],
    levels: Levels,
    z: Float[Tensor, "z"],
    y: Float[Tensor, "y"],
    x: Float[Tensor, "x"],
) -> Float[Tensor, "z y x channels"]:
    """Encode all combinations of three coordinate vectors: trilinear weights separate, so every vertex that the lattice
    touches is read once and interpolated by three small matrix products."""
    encoded = []
    for level, rows in zip(levels, tables(table, levels), strict=True):
        (vz, wz), (vy, wy), (vx, wx) = (interpolation(axis.cpu(), level, table) for axis in (z, y, x))
        row = row_of_vertex(level, vx, vy[:, None], vz[:, None, None])
        value = (wz @ functional.embedding(row, rows).flatten(1)).view(len(z), len(vy), -1)
        value = (wy @ value).view(len(z), len(y), len(vx), -1)
        encoded.append(wx @ value)
    return torch.cat(encoded, dim=-1)


def interpolation(
    coordinate: Float[Tensor, "n"], level: Level, like: Tensor
) -> tuple[Int[Tensor, "vertices"], Float[Tensor, "n vertices"]]:
    """The vertices that coordinates along one axis touch and the linear weights, with dtype and device of `like`."""
    position = coordinate.double() * level.scale + 0.5
    corner = position.floor()
    vertices = torch.cat([corner, corner + 1]).unique().long()
    weights = (1 - (position[:, None] - vertices).abs()).clamp(min=0)
    return vertices.to(like.device), weights.to(like)
