"""The dilated ResNets and the ASPP heads for Cityscapes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from mtl_core import tasks
from mtl_core.models import deeplab
from mtl_core.step import MultiTaskModel, Step

DEPTHS = list(deeplab.FEATURES)
STAGES = ["layer1", "layer2", "layer3", "layer4"]


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torch hub's folder for weights, empty, and no way out: what is downloaded would come through a closed port."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def model(depth: int = 18, classes: int = 7) -> MultiTaskModel:
    torch.manual_seed(0)
    features = deeplab.FEATURES[depth]
    heads = {
        "S": deeplab.SegmentationHead(features, classes),
        "D": deeplab.Head(features, 1),
        "I": deeplab.Head(features, 2),
    }
    return MultiTaskModel(deeplab.Encoder(depth), heads)


def batch(size: int, height: int, width: int, classes: int = 7) -> tuple[Tensor, list[Tensor]]:
    """Random images and targets, a tenth of the pixels without any."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size, 3, height, width, generator=generator)
    known = torch.rand(size, 1, height, width, generator=generator) > 0.1
    labels = torch.randint(classes, (size, height, width), generator=generator)
    shifts = torch.rand(size, 1, height, width, generator=generator) + 0.1
    offsets = torch.randn(size, 2, height, width, generator=generator)
    return x, [labels.where(known[:, 0], tasks.IGNORED), shifts * known, torch.cat([offsets, known], 1)]


@pytest.mark.parametrize(("depth", "encoder", "head"), [(18, 11_176_512, 4_722_176), (50, 23_508_032, 16_125_440)])
def test_parameter_counts(count_parameters, depth: int, encoder: int, head: int) -> None:
    with torch.device("meta"):  # shapes without numbers
        assert count_parameters(deeplab.Encoder(depth)) == encoder
        for outputs in (1, 2, 7, 19):
            assert count_parameters(deeplab.Head(deeplab.FEATURES[depth], outputs)) == head + 257 * outputs


@pytest.mark.parametrize("depth", DEPTHS)
def test_z_has_an_eighth_of_the_image_and_predictions_have_all_of_it(depth: int) -> None:
    """At the paper's resolutions and at small ones, height before width."""
    with torch.device("meta"):
        net = model(depth).eval()
        for height, width in ((128, 256), (256, 512), (1024, 2048), (64, 128), (16, 24)):
            x = torch.empty(2, 3, height, width)
            assert net.encoder(x).shape == (2, deeplab.FEATURES[depth], height // 8, width // 8)
            assert [y.shape for y in net(x)] == [(2, outputs, height, width) for outputs in (7, 1, 2)]


def test_class_probabilities_sum_to_one_at_every_pixel() -> None:
    prediction = deeplab.SegmentationHead(16, 7)(torch.randn(2, 16, 4, 8))
    assert_close(prediction.exp().sum(1), torch.ones(2, 32, 64))


@pytest.mark.parametrize("depth", DEPTHS)
def test_strides_and_dilations(depth: int) -> None:
    """No stride after the second stage. Dilations: 1, then 2 in the third; 2, then 4 in the fourth. Padded alike."""
    with torch.device("meta"):
        encoder = deeplab.Encoder(depth)
    strides = [max(c.stride[0] for c in encoder[i].modules() if isinstance(c, nn.Conv2d)) for i in range(5)]
    assert strides == [2, 1, 2, 1, 1]
    for i, first, others in ((1, 1, 1), (2, 1, 1), (3, 1, 2), (4, 2, 4)):
        convs = [c for c in encoder[i].modules() if isinstance(c, nn.Conv2d) and c.kernel_size == (3, 3)]
        assert [c.dilation[0] for c in convs] == [first, *[others] * (len(convs) - 1)]
        assert all(c.padding == c.dilation for c in convs)


def test_resnet50_is_torchvisions_own_dilated_one() -> None:
    """torchvision can dilate this ResNet by itself; with the same weights the features are the same."""
    encoder = deeplab.Encoder(50).eval()
    net = torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True]).eval()
    pairs = [(net.conv1, encoder.stem[0].conv1), (net.bn1, encoder.stem[0].bn1)]
    for name in STAGES:
        pairs += zip(net.get_submodule(name), encoder.get_submodule(name)[:-1], strict=True)  # without the dropout
    for theirs, ours in pairs:
        theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        expected = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        for name in STAGES:
            expected = net.get_submodule(name)(expected)
        assert_close(encoder(x), expected)


