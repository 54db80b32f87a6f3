"""Ten ways to corrupt pictures, each in five severities, in torch and with a generator that you give.

    corrupted = corrupt(images, "fog", severity=3, generator=generator)

Pictures are [B, C, H, W] with values from 0 to 1, and so is what comes back. The severities are those for 64 pixels.

Source: Hendrycks, Dietterich 2019, arXiv:1903.12261, ImageNet-C, and the numbers of its Tiny-ImageNet-C.
Differs: 1. Snow, frost, glass, zoom and elastic are left out: frost needs photographs, the others keep the list
short. 2. Blurs pad by repeating the border. 3. Fog is diamond-square noise on the next power of two, not on 64.
4. Motion blur is a line of Gaussian weights at an angle from −45° to 45°, drawn once per picture, without ImageMagick.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional

from mtl_core.names import nearest

Corruption = Callable[[Tensor, int, Generator], Tensor]
#: the parameter of each severity, from 1 to 5
SEVERITIES: dict[str, tuple[float, ...]] = {
    "gaussian noise": (0.04, 0.08, 0.12, 0.15, 0.18),  # standard deviation
    "shot noise": (250, 100, 50, 30, 15),  # photons of a white pixel
    "impulse noise": (0.01, 0.02, 0.05, 0.08, 0.14),  # share of pixels
    "defocus": (0.5, 1, 1.5, 2.5, 3),  # radius of the disk, pixels
    "motion": (1, 1.5, 2, 2.5, 3),  # standard deviation along the line, pixels
    "fog": (0.4, 0.7, 1, 1.5, 2),  # strength
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),  # added to the value
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),  # factor about the mean
    "pixelate": (0.9, 0.8, 0.7, 0.6, 0.5),  # factor of the size
    "jpeg": (65, 58, 50, 40, 25),  # quality
}
ALIAS = (0.6, 0.1, 0.1, 0.01, 0.1)  # of defocus: standard deviation by which the disk is smoothed
DECAY = (3, 3, 2.5, 2, 1.75)  # of fog: by which each finer grid is weaker
RADIUS = (10, 10, 10, 10, 12)  # of motion: half the length of the line


def corrupt(images: Tensor, name: str, severity: int, generator: Generator) -> Tensor:
    """Pictures [B, C, H, W] in [0, 1], corrupted.

    Raises:
        ValueError: no such corruption or severity, or pictures of another shape or range.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"no corruption {name!r}{nearest(name, CORRUPTIONS)}; there are {', '.join(CORRUPTIONS)}.")
    if severity not in range(1, 6):
        raise ValueError(f"severity = {severity}: expected 1, 2, 3, 4 or 5.")
    if images.dim() != 4 or not images.is_floating_point() or images.min() < 0 or images.max() > 1:
        low, high = float(images.min()), float(images.max())
        raise ValueError(
            f"pictures of shape {tuple(images.shape)} and range {low:.3g} to {high:.3g}; "
            "expected floating-point numbers [B, C, H, W] from 0 to 1: undo the normalisation first."
        )
    return CORRUPTIONS[name](images, severity - 1, generator).clamp(0, 1)


def _gaussian(x: Tensor, s: int, generator: Generator) -> Tensor:
    return x + SEVERITIES["gaussian noise"][s] * torch.randn(x.shape, generator=generator, dtype=x.dtype)


def _shot(x: Tensor, s: int, generator: Generator) -> Tensor:
    photons = SEVERITIES["shot noise"][s]
    return torch.poisson(x * photons, generator=generator) / photons


def _impulse(x: Tensor, s: int, generator: Generator) -> Tensor:
    share = SEVERITIES["impulse noise"][s]
    drawn = torch.rand(x.shape, generator=generator)
    salted = torch.where(drawn < share / 2, torch.ones_like(x), x)
    return torch.where(drawn > 1 - share / 2, torch.zeros_like(x), salted)


def _defocus(x: Tensor, s: int, _: Generator) -> Tensor:
    radius = SEVERITIES["defocus"][s]
    reach = math.ceil(radius) + 1
    axis = torch.arange(-reach, reach + 1, dtype=torch.float64)
    disk = (axis[:, None] ** 2 + axis**2 <= radius**2).double()
    smooth = _normal(axis, ALIAS[s])
    kernel = functional.conv2d(disk[None, None], torch.outer(smooth, smooth)[None, None], padding=reach)[0, 0]
    return _filtered(x, (kernel / kernel.sum()).expand(len(x), -1, -1))


