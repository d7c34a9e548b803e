"""Parts of a model that keep their values to the bit while the rest is trained."""

from collections.abc import Sequence

from torch import nn

from xr2ct.errors import UserError
from xr2ct.models.model import Trainable
from xr2ct.settings import unknown


def freeze(model: Trainable, parts: Sequence[str]) -> list[nn.Module]:
    """Take the gradients away from the `parts` (keys of `model.parts()`); the modules that must stay in mode eval."""
    if not parts:
        return []
    valid = model.parts()
    for name in parts:
        if name not in valid:
            raise unknown("part to freeze", name, valid)
    frozen = [module for name in parts for module in valid[name]]
    for module in frozen:
        module.requires_grad_(False)
    if not any(value.requires_grad for value in model.parameters()):
        raise UserError(f"freeze is {', '.join(parts)}: nothing is left to train. Leave a part out.")
    return frozen


def set_training(model: nn.Module, frozen: Sequence[nn.Module]) -> None:
    """Mode train, except for frozen modules: their normalisation neither uses nor moves with the batch's statistics."""
    model.train()
    for module in frozen:
        module.eval()
