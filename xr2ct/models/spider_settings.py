"""What can be chosen of SPIDER: the network, the voxels of a step, the objective; recipes of them as YAML."""

from dataclasses import dataclass
from pathlib import Path

import torch

import xr2ct
from xr2ct.drawing import DRAWS
from xr2ct.encoding import BACKENDS
from xr2ct.errors import UserError
from xr2ct.losses import DICE
from xr2ct.models.decoders import DECODERS
from xr2ct.settings import read_presets, unknown
from xr2ct.training_settings import TrainingSettings
from xr2ct.unet import GROUPS, NORMS

RECIPES = read_presets(Path(xr2ct.__file__).parent / "recipes")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class SpiderSettings(TrainingSettings):
    """The network and its objective; the training settings on top. The defaults are the recipe `default`."""

    widths: tuple[int, ...] = (16, 32, 64, 128, 256)  # of the UNet, one per resolution
    convolutions: int = 2  # per UNet block
    norm: str = "group"
    head: int = 0  # channels of a 1x1 convolution after the UNet; 0 = none
    decoder: str = "shared"
    hidden: int = 128  # width of the decoder
    layers: int = 3  # of the decoder, first and output layer included
    repeat_input: bool = False  # to every hidden layer of the decoder
    levels: int = 11
    level_features: int = 8
    coarsest: int = 16  # grid points per side of the first level
    finest: int = 0  # of the last level; 0 = the longest side of the voxel grid
    log2_entries: int = 17  # table rows per level
    backend: str = "auto"  # of the hash grid: the fastest present; all read the same parameters
    precision: str = "float32"  # of UNet and decoder
    structures: tuple[str, ...] = ()  # that are learned; () = all, ("none",) = intensity only
    sampling: str = "comb"
    points: int = 24  # voxels per axis and step, its cube in all
    run: int = 4  # neighbours in a comb
    scattered_points: int = 0  # voxels of sampling uniform; 0 = points ** 3
    block: int = 8  # edge of the boxes of sampling blocks and mixed
    surface_share: float = 0.5  # of the boxes, that lie on the surface of a structure
    grid_shift: int = 2  # voxels; the most that the grid of a training case moves along each axis, anew every step
    intensity_weight: float = 4.0
    intensity_balance: float = 0.5  # an error in L1 counts 1 / (share of the training voxels with such HU) ** this
    dice_weight: float = 0.3
    entropy_weight: float = 0.1  # class-weighted cross-entropy, without which Dice does not start
    dice: str = "class"
    dice_background: bool = False  # background is one of the classes of Dice

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, valid in CHOICES.items():
            if getattr(self, name) not in valid:
                raise unknown(name, getattr(self, name), valid)
        for names, least in LEAST.items():
            for name in names.split():
                if getattr(self, name) < least:
                    raise _refusal(name, getattr(self, name), f"{least:g} or more")
        if not self.widths or min(self.widths) < 1:
            raise _refusal("widths", list(self.widths), "at least one width, each 1 or more")
        if self.norm == "group" and any(width > GROUPS and width % GROUPS for width in self.widths):
            raise _refusal("widths", list(self.widths), f"multiples of {GROUPS} where above it, for norm 'group'")
        for name in ("surface_share", "intensity_balance"):
            if getattr(self, name) > 1:
                raise _refusal(name, getattr(self, name), "a share from 0 to 1")
        if not self.intensity_weight + self.dice_weight + self.entropy_weight:
            raise _refusal(
                "intensity_weight", 0.0, "at least one weight above 0 (dice_weight and entropy_weight are 0, too)"
            )
        if len(set(self.structures)) < len(self.structures):
            raise _refusal("structures", list(self.structures), "each structure once")
        if 0 < self.finest < self.coarsest:
            raise _refusal("finest", self.finest, f"0 or at least coarsest ({self.coarsest})")


CHOICES = {
    "norm": NORMS,
    "decoder": DECODERS,
    "backend": BACKENDS,
    "precision": PRECISIONS,
    "sampling": DRAWS,
    "dice": DICE,
}
LEAST = {
    "layers coarsest": 2,
    "convolutions hidden levels level_features log2_entries points run block": 1,
    "head finest scattered_points surface_share grid_shift intensity_weight intensity_balance dice_weight entropy_weight": 0,
}


def _refusal(name: str, value: object, expected: str) -> UserError:
    return UserError(f"setting {name!r} is {value!r}; expected {expected}. Correct it in the settings.")
