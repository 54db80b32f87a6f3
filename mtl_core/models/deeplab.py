"""DeepLab as the paper has it for Cityscapes: a dilated ResNet as encoder, an ASPP head per task.

Encoder (11,176,512 parameters with 18 layers, 23,508,032 with 50): torchvision's ResNet without pooling and classifier.
Its third and fourth stage keep their resolution and dilate their 3×3 convolutions in exchange, so that z has an eighth
of the image's height and width. Head: five parallel branches of 256 channels (1×1; 3×3 with dilation 12, 24 and 36; the
mean of the map), put together by a 1×1 convolution, then 3×3, then 1×1 to the outputs, then bilinear interpolation to
the image's size. 4,722,176 + 257 per output with 18 layers below, 16,125,440 + 257 with 50. No skip from early layers
(D7). `width_divisor` divides the number of channels of every layer, for studies on small machines; the paper's is 1.

Source: Chen et al. 2017, arXiv:1706.05587 (dilation, ASPP); He et al. 2016, arXiv:1512.03385 (ResNet).
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from torchvision.models import ResNet

CODE_VERSION = 1  # raise when the numbers a model produces change
FEWEST = 16  # input channels of a 1×1 convolution with a stride, on a CPU (PointConv)
STRIDE = 8  # pixels of the image per position of z
FEATURES = {18: 512, 50: 2048}  # channels of z, by the number of layers
WIDTH = 256  # channels inside a head
MINIMUM_BATCH = 2  # in training: a head normalises the mean of a map over the batch

Depth = Literal[18, 50]


class WeightsNotFound(FileNotFoundError):
    """Pretrained weights are not where they were looked for, cannot be had from there, or are not whole."""


class Encoder(nn.Sequential):
    """Images [B, 3, H, W], normalised as ImageNet's, to features z [B, 512 or 2048, H/8, W/8].

    Args:
        depth: 18 or 50 layers.
        pretrained: start from torchvision's weights for ImageNet, version 1 (D6), or from random ones.
        dropout: probability for a whole channel, after the stem and after every stage.
        width_divisor: what every number of channels is divided by, a divisor of 64.

    Raises:
        WeightsNotFound: the pretrained weights cannot be had.
        ValueError: they are of another width, or `width_divisor` does not divide 64.
    """

    def __init__(
        self, depth: Depth = 18, pretrained: bool = False, dropout: float = 0.0, width_divisor: int = 1
    ) -> None:
        if width_divisor < 1 or 64 % width_divisor:
            raise ValueError(
                f"slim, the width divisor, is {width_divisor}: expected a divisor of 64, the first layer's channels."
            )
        if pretrained and width_divisor > 1:
            raise ValueError(f"slim is {width_divisor}: pretrained weights exist for whole ResNets only, slim: 1.")
        from torchvision import models  # takes seconds, and only streets need it

        net = getattr(models, f"resnet{depth}")()
        if width_divisor > 1:
            _narrow(net, width_divisor)
        if pretrained:
            net.load_state_dict(imagenet_weights(depth))
        dilate(net.layer3, 2)
        dilate(net.layer4, 4)
        stages = {"stem": [Stem(net)]} | {name: getattr(net, name) for name in ("layer1", "layer2", "layer3", "layer4")}
        super().__init__(
            OrderedDict((name, nn.Sequential(*layers, nn.Dropout2d(dropout))) for name, layers in stages.items())
        )


class Stem(nn.Module):
    """Images [B, 3, H, W] to [B, 64, H/4, W/4]."""

    def __init__(self, net: ResNet) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] % STRIDE or x.shape[3] % STRIDE:
            raise ValueError(f"images of {x.shape[3]}×{x.shape[2]} pixels: both must be multiples of {STRIDE}.")
        pooled: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return pooled


def dilate(stage: nn.Module, dilation: int) -> None:
    """Remove a stage's stride of 2 and dilate its 3×3 convolutions, so that each sees as far as before.

    The 3×3 convolution that had the stride gets half the dilation: what comes before it is not dilated as much yet.
    """
    for conv in stage.modules():
        if not isinstance(conv, nn.Conv2d):
            continue
        if conv.kernel_size == (3, 3):
            d = dilation // conv.stride[0]
            conv.dilation = conv.padding = (d, d)
        conv.stride = (1, 1)


def _narrow(net: nn.Module, width_divisor: int) -> None:
    """Give every convolution and normalisation fewer channels, initialised as torchvision does."""
    for name, layer in list(net.named_modules()):
        parent, _, child = name.rpartition(".")
        if isinstance(layer, nn.Conv2d):
            inputs = 3 if layer.in_channels == 3 else layer.in_channels // width_divisor
            size, stride = layer.kernel_size[0], layer.stride[0]
            kind = PointConv if size == 1 and inputs < FEWEST else nn.Conv2d
            conv = kind(inputs, layer.out_channels // width_divisor, size, stride, padding=size // 2, bias=False)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            setattr(net.get_submodule(parent), child, conv)
        elif isinstance(layer, nn.BatchNorm2d):
            setattr(net.get_submodule(parent), child, nn.BatchNorm2d(layer.num_features // width_divisor))


class PointConv(nn.Conv2d):
    """A 1×1 convolution that takes its stride by leaving pixels out first: the same numbers up to rounding.

    With few input channels a strided one is not safe on a CPU: for tensors in channels-last the gradient of its weight
    writes past its memory, below 8 channels with AVX2 and below 16 with AVX-512 (oneDNN's issue 6035; torch 2.14).
    """

    def forward(self, x: Tensor) -> Tensor:
        down, right = self.stride
        return F.conv2d(x[..., ::down, ::right], self.weight, self.bias)


def code_version(depth: Depth, width_divisor: int) -> int:
    """The code version of a network: one higher where it is so narrow that its stride is taken by `PointConv`."""
    channels = {18: 64, 50: 256}[depth] // width_divisor  # where the second stage begins, the only one with a stride
    return CODE_VERSION + (channels < FEWEST)


def imagenet_weights(depth: Depth) -> dict[str, Any]:
    """torchvision's weights for ImageNet, version 1: from torch hub's folder, or downloaded to it once.

    Raises:
        WeightsNotFound: saying which file was looked for, where, and how to get it.
    """
    from torchvision import models

    weights = getattr(models, f"ResNet{depth}_Weights").IMAGENET1K_V1
    folder, file = Path(torch.hub.get_dir()) / "checkpoints", weights.url.rsplit("/", 1)[1]
    try:
        tensors: dict[str, Any] = weights.get_state_dict(check_hash=True, weights_only=True)
        return tensors
    except Exception as error:  # no network, no space, not whole, not a file of weights: all mended in the same ways
        state = "is not a whole file of weights" if (folder / file).exists() else "is not there"
        raise WeightsNotFound(
            f"ResNet-{depth}'s weights for ImageNet: {file} {state} in {folder}, and {weights.url} did not help "
            f"({type(error).__name__}: {error}). Download that address into that folder (the environment variable "
            "TORCH_HOME moves it; delete a broken file first), or set pretrained: false to start from random weights."
        ) from error


class Head(nn.Sequential):
    """Features [B, in_channels, H/8, W/8] to maps [B, out_channels, H, W], one number per pixel and channel.

    Args:
        in_channels: of z. out_channels: 1 for disparity, 2 for instance offsets. dropout: between the two halves.
        width_divisor: what the number of channels inside is divided by. products: interpolate with `Products`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, dropout: float = 0.0, width_divisor: int = 1, products: bool = False
    ) -> None:
        width = WIDTH // width_divisor
        super().__init__(
            ASPP(in_channels, width),
            *_normalised(nn.Conv2d(5 * width, width, 1, bias=False)),
            nn.Dropout(dropout),
            *_normalised(nn.Conv2d(width, width, 3, padding=1, bias=False)),
            nn.Conv2d(width, out_channels, 1),
            Products() if products else nn.Upsample(scale_factor=STRIDE, mode="bilinear", align_corners=True),
        )