@pytest.mark.training
@pytest.mark.parametrize("size", [(5, 7), (12, 13), (13, 12), (25, 40)], ids=str)
def test_taps_that_only_meet_padding_can_be_left_out(size: tuple[int, int]) -> None:
    """On maps around the size of the dilation: result and gradients of a plain dilated convolution."""
    torch.manual_seed(0)
    for dilation in (12, 24):
        ours = deeplab.DilatedConv(3, 4, dilation).double()
        x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
        plain = F.conv2d(x, ours.weight, padding=dilation, dilation=dilation)
        assert_close(ours(x), plain)
        found, expected = (torch.autograd.grad(y.sin().sum(), [x, ours.weight]) for y in (ours(x), plain))
        assert_close(found, expected)


def test_the_view_of_the_mean_is_the_same_everywhere() -> None:
    """The fifth view of ASPP: 256 channels, one value per image; the other four vary over the map."""
    aspp = deeplab.ASPP(512)
    views = aspp(torch.randn(2, 512, 8, 16)).unflatten(1, (5, 256)).flatten(3)
    spread = views.std(3).amax((0, 2))
    assert spread[4] < 1e-6 and (spread[:4] > 0.1).all()


def test_predictions_are_interpolated_with_aligned_corners() -> None:
    """The four corner pixels are the four corner positions of z."""
    head = deeplab.Head(16, 2).eval()
    coarse = nn.Sequential(*list(head)[:-1])(torch.ones(1, 16, 4, 8).cumsum(3))
    fine = head[-1](coarse)
    assert fine.shape == (1, 2, 32, 64)
    assert_close(fine[:, :, ::31, ::63], coarse[:, :, ::3, ::7])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str)
