"""The 2-D UNet that turns one X-ray into a feature map (SPIDER III-A; the small GroupNorm variant of its lineage)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

GROUPS = 8


class UNet(nn.Module):
    """One channel in, widths[0] out, any image size; level k works at 1/2**k of the resolution with widths[k].

    There is no 1x1 head: the decoder's first layer is linear and would absorb it."""

    def __init__(self, widths: Sequence[int], convolutions: int):
        super().__init__()
        self.down = nn.ModuleList(_block(a, b, convolutions) for a, b in pairwise([1, *widths]))
        self.up = nn.ModuleList(_block(a + b, a, convolutions) for a, b in reversed(list(pairwise(widths))))

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
        return level


def _block(channels_in: int, channels_out: int, convolutions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(convolutions):
        first = channels_in if number == 0 else channels_out
        layers.append(nn.Conv2d(first, channels_out, 3, padding=1, bias=False))
        layers.append(nn.GroupNorm(min(GROUPS, channels_out), channels_out))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