class SegmentationHead(nn.Sequential):
    """Features [B, in_channels, H/8, W/8] to log-probabilities of the classes at every pixel [B, classes, H, W]."""

    def __init__(
        self, in_channels: int, classes: int, dropout: float = 0.0, width_divisor: int = 1, products: bool = False
    ) -> None:
        super().__init__(Head(in_channels, classes, dropout, width_divisor, products), nn.LogSoftmax(dim=1))


class Products(nn.Module):
    """Bilinear interpolation with aligned corners as two products with matrices, Y = R X Cᵀ: to rounding what
    `nn.Upsample` gives, whose gradient torch computes in a slow way on a GPU where it has to be deterministic."""

    def forward(self, x: Tensor) -> Tensor:
        weights = []
        for n in x.shape[2:]:  # of an old pixel, by the distance of the new one
            old, new = (torch.linspace(0, n - 1, k, dtype=torch.float64, device=x.device) for k in (n, STRIDE * n))
            weights.append((1 - (new[:, None] - old).abs()).relu().to(x.dtype))
        return weights[0] @ x @ weights[1].T


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: [B, in_channels, h, w] to five views of it side by side, [B, 5 · width, h, w]."""

    def __init__(self, in_channels: int, width: int = WIDTH) -> None:
        super().__init__()
        self.point = nn.Sequential(*_normalised(nn.Conv2d(in_channels, width, 1, bias=False)))
        self.dilated = nn.ModuleList(
            nn.Sequential(*_normalised(DilatedConv(in_channels, width, dilation))) for dilation in (12, 24, 36)
        )
        self.mean = nn.Sequential(*_normalised(nn.Conv2d(in_channels, width, 1, bias=False)))

    def forward(self, z: Tensor) -> Tensor:
        if self.training and len(z) < MINIMUM_BATCH:
            raise ValueError(
                "a batch of one image in training: batch normalisation of the mean over a map needs at least "
                f"{MINIMUM_BATCH}. Choose a batch size that leaves no batch with a single image."
            )
        mean = self.mean(z.mean((2, 3), keepdim=True)).expand(-1, -1, *z.shape[2:])
        return torch.cat([self.point(z), *[view(z) for view in self.dilated], mean], dim=1)


class DilatedConv(nn.Conv2d):
    """A 3×3 convolution over as much padding as it is dilated.

    On a map no larger than the dilation its outer taps meet padding only. They are left out there: the same result, for
    a ninth of the work where both directions are that small.
    """

    def __init__(self, in_channels: int, out_channels: int, dilation: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        taps, padding = [slice(None)] * 2, list(self.dilation)
        for axis, size in enumerate(x.shape[2:]):
            if size <= self.dilation[axis]:
                taps[axis], padding[axis] = slice(1, 2), 0
        return F.conv2d(x, self.weight[:, :, taps[0], taps[1]], padding=padding, dilation=self.dilation)


def _normalised(conv: nn.Conv2d) -> tuple[nn.Module, ...]:
    return conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True)