def _motion(x: Tensor, s: int, generator: Generator) -> Tensor:
    angles = (torch.rand(len(x), generator=generator, dtype=torch.float64) - 0.5) * math.pi / 2
    reach = min(RADIUS[s], min(x.shape[-2:]) - 1)
    places = torch.linspace(0, reach, 2 * reach + 1, dtype=torch.float64)  # to one side: the picture moves, too
    weights = _normal(places, SEVERITIES["motion"][s])
    axis = torch.arange(-reach, reach + 1, dtype=torch.float64)
    along = [torch.outer(f(angles), places) for f in (torch.sin, torch.cos)]  # rows, columns [B, places]
    shares = [(1 - (p[:, :, None] - axis).abs()).clamp(min=0) for p in along]  # onto whole pixels
    return _filtered(x, torch.einsum("p,bpi,bpj->bij", weights / weights.sum(), *shares))


def _fog(x: Tensor, s: int, generator: Generator) -> Tensor:
    strength, (height, width) = SEVERITIES["fog"][s], x.shape[-2:]
    plasma = _plasma(len(x), max(height, width), DECAY[s], generator)[:, None, :height, :width].to(x.dtype)
    brightest = x.amax(dim=(1, 2, 3), keepdim=True)
    return (x + strength * plasma) * brightest / (brightest + strength)


def _brightness(x: Tensor, s: int, _: Generator) -> Tensor:
    """The value of HSV, which is the largest channel; hue and saturation stay."""
    value = x.amax(dim=1, keepdim=True)
    lifted = (value + SEVERITIES["brightness"][s]).clamp(max=1)
    return torch.where(value > 0, x * lifted / value.clamp(min=1e-12), lifted.expand_as(x))


def _contrast(x: Tensor, s: int, _: Generator) -> Tensor:
    mean = x.mean(dim=(2, 3), keepdim=True)
    return mean + SEVERITIES["contrast"][s] * (x - mean)


def _pixelate(x: Tensor, s: int, _: Generator) -> Tensor:
    def coarse(picture: Image.Image) -> Image.Image:
        size = [max(1, int(SEVERITIES["pixelate"][s] * length)) for length in picture.size]
        return picture.resize(size, Image.Resampling.BOX).resize(picture.size, Image.Resampling.BOX)

    return _in_bytes(x, coarse)


def _jpeg(x: Tensor, s: int, _: Generator) -> Tensor:
    def saved(picture: Image.Image) -> Image.Image:
        file = BytesIO()
        picture.save(file, "JPEG", quality=int(SEVERITIES["jpeg"][s]))
        return Image.open(file)

    return _in_bytes(x, saved)


def _in_bytes(x: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """What Pillow makes of each picture, rounded to bytes."""
    found = []
    for picture in (255 * x).round().byte().cpu().permute(0, 2, 3, 1).numpy():
        image = Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture)
        changed = torch.from_numpy(np.array(change(image)))
        found.append(changed[None] if changed.dim() == 2 else changed.permute(2, 0, 1))
    return torch.stack(found).to(x) / 255


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian noise": _gaussian,
    "shot noise": _shot,
    "impulse noise": _impulse,
    "defocus": _defocus,
    "motion": _motion,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
}


def _normal(x: Tensor, sd: float) -> Tensor:
    weights = torch.exp(-((x / sd) ** 2) / 2)
    return weights / weights.sum()


def _filtered(x: Tensor, kernels: Tensor) -> Tensor:
    """Every picture with its own kernel [B, n, n]; the border is repeated."""
    B, C, height, width = x.shape
    reach = kernels.shape[-1] // 2
    padded = functional.pad(x, [reach] * 4, mode="replicate").view(1, B * C, height + 2 * reach, width + 2 * reach)
    each = kernels.to(x.dtype).repeat_interleave(C, dim=0)[:, None]
    return functional.conv2d(padded, each, groups=B * C).view(x.shape)


def _plasma(count: int, size: int, decay: float, generator: Generator) -> Tensor:
    """Diamond-square noise from 0 to 1, [count, n, n] with n the next power of two."""
    n = 2 ** max(1, math.ceil(math.log2(size)))
    grid, wobble = torch.zeros(count, 1, 1, dtype=torch.float64), 1.0

    def noise(like: Tensor) -> Tensor:
        return wobble * (2 * torch.rand(like.shape, generator=generator, dtype=torch.float64) - 1)

    while grid.shape[-1] < n:
        down, right = grid.roll(-1, 1), grid.roll(-1, 2)
        middle = (grid + down + right + down.roll(-1, 2)) / 4
        middle = middle + noise(middle)
        above = (grid + right + middle + middle.roll(1, 1)) / 4
        left = (grid + down + middle + middle.roll(1, 2)) / 4
        rows = torch.stack([grid, above + noise(above)], dim=3).flatten(2)
        others = torch.stack([left + noise(left), middle], dim=3).flatten(2)
        grid = torch.stack([rows, others], dim=2).flatten(1, 2)
        wobble /= decay**2  # once for the step and once for its largest size, as in the source
    low = grid.amin(dim=(1, 2), keepdim=True)
    return (grid - low) / (grid.amax(dim=(1, 2), keepdim=True) - low).clamp(min=1e-12)
