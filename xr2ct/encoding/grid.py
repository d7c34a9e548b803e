"""The hash grid as a module: one parameter in tiny-cuda-nn's flat order, encoded by a backend chosen by name."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xr2ct.encoding import lattice, native, reference, tinycuda, triton
from xr2ct.encoding.buffers import empty_buffer
from xr2ct.encoding.levels import Levels, rows_of
from xr2ct.errors import UserError
from xr2ct.native import has_kernels
from xr2ct.settings import unknown

INITIAL_RANGE = 1e-4


@dataclass(frozen=True)
class Backend:
    """Two ways to encode, why this backend cannot be had here (nothing where it can), and the kind of device it needs."""

    encode_points: Callable[..., Tensor]
    encode_lattice: Callable[..., Tensor]
    missing: Callable[[], str] = lambda: ""
    only_on: str = ""


def by_points(encode_points: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The lattice of a backend whose fastest way is point by point."""

    def encode_lattice(table: Tensor, levels: Levels, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
        points = torch.stack(torch.meshgrid(z, y, x, indexing="ij")[::-1], dim=-1).to(table)
        return encode_points(table, levels, points.reshape(-1, 3)).unflatten(0, points.shape[:3])

    return encode_lattice


def no_kernels() -> str:
    return "" if has_kernels() else "the C kernels are not built, or hidden by XR2CT_NATIVE=0"


def best_backend(device: torch.device, dtype: torch.dtype, features: int) -> str:
    """The fastest present one for a table of this kind."""
    if device.type == "cuda" and dtype == torch.float32 and not triton.missing():
        return "triton"
    if device.type == "cpu":
        return "native" if native.can_encode(device, dtype, features) and not no_kernels() else "lattice"
    return "reference"


def best_for(table: Float[Tensor, "rows features"]) -> Backend:
    return BACKENDS[best_backend(table.device, table.dtype, table.shape[1])]


def encode_points_at_best(table: Float[Tensor, "rows features"], *given: Levels | Tensor) -> Tensor:
    return best_for(table).encode_points(table, *given)


def encode_lattice_at_best(table: Float[Tensor, "rows features"], *given: Levels | Tensor) -> Tensor:
    return best_for(table).encode_lattice(table, *given)


BACKENDS = {
    "auto": Backend(encode_points_at_best, encode_lattice_at_best),
    "reference": Backend(reference.encode_points, reference.encode_lattice),
    "lattice": Backend(reference.encode_points, lattice.encode_lattice),
    "native": Backend(native.encode_points, by_points(native.encode_points), no_kernels, "cpu"),
    "triton": Backend(
        triton.encode_points, by_points(triton.encode_points), triton.missing, "" if triton.interpreted() else "cuda"
    ),
    "tinycudann": Backend(tinycuda.encode_points, by_points(tinycuda.encode_points), tinycuda.missing, "cuda"),
}


def unfit(name: str, device: torch.device | None) -> str:
    """Why this backend cannot encode here, or on that device, or nothing."""
    if name not in BACKENDS:
        return "this version does not know it"
    backend = BACKENDS[name]
    elsewhere = device and backend.only_on not in ("", device.type)
    return backend.missing() or (f"it computes on {backend.only_on} only" if elsewhere else "")


def present_backends(device: torch.device | None = None) -> list[str]:
    """Those that can encode here, on the device if one is given."""
    return [name for name in BACKENDS if not unfit(name, device)]


def choose_backend(name: str, device: torch.device | None = None) -> Backend:
    if why := unfit(name, device):
        present = ", ".join(present_backends(device))
        if name not in BACKENDS:
            raise UserError(f"{unknown('hash grid backend', name, BACKENDS)} Present here: {present}.")
        raise UserError(
            f"hash grid backend {name!r} is not present here: {why}; expected one of: {present}. They read the same "
            "parameters: choose one by --backend of `xr2ct reconstruct`, or by the setting 'backend' of a training."
        )
    return BACKENDS[name]


def backend_of_trained(asked: str | None, trained_with: str, features: int, device: torch.device) -> str:
    """The backend asked for; without one that of the training or, where it is not present, what "auto" takes, with a note."""
    if asked is not None:
        choose_backend(asked, device)
        return asked
    if not (why := unfit(trained_with, device)):
        return trained_with
    best = best_backend(device, torch.float32, features)
    print(f"Note: hash grid backend {trained_with!r} of the training is not present here: {why}. Taking {best!r}.")
    return best


class HashGrid(nn.Module):
    """Coordinates in [0, 1] -> L * F features, level-major; table row r is [r F, r F + F) of one flat parameter.

    All backends read and train the same parameter and give the same features to float32 rounding, also under autocast;
    "auto" takes the fastest that is present where the parameter is.
    """

    def __init__(self, levels: Levels, features: int, backend: str = "reference"):
        super().__init__()
        self.levels, self.features, self.backend = levels, features, choose_backend(backend)
        self.parameters_flat = nn.Parameter(
            empty_buffer(rows_of(levels) * features).uniform_(-INITIAL_RANGE, INITIAL_RANGE)
        )

    def table(self) -> Float[Tensor, "rows features"]:
        """A view of the parameter; dimensionless, the rows of all levels from the coarsest on."""
        return self.parameters_flat.view(-1, self.features)

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n channels"]:
        """Encode scattered points (x, y, z)."""
        with self.full_precision():
            return self.backend.encode_points(self.table(), self.levels, points)

    def lattice(
        self, z: Float[Tensor, "z"], y: Float[Tensor, "y"], x: Float[Tensor, "x"]
    ) -> Float[Tensor, "z y x channels"]:
        """Encode all combinations of three coordinate vectors."""
        with self.full_precision():
            return self.backend.encode_lattice(self.table(), self.levels, z, y, x)

    def full_precision(self) -> torch.autocast:
        """Autocast off: bfloat16 has too few bits for the weights, and the gradient is summed over many points."""
        return torch.autocast(self.table().device.type, enabled=False)

    def tinycudann_state(self) -> dict[str, Tensor]:
        """The state_dict of `tinycudann.Encoding(3, tinycudann_config(levels, features))`: save it with torch.save."""
        return {"params": self.parameters_flat.detach().cpu().float()}

    @torch.no_grad()
    def load_tinycudann_state(self, state: dict[str, Tensor]) -> None:
        """Take the parameters of a `tinycudann.Encoding` of the same levels and features."""
        given, own = state["params"], self.parameters_flat
        if given.shape != own.shape:
            raise UserError(
                f"the state has {given.numel()} parameters; expected {own.numel()} ({rows_of(self.levels)} rows of "
                f"{self.features} features). Make the grid with that encoding's levels."
            )
        own.copy_(given)
