"""The paper's LeNet for Multi-MNIST: one encoder, a head per task.

Encoder (21,330 parameters): conv 1→10, 5×5 → max-pool 2 → ReLU → conv 10→20, 5×5 → dropout → max-pool 2 → ReLU →
linear 320→50 → ReLU. Classification head (3,060), reconstruction head (214,544). One dropout probability for all.

Ours: `width` multiplies every number of channels, features and hidden units, rounded; 1 is the paper's network.
"""

from __future__ import annotations

from torch import nn

CODE_VERSION = 1  # raise when the numbers a model produces change
FEATURES = 50  # of z, at width 1


def features(width: float = 1) -> int:
    """How many numbers z has for one sample."""
    return round(FEATURES * width)


class Encoder(nn.Sequential):
    """Images [B, 1, 28, 28] to features z [B, 50·width]."""

    def __init__(self, dropout: float = 0.0, width: float = 1) -> None:
        first, second = round(10 * width), round(20 * width)
        super().__init__(
            nn.Conv2d(1, first, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(first, second, 5),
            nn.Dropout(dropout),  # element-wise, on the convolution's output
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(second * 4 * 4, features(width)),
            nn.ReLU(),
        )


class ClassificationHead(nn.Sequential):
    """Features [B, 50·width] to log-probabilities of the ten digits [B, 10]."""

    def __init__(self, dropout: float = 0.0, width: float = 1) -> None:
        hidden = round(50 * width)
        first = nn.Linear(features(width), hidden)
        super().__init__(first, nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 10), nn.LogSoftmax(dim=1))


class ReconstructionHead(nn.Sequential):
    """Features [B, 50·width] to an image in normalised intensities [B, 28, 28]."""

    def __init__(self, dropout: float = 0.0, width: float = 1) -> None:
        hidden = round(256 * width)
        first = nn.Linear(features(width), hidden)
        super().__init__(first, nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 784), nn.Unflatten(1, (28, 28)))
