"""ResNet50 for 32-pixel images: the ImageNet network's bottleneck stages on a 3x3 stem without pooling."""

import torch.nn.functional as F
from torch import Tensor, nn

from lauter.models.cifar.staged import StagedBackbone, conv_bn, init_fan_out

EXPANSION = 4
"""Output channels of a bottleneck over its inner channels."""


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the 3x3 carries the stride."""

    def __init__(self, in_channels: int, inner: int, stride: int) -> None:
        super().__init__()
        channels = EXPANSION * inner
        self.branch = nn.Sequential(
            *conv_bn(in_channels, inner, 1),
            *conv_bn(inner, inner, 3, stride),
            *conv_bn(inner, channels, 1, relu=False),
        )
        same = stride == 1 and in_channels == channels
        self.shortcut = nn.Identity() if same else conv_bn(in_channels, channels, 1, stride, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, 4 * inner, H / stride, W / stride], after the ReLU."""
        out: Tensor = self.branch(x)
        out += self.shortcut(x)
        return F.relu(out, inplace=True)


def resnet50() -> StagedBackbone:
    """Build ResNet50 with a 3x3 stem of stride 1.

    Returns:
        A backbone with D = 2048 and four maps at full, half, quarter and eighth size.

    Source: He et al. (2016), arXiv 1512.03385; the stem as in the CRD benchmark (arXiv 1910.10699).
    """
    stages = []
    channels = 64
    for inner, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        first = Bottleneck(channels, inner, stride)
        channels = EXPANSION * inner
        stages.append(
            nn.Sequential(first, *(Bottleneck(channels, inner, stride=1) for _ in range(blocks - 1)))
        )
    backbone = StagedBackbone(conv_bn(3, 64, 3), stages, feature_size=channels)
    init_fan_out(backbone)
    return backbone