@pytest.mark.parametrize("size", [(16, 32), (8, 16), (2, 3), (1, 5), (1, 1)], ids=str)
def test_products_of_matrices_interpolate_as_torchs_kernel_does(size, dtype, tolerance) -> None:
    """Forward and gradient to rounding, at the paper's sizes and at the smallest; without being asked for, torch's
    kernel, to the last bit."""
    kernel, products = (deeplab.Head(16, 2, products=products)[-1] for products in (False, True))
    coarse = torch.randn(2, 3, *size, dtype=dtype, generator=torch.Generator().manual_seed(1)).requires_grad_()
    fine = F.interpolate(coarse, scale_factor=8, mode="bilinear", align_corners=True)
    upstream = torch.randn(fine.shape, dtype=dtype, generator=torch.Generator().manual_seed(2))
    gradient = torch.autograd.grad(fine, coarse, upstream, retain_graph=True)
    assert torch.equal(kernel(coarse), fine)
    assert torch.equal(*torch.autograd.grad(kernel(coarse), coarse, upstream), *gradient)
    other = products(coarse)
    assert other.dtype == dtype
    assert_close(other, fine, rtol=tolerance, atol=tolerance)
    assert_close(torch.autograd.grad(other, coarse, upstream), gradient, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.training
@pytest.mark.parametrize("depth", DEPTHS)
def test_a_step_moves_everything(depth: int) -> None:
    """Two tiny images, channels-last as the trainer has it: every parameter gets a finite gradient in its layout."""
    net = model(depth).to(memory_format=torch.channels_last)
    x, targets = batch(2, 16, 32)
    step = Step(net, [task.loss for task in (tasks.segmentation(7), tasks.disparity(), tasks.instances())], x, targets)
    assert torch.isfinite(step.losses).all()
    step.gramian("features")
    step.apply(torch.ones(3))
    for name, p in net.named_parameters():
        assert torch.isfinite(p.grad).all() and p.grad.stride() == p.stride(), name
        assert p.grad.any(), name


@pytest.mark.training
@pytest.mark.parametrize(("depth", "blocks"), [(18, 8), (50, 16)])
def test_the_gramian_can_be_accumulated_block_by_block(depth: int, blocks: int) -> None:
    """The encoder comes apart into stem, the blocks of its stages and five dropouts; Gramian and update stay the
    same."""
    x, targets = batch(2, 16, 32)
    found = {}
    for keep in (True, False):
        torch.manual_seed(0)
        features = deeplab.FEATURES[depth]
        heads = {name: nn.Sequential(nn.Conv2d(features, 1, 1), nn.Upsample(scale_factor=8)) for name in "ab"}
        net = MultiTaskModel(deeplab.Encoder(depth), heads).double()
        step = Step(net, [F.mse_loss, F.l1_loss], x.double(), [targets[1].double()] * 2, keep_jacobian=keep)
        gramian = step.gramian("parameters")
        step.apply(torch.tensor([0.2, 1.5]))
        found[keep] = [gramian, *[p.grad for p in net.parameters()]]
    assert len(step._walk.parts) == 1 + blocks + 5
    assert_close(found[False], found[True], rtol=1e-9, atol=1e-12)


def test_a_single_image_is_refused_in_training_and_welcome_in_evaluation() -> None:
    head = deeplab.Head(16, 2)
    z = torch.randn(1, 16, 4, 8)
    with pytest.raises(ValueError, match="at least 2"):
        head(z)
    assert head.eval()(z).shape == (1, 2, 32, 64)


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_width_divisor_divides_every_number_of_channels(depth: int) -> None:
    """All but the three of the image and those of the prediction; what is dilated stays dilated."""
    with torch.device("meta"):
        whole, slim = deeplab.Encoder(depth), deeplab.Encoder(depth, width_divisor=4)
        heads = [deeplab.Head(deeplab.FEATURES[depth] // s, 2, width_divisor=s) for s in (1, 4)]
        assert heads[1](slim(torch.empty(2, 3, 16, 24))).shape == (2, 2, 16, 24)
    for a, b in ((whole, slim), heads):
        convs = [[c for c in m.modules() if isinstance(c, nn.Conv2d)] for m in (a, b)]
        for c, d in zip(*convs, strict=True):
            assert (c.in_channels, d.in_channels) == (3, 3) or c.in_channels == 4 * d.in_channels
            assert (c.out_channels, d.out_channels) == (2, 2) or c.out_channels == 4 * d.out_channels
            assert (c.stride, c.padding, c.dilation) == (d.stride, d.padding, d.dilation)


def test_a_width_divisor_is_refused_where_it_cannot_be() -> None:
    with pytest.raises(ValueError, match="slim, the width divisor, is 3: expected a divisor of 64"):
        deeplab.Encoder(width_divisor=3)
    with pytest.raises(ValueError, match="pretrained weights exist for whole ResNets only"):
        deeplab.Encoder(pretrained=True, width_divisor=2)


def test_images_must_be_multiples_of_the_stride() -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=r"100×64 pixels: both must be multiples of 8"):
        deeplab.Encoder()(torch.empty(2, 3, 64, 100))


# -- pretrained weights ------------------------------------------------------------------------------------------------


def test_weights_in_the_folder_are_used(hub: Path) -> None:
    """Any weights under torchvision's file name, so that the test needs no network; the classifier is left out."""
    net = torchvision.models.resnet18()
    torch.save(net.state_dict(), hub / "resnet18-f37072fd.pth")
    encoder = deeplab.Encoder(18, pretrained=True)
    assert_close(encoder.stem[0].conv1.weight, net.conv1.weight)
    for name in STAGES:
        for ours, theirs in zip(encoder.get_submodule(name)[:-1], net.get_submodule(name), strict=True):
            assert_close(ours.state_dict(), theirs.state_dict())


@pytest.mark.parametrize(("depth", "file"), [(18, "resnet18-f37072fd.pth"), (50, "resnet50-0676ba61.pth")])
def test_missing_weights_are_never_replaced_by_random_ones(hub: Path, depth: int, file: str) -> None:
    with pytest.raises(deeplab.WeightsNotFound, match="is not there") as refusal:
        deeplab.Encoder(depth, pretrained=True)
    for part in (file, str(hub), f"https://download.pytorch.org/models/{file}", "TORCH_HOME", "pretrained: false"):
        assert part in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"no weights", bytes(5000)], ids=["empty", "text", "zeros"])
def test_broken_weights_are_named(hub: Path, content: bytes) -> None:
    (hub / "resnet18-f37072fd.pth").write_bytes(content)
    with pytest.raises(deeplab.WeightsNotFound, match=r"resnet18-f37072fd\.pth is not a whole file of weights"):
        deeplab.Encoder(18, pretrained=True)
