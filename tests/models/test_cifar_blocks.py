"""The zoo's blocks against their definition, written out with functional calls and no in-place step."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lauter.models.cifar.mobilenet_v2 import InvertedResidual
from lauter.models.cifar.resnet import BasicBlock
from lauter.models.cifar.resnet50 import Bottleneck
from lauter.models.cifar.shufflenet_v1 import ShuffleBlock
from lauter.models.cifar.shufflenet_v2 import DownBlock, SplitBlock
from lauter.models.cifar.wide_resnet import PreActivationBlock

Layer = Callable[[Tensor], Tensor]


class Layers:
    """A block's convolutions and normalisations in the order in which they were made, taken one by one."""

    def __init__(self, block: nn.Module) -> None:
        self.rest = [m for m in block.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]

    def conv(self, side: int, groups: int = 1, stride: int = 1) -> Layer:
        layer = self.rest.pop(0)
        assert isinstance(layer, nn.Conv2d)
        assert layer.kernel_size == (side, side)
        weight = layer.weight
        return lambda x: F.conv2d(x, weight, stride=stride, padding=side // 2, groups=groups)

    def norm(self) -> Layer:
        layer = self.rest.pop(0)
        assert isinstance(layer, nn.BatchNorm2d)

        def apply(x: Tensor) -> Tensor:
            mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
            return (x - mean) / torch.sqrt(var + 1e-5) * layer.weight.view(-1, 1, 1) + layer.bias.view(
                -1, 1, 1
            )

        return apply

    def chain(self, *layers: Layer) -> Layer:
        def apply(x: Tensor) -> Tensor:
            for layer in layers:
                x = layer(x)
            return x

        return apply


def basic(block: nn.Module, x: Tensor, stride: int) -> Tensor:
    take = Layers(block)
    branch = take.chain(take.conv(3, stride=stride), take.norm(), F.relu, take.conv(3), take.norm())
    shortcut = take.chain(take.conv(1, stride=stride), take.norm()) if take.rest else take.chain()
    return F.relu(branch(x) + shortcut(x))


def bottleneck(block: nn.Module, x: Tensor, stride: int) -> Tensor:
    take = Layers(block)
    branch = take.chain(
        *(take.conv(1), take.norm(), F.relu),
        *(take.conv(3, stride=stride), take.norm(), F.relu),
        *(take.conv(1), take.norm()),
    )
    shortcut = take.chain(take.conv(1, stride=stride), take.norm()) if take.rest else take.chain()
    return F.relu(branch(x) + shortcut(x))


def pre_activation(block: nn.Module, x: Tensor, stride: int) -> Tensor:
    take = Layers(block)
    active = F.relu(take.norm()(x))
    branch = take.chain(take.conv(3, stride=stride), take.norm(), F.relu, take.conv(3))
    return branch(active) + (take.conv(1, stride=stride)(active) if take.rest else x)


def inverted(block: nn.Module, x: Tensor, stride: int) -> Tensor:
    take = Layers(block)
    inner = 6 * x.shape[1]
    branch = take.chain(
        *(take.conv(1), take.norm(), F.relu),
        *(take.conv(3, inner, stride), take.norm(), F.relu),
        *(take.conv(1), take.norm()),
    )
    out = branch(x)
    return out + x if out.shape == x.shape else out


def deal(x: Tensor, groups: int) -> Tensor:
    size = x.shape[1] // groups
    return torch.stack([x[:, g * size + p] for p in range(size) for g in range(groups)], dim=1)


def shuffle_v1(block: nn.Module, x: Tensor, stride: int) -> Tensor:
    take = Layers(block)
    groups = 1 if x.shape[1] == 24 else 3
    out = F.relu(take.chain(take.conv(1, groups), take.norm())(x))
    out = deal(out, groups)
    out = take.chain(take.conv(3, out.shape[1], stride), take.norm(), F.relu, take.conv(1, 3), take.norm())(
        out
    )
    return F.relu(torch.cat([out, F.avg_pool2d(x, 3, 2, 1)], dim=1) if stride == 2 else out + x)


def split(block: nn.Module, x: Tensor, stride: int) -> Tensor:
    take = Layers(block)
    half = x.shape[1] // 2
    branch = take.chain(
        *(take.conv(1), take.norm(), F.relu),
        *(take.conv(3, half), take.norm()),
        *(take.conv(1), take.norm(), F.relu),
    )
    return deal(torch.cat([x[:, :half], branch(x[:, half:])], dim=1), 2)


def down(block: nn.Module, x: Tensor, stride: int) -> Tensor:
    take = Layers(block)
    short = take.chain(take.conv(3, x.shape[1], 2), take.norm(), take.conv(1), take.norm(), F.relu)
    half = 8
    long = take.chain(
        *(take.conv(1), take.norm(), F.relu),
        *(take.conv(3, half, 2), take.norm()),
        *(take.conv(1), take.norm(), F.relu),
    )
    return deal(torch.cat([short(x), long(x)], dim=1), 2)


@pytest.mark.parametrize(
    ("build", "reference", "in_channels", "stride"),
    [
        (lambda: BasicBlock(8, 8, 1), basic, 8, 1),
        (lambda: BasicBlock(8, 12, 1), basic, 8, 1),
        (lambda: BasicBlock(8, 16, 2), basic, 8, 2),
        (lambda: Bottleneck(16, 4, 1), bottleneck, 16, 1),
        (lambda: Bottleneck(8, 4, 2), bottleneck, 8, 2),
        (lambda: PreActivationBlock(8, 8, 1), pre_activation, 8, 1),
        (lambda: PreActivationBlock(8, 16, 2), pre_activation, 8, 2),
        (lambda: InvertedResidual(8, 8, 1, 6), inverted, 8, 1),
        (lambda: InvertedResidual(8, 12, 1, 6), inverted, 8, 1),
        (lambda: InvertedResidual(8, 8, 2, 6), inverted, 8, 2),
        (lambda: ShuffleBlock(24, 240, 2), shuffle_v1, 24, 2),
        (lambda: ShuffleBlock(48, 96, 2), shuffle_v1, 48, 2),
        (lambda: ShuffleBlock(48, 48, 1), shuffle_v1, 48, 1),
        (lambda: SplitBlock(12), split, 12, 1),
        (lambda: DownBlock(8, 16), down, 8, 2),
    ],
)
def test_block_by_its_definition(
    build: Callable[[], nn.Module],
    reference: Callable[[nn.Module, Tensor, int], Tensor],
    in_channels: int,
    stride: int,
) -> None:
    torch.manual_seed(0)
    block = build().double()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    x = torch.randn(3, in_channels, 6, 6, dtype=torch.float64, requires_grad=True)
    found, expected = block(x), reference(block, x, stride)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    inputs = (x, *block.parameters())
    for gradient, other in zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(gradient, other)
