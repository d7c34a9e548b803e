"""The sizes of the nnU-Net judge."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Size:
    """How long to train, in epochs of `epoch_iterations`; `largest_patch` 0 leaves planner and network as they come.

    `adam_rate` is the first learning rate of AdamW; 0 leaves nnU-Net's SGD.
    """

    iterations: int
    epoch_iterations: int
    watch_iterations: int
    largest_patch: int = 0
    features: int = 32
    most_features: int = 320
    adam_rate: float = 0.0
    augments_here: bool = False


# Ten minutes on two cores for a hundred cases of 64^3. AdamW finds every structure of a phantom in 100 iterations, where
# nnU-Net's SGD, made for thousands, still misses one after 200. Augmentation in the training's own process: a seed decides.
SMALL = Size(
    iterations=1000,
    epoch_iterations=25,
    watch_iterations=1,
    largest_patch=48,
    features=12,
    most_features=96,
    adam_rate=3e-3,
    augments_here=True,
)

SIZES = {
    "small": SMALL,
    # For 128^3, where 48 voxels of 3 mm do not show where in the body they are.
    "medium": replace(SMALL, largest_patch=64),
    "stock": Size(iterations=250_000, epoch_iterations=250, watch_iterations=50),  # nnU-Net's 1000 epochs; for a GPU
}
