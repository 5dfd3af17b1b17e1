"""ResNets of basic blocks for 32-pixel images: resnet8 to resnet110, and the four times wider ones."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from lauter.models.cifar.staged import StagedBackbone, conv_bn, init_fan_out


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the shortcut is projected where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *conv_bn(in_channels, channels, 3, stride), *conv_bn(channels, channels, 3, relu=False)
        )
        same = stride == 1 and in_channels == channels
        self.shortcut = nn.Identity() if same else conv_bn(in_channels, channels, 1, stride, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H / stride, W / stride], after the ReLU."""
        out: Tensor = self.branch(x)
        out += self.shortcut(x)
        return F.relu(out, inplace=True)


def resnet(depth: int, widths: tuple[int, int, int, int] = (16, 16, 32, 64)) -> StagedBackbone:
    """Build a CIFAR ResNet of ``depth`` = 6n + 2 layers.

    Args:
        depth: layers, the classifier included.
        widths: channels of the stem and of the three stages.

    Returns:
        A backbone with D = the last width and three maps at full, half and quarter size.

    Source: He et al. (2016), arXiv 1512.03385, section 4.2; projected shortcuts and the wider widths
    (32, 64, 128, 256) as in the CRD benchmark (Tian et al., arXiv 1910.10699).
    """
    blocks = (depth - 2) // 6
    stages = []
    for stage, (before, width) in enumerate(pairwise(widths)):
        first = BasicBlock(before, width, stride=1 if stage == 0 else 2)
        stages.append(nn.Sequential(first, *(BasicBlock(width, width, stride=1) for _ in range(blocks - 1))))
    backbone = StagedBackbone(conv_bn(3, widths[0], 3), stages, feature_size=widths[-1])
    init_fan_out(backbone)
    return backbone
