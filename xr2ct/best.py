"""The best state so far, for a training that ends when it gets no better."""

from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass
class Best:
    """State with the highest watched PSNR (dB), and how many watch rounds have passed since."""

    psnr_db: float = float("-inf")
    step: int = 0
    rounds_since: int = 0
    model: dict[str, Tensor] = field(default_factory=dict)

    def see(self, psnr_db: float, step: int, model: nn.Module) -> None:
        """Note one watch round after `step` steps; equal or not finite is no better."""
        self.rounds_since += 1
        if psnr_db > self.psnr_db:
            self.psnr_db, self.step, self.rounds_since = psnr_db, step, 0
            self.model = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}

    def state(self) -> dict:
        return dict(vars(self))
