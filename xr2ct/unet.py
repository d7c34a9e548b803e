"""The 2-D UNet that turns one X-ray into a feature map (SPIDER III-A), in the two sizes of its lineage and between."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from xr2ct.group_norm import GroupNorm

GROUPS = 8
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "group": lambda channels: GroupNorm(min(GROUPS, channels), channels),
    "batch": nn.BatchNorm2d,
}


class UNet(nn.Module):
    """One channel in, `channels` out, any image size; level k works at 1/2**k of the resolution with widths[k].

    `head` puts a 1x1 convolution to so many channels at the end; 0 = none, as the decoder's first layer is linear and
    absorbs it."""

    def __init__(self, widths: Sequence[int], convolutions: int, norm: str = "group", head: int = 0):
        super().__init__()
        self.down = nn.ModuleList(_block(a, b, convolutions, norm) for a, b in pairwise([1, *widths]))
        self.up = nn.ModuleList(_block(a + b, a, convolutions, norm) for a, b in reversed(list(pairwise(widths))))
        self.head = nn.Conv2d(widths[0], head, 1) if head else nn.Identity()
        self.channels = head or widths[0]

    def forward(self, image: Float[Tensor, "n 1 v u"]) -> Float[Tensor, "n width v u"]:
        level = self.down[0](image.contiguous(memory_format=torch.channels_last))
        skips = []
        for block in self.down[1:]:
            skips.append(level)
            level = block(functional.max_pool2d(level, 2, ceil_mode=True))
        for block in self.up:
            skip = skips.pop()
            level = functional.interpolate(level, size=skip.shape[2:], mode="bilinear", align_corners=False)
            level = block(torch.cat([skip, level], dim=1))
        return self.head(level)


def _block(channels_in: int, channels_out: int, convolutions: int, norm: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(convolutions):
        first = channels_in if number == 0 else channels_out
        layers.append(nn.Conv2d(first, channels_out, 3, padding=1, bias=False))
        layers.append(NORMS[norm](channels_out))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
