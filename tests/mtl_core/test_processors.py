"""What is right on one processor only: oneDNN (in torch 2.14) writes past its memory in the weight gradient of a 1×1
convolution with a stride, in channels-last, when the input has few channels (its issue 6035: below 8 with AVX2, below
16 with AVX-512). No network that can be built here meets it."""

import itertools
import os
import subprocess
import sys

import pytest
import torch
from torch.overrides import TorchFunctionMode

from mtl_core import problems
from mtl_core.models import deeplab
from mtl_core.options import BadOption

SAFE = 16  # input channels from which on both instruction sets are right
SLIMS = {"multimnist": [{"width": 1}, {"width": 0.1}], "qm9": [{"slim": slim} for slim in (1, 2, 4)]}
SLIMS |= {"cityscapes": [{"slim": slim, "width": 32} for slim in (1, 2, 4, 8, 16, 32)]}


class Convolutions(TorchFunctionMode):
    """Keeps what every convolution gets: input, weight, stride."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.conv2d:
            stride = torch.nn.modules.utils._pair((kwargs or {}).get("stride", args[3] if len(args) > 3 else 1))
            self.seen.append((args[0], args[1], stride))
        return func(*args, **(kwargs or {}))


def unsafe(x, weight, stride):
    return max(weight.shape[2:]) == 1 and max(stride) > 1 and x.shape[1] < SAFE


def convolutions(model, x):
    """Of one forward pass, on the meta device: shapes and layouts without numbers."""
    model = model.to("meta").to(memory_format=torch.channels_last)
    with Convolutions() as mode:
        model(x.to("meta", memory_format=torch.channels_last))
    return mode.seen


def test_no_network_holds_a_layer_that_some_processor_gets_wrong():
    """Every problem with every width divisor: what each convolution really gets, whatever class it is of. A single
    task's network is part of that of a problem which holds it."""
    for name in (name for name in problems.PROBLEMS if len(problems.get(name).tasks) > 1 and name != "qm9"):
        for options in SLIMS[name.split("/")[0]]:
            channels, height, width = (1, 28, 28) if name.startswith("multimnist") else (3, 16, 32)
            with torch.device("meta"):
                model = problems.get(name, **options).build_model(0.0)
            seen = convolutions(model, torch.empty(2, channels, height, width))
            assert len(seen) > 1
            assert not [call for call in seen if unsafe(*call)], (name, options)


def test_the_molecules_network_has_no_convolution():
    for options in SLIMS["qm9"]:
        modules = problems.get("qm9", **options).build_model(0.0).modules()
        assert not any(isinstance(module, torch.nn.modules.conv._ConvNd) for module in modules)


def test_every_width_divisor_is_looked_at():
    """The Literal of the option and the list above are the same."""
    for family, name in (("cityscapes", "cityscapes/19C"), ("qm9", "qm9")):
        for slim in range(1, 65):
            known = slim in [options["slim"] for options in SLIMS[family]]
            if known:
                problems.get(name, slim=slim)
            else:
                with pytest.raises(BadOption):
                    problems.get(name, slim=slim)


def test_the_look_finds_the_layer():
    """A plain strided 1×1 convolution of 8 channels in the same place is seen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deeplab, "PointConv", torch.nn.Conv2d)
        model = problems.get("cityscapes/R18", slim=8, width=32).build_model(0.0)
    seen = convolutions(model, torch.empty(2, 3, 16, 32))
    assert [(x.shape[1], tuple(stride)) for x, weight, stride in seen if unsafe(x, weight, stride)] == [(8, (2, 2))]


def test_pixels_left_out_first_are_a_stride():
    """Forward and both gradients equal those of torch's own strided convolution, at odd sizes too."""
    torch.manual_seed(0)
    for channels, height, width, stride in itertools.product((2, 4, 16), (8, 7), (16, 5), (1, 2, 3)):
        ours = deeplab.PointConv(channels, 6, 1, stride).double()
        x = torch.randn(3, channels, height, width, dtype=torch.float64, requires_grad=True)
        plain = torch.nn.functional.conv2d(x, ours.weight, ours.bias, stride)
        torch.testing.assert_close(ours(x), plain)
        for found, expected in zip(
            torch.autograd.grad(ours(x).sin().sum(), [x, ours.weight]),
            torch.autograd.grad(plain.sin().sum(), [x, ours.weight]),
            strict=True,
        ):
            torch.testing.assert_close(found, expected)


def test_only_narrow_networks_have_new_numbers():
    """Records of wider ones keep their names: all that are shipped (slim 4) among them."""
    versions = {
        depth: {slim: deeplab.code_version(depth, slim) for slim in (1, 2, 4, 8, 16, 32)} for depth in deeplab.FEATURES
    }
    assert versions == {18: {1: 1, 2: 1, 4: 1, 8: 2, 16: 2, 32: 2}, 50: {1: 1, 2: 1, 4: 1, 8: 1, 16: 1, 32: 2}}


NARROW = """
import torch
from mtl_core.models import deeplab
torch.set_num_threads(1)
torch.manual_seed(0)
encoder = deeplab.Encoder(18, width_divisor=16).to(memory_format=torch.channels_last)
for _ in range(200):
    x = torch.randn(8, 3, 32, 64).to(memory_format=torch.channels_last)
    encoder(x).square().mean().backward()
"""


@pytest.mark.slow
def test_hundreds_of_passes_of_a_narrow_encoder_under_avx2_end_well():
    """With torch's strided 1×1 convolution this script ends by SIGABRT: the heap is damaged."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", NARROW], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
