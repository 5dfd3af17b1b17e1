"""Wide ResNets: pre-activation residual networks, wrn_DEPTH_WIDTH."""

from torch import Tensor, nn

from lauter.models.cifar.staged import StagedBackbone, init_fan_out


class PreActivationBlock(nn.Module):
    """Two times normalise, rectify, convolve, beside a shortcut.

    Where the number of channels changes, the shortcut is a 1x1 convolution of the already activated input;
    else it is the raw input.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True))
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
        )
        self.projection = (
            None if in_channels == channels else nn.Conv2d(in_channels, channels, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H / stride, W / stride], not yet activated."""
        active = self.activation(x)
        out: Tensor = self.branch(active)
        out += x if self.projection is None else self.projection(active)
        return out


def wide_resnet(depth: int, width: int) -> StagedBackbone:
    """Build a wide ResNet of ``depth`` = 6n + 4 layers, without dropout.

    Args:
        depth: layers, the classifier included.
        width: factor on the stages' channels 16, 32, 64.

    Returns:
        A backbone with D = 64 * width and three maps at full, half and quarter size, before activation.

    Source: Zagoruyko and Komodakis (2016), arXiv 1605.07146.
    """
    blocks = (depth - 4) // 6
    stages = []
    channels = 16
    for base, stride in ((16, 1), (32, 2), (64, 2)):
        first = PreActivationBlock(channels, base * width, stride)
        channels = base * width
        rest = (PreActivationBlock(channels, channels, stride=1) for _ in range(blocks - 1))
        stages.append(nn.Sequential(first, *rest))
    stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
    tail = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
    backbone = StagedBackbone(stem, stages, feature_size=channels, tail=tail)
    init_fan_out(backbone)
    return backbone
