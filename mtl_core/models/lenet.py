"""The paper's LeNet for Multi-MNIST: one encoder, a head per task.

Encoder (21,330 parameters): conv 1→10, 5×5 → max-pool 2 → ReLU → conv 10→20, 5×5 → dropout → max-pool 2 → ReLU →
linear 320→50 → ReLU. Classification head (3,060), reconstruction head (214,544). One dropout probability for all of
them.
"""

from __future__ import annotations

from torch import nn

NUMERICS = 1  # raise when the numbers a model produces change
FEATURES = 50


class Encoder(nn.Sequential):
    """Images [B, 1, 28, 28] to features z [B, 50]."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Conv2d(1, 10, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(10, 20, 5),
            nn.Dropout(dropout),  # element-wise, on the convolution's output
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(320, FEATURES),
            nn.ReLU(),
        )


class ClassificationHead(nn.Sequential):
    """Features [B, 50] to log-probabilities of the ten digits [B, 10]."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Linear(FEATURES, 50), nn.ReLU(), nn.Dropout(dropout), nn.Linear(50, 10), nn.LogSoftmax(dim=1)
        )


class ReconstructionHead(nn.Sequential):
    """Features [B, 50] to an image in normalised intensities [B, 28, 28]."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Linear(FEATURES, 256), nn.ReLU(), nn.Dropout(dropout), nn.Linear(256, 784), nn.Unflatten(1, (28, 28))
        )


def count_parameters(module: nn.Module) -> int:
    """How many numbers training adjusts."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


__all__ = ["FEATURES", "ClassificationHead", "Encoder", "ReconstructionHead", "count_parameters"]
