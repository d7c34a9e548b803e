"""Multiresolution hash grid (Instant-NGP; SPIDER eq. 13-16) with tiny-cuda-nn's parameter layout and arithmetic."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

PRIMES = (1, 2654435761, 805459861)  # for x, y, z
INITIAL_RANGE = 1e-4


@dataclass(frozen=True)
class Level:
    """One resolution: `scale` grid steps across the unit cube, its table rows start at row `offset`."""

    scale: float
    resolution: int
    entries: int
    offset: int

    @property
    def dense(self) -> bool:
        """True where every vertex has a row of its own; otherwise vertices share rows by hash."""
        return self.resolution**3 <= self.entries


def make_levels(n_levels: int, coarsest: int, finest: int, log2_entries: int) -> tuple[Level, ...]:
    """Geometric resolutions from `coarsest` to `finest`, at most 2**log2_entries rows each."""
    log2_growth = math.log2(finest / coarsest) / max(n_levels - 1, 1)
    levels: list[Level] = []
    for number in range(n_levels):
        scale = 2.0 ** (number * log2_growth) * coarsest - 1.0
        resolution = math.ceil(round(scale, 6)) + 1  # 2**log2 leaves 127.0000001: not a finer grid
        entries = min(8 * math.ceil(resolution**3 / 8), 2**log2_entries)
        levels.append(Level(scale, resolution, entries, sum(level.entries for level in levels)))
    return tuple(levels)


def row_of_vertex(
    level: Level, x: Int[Tensor, "..."], y: Int[Tensor, "..."], z: Int[Tensor, "..."]
) -> Int[Tensor, "..."]:
    """Table row in the level of vertices, broadcast (eq. 14): dense x + y R + z R^2, else XOR of products.

    tiny-cuda-nn multiplies in uint32; the table has 2^T rows, so that the bits it loses never matter.
    """
    if level.dense:
        return (x + y * level.resolution + z * level.resolution**2) % level.entries
    return (x * PRIMES[0] ^ y * PRIMES[1] ^ z * PRIMES[2]) % level.entries


class HashGrid(nn.Module):
    """Coordinates in [0, 1] -> L * F features, level-major; table row r is [r F, r F + F) of one flat parameter."""

    def __init__(self, levels: tuple[Level, ...], features: int):
        super().__init__()
        self.levels, self.features = levels, features
        rows = sum(level.entries for level in levels)
        self.parameters_flat = nn.Parameter(torch.empty(rows * features).uniform_(-INITIAL_RANGE, INITIAL_RANGE))

    def tables(self) -> tuple[Float[Tensor, "rows features"], ...]:
        return self.parameters_flat.view(-1, self.features).split([level.entries for level in self.levels])

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n channels"]:
        """Encode scattered points (x, y, z): eq. 15 as written, eight corners each. The reference for `lattice`."""
        encoded = []
        for level, table in zip(self.levels, self.tables(), strict=True):
            position = points * level.scale + 0.5
            corner = position.floor()
            fraction = position - corner
            total = torch.zeros(len(points), self.features, dtype=points.dtype, device=points.device)
            for number in range(8):
                step = torch.tensor([number & 1, number >> 1 & 1, number >> 2 & 1], device=points.device)
                weight = torch.where(step.bool(), fraction, 1 - fraction).prod(dim=1, keepdim=True)
                row = row_of_vertex(level, *(corner.long() + step).unbind(dim=1))
                total = total + weight * functional.embedding(row, table)
            encoded.append(total)
        return torch.cat(encoded, dim=1)

    def lattice(
        self, z: Float[Tensor, "z"], y: Float[Tensor, "y"], x: Float[Tensor, "x"]
    ) -> Float[Tensor, "z y x channels"]:
        """Encode all combinations of three coordinate vectors: trilinear weights separate, so every vertex that the
        lattice touches is read once and interpolated by three small matrix products."""
        encoded = []
        for level, table in zip(self.levels, self.tables(), strict=True):
            (vz, wz), (vy, wy), (vx, wx) = (interpolation(axis.cpu(), level, table) for axis in (z, y, x))
            row = row_of_vertex(level, vx, vy[:, None], vz[:, None, None])
            value = (wz @ functional.embedding(row, table).flatten(1)).view(len(z), len(vy), -1)
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
