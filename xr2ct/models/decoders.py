"""The paper's three decoders (Fig. 7, Fig. 8), as what follows the linear first layer.

The first layer reads Concat(f_pa, f_lat, h) of a voxel (eq. 18) and is kept apart: being linear it is a sum of parts that
are computed once for many voxels or cases. A decoder says how wide that sum must be and takes it on from there, to the
intensity and the logits of the classes (eq. 19). All three use MLPs of equal width and depth: only the sharing differs.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xr2ct.errors import UserError


class Mlp(nn.Module):
    """ReLU layers of `hidden` units after a first layer; `layers` counts the first and the last.

    With `repeat_input` every hidden layer reads the MLP's input again (DIF-Net), as part of the first layer's sum.
    """

    def __init__(self, hidden: int, layers: int, out: int, repeat_input: bool):
        super().__init__()
        self.hidden_layers = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers - 2))
        self.last = nn.Linear(hidden, out)
        self.hidden = hidden
        self.width = hidden * (layers - 1) if repeat_input else hidden

    def forward(self, first: Float[Tensor, "*voxels width"]) -> Float[Tensor, "*voxels out"]:
        own, *again = first.split(self.hidden, dim=-1)
        value = own.relu()
        for number, layer in enumerate(self.hidden_layers):
            value = layer(value)
            value = (value + again[number]).relu() if again else value.relu_()
        return self.last(value)


class Shared(nn.Module):
    """SPIDER's: one MLP for everything."""

    def __init__(self, hidden: int, layers: int, classes: int, repeat_input: bool):
        super().__init__()
        self.both = Mlp(hidden, layers, 1 + classes, repeat_input)
        self.width = self.both.width

    def forward(self, first: Float[Tensor, "*voxels width"]) -> Float[Tensor, "*voxels out"]:
        return self.both(first)


class TwoBranch(nn.Module):
    """Fig. 7: one MLP for the intensity, one for the logits, both on the same features."""

    def __init__(self, hidden: int, layers: int, classes: int, repeat_input: bool):
        super().__init__()
        require_structures(classes, "two_branch")
        self.intensity = Mlp(hidden, layers, 1, repeat_input)
        self.structure = Mlp(hidden, layers, classes, repeat_input)
        self.width = self.intensity.width + self.structure.width

    def forward(self, first: Float[Tensor, "*voxels width"]) -> Float[Tensor, "*voxels out"]:
        of_intensity, of_structure = first.chunk(2, dim=-1)
        return torch.cat([self.intensity(of_intensity), self.structure(of_structure)], dim=-1)


class TwoStage(nn.Module):
    """Fig. 8: one MLP for the intensity; a second reads the same features and that intensity, and gives the logits.

    The paper calls the second an "adaptive threshold" of the reconstruction and leaves open what it adapts to. The
    intensity alone cannot tell a left kidney from a muscle of the same HU, so it sees the features too. The two are
    trained jointly: the structure's loss reaches the first MLP through the intensity.
    """

    def __init__(self, hidden: int, layers: int, classes: int, repeat_input: bool):
        super().__init__()
        require_structures(classes, "two_stage")
        self.intensity = Mlp(hidden, layers, 1, repeat_input)
        self.structure = Mlp(hidden, layers, classes, repeat_input)
        self.from_intensity = nn.Linear(1, self.structure.width, bias=False)
        self.width = self.intensity.width + self.structure.width

    def forward(self, first: Float[Tensor, "*voxels width"]) -> Float[Tensor, "*voxels out"]:
        of_intensity, of_structure = first.chunk(2, dim=-1)
        intensity = self.intensity(of_intensity)
        return torch.cat([intensity, self.structure(of_structure + self.from_intensity(intensity))], dim=-1)


DECODERS: dict[str, Callable[[int, int, int, bool], nn.Module]] = {
    "shared": Shared,
    "two_branch": TwoBranch,
    "two_stage": TwoStage,
}


def require_structures(classes: int, name: str) -> None:
    if not classes:
        raise UserError(
            f"decoder {name!r} is to predict no structure; expected at least one. Choose decoder 'shared' for intensity only."
        )
