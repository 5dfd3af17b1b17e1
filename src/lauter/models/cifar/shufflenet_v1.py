"""ShuffleNet (version 1) with three groups for 32-pixel images."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lauter.models.cifar.channel_shuffle import shuffle_channels
from lauter.models.cifar.staged import StagedBackbone, conv_bn

GROUPS = 3


class ShuffleBlock(nn.Module):
    """Grouped 1x1, shuffle, 3x3 per channel, grouped 1x1; added to its input, or joined to it at stride 2."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        branch_channels = channels - in_channels if stride == 2 else channels
        inner = branch_channels // 4
        # The stem's few channels are not grouped.
        self.groups = 1 if in_channels == 24 else GROUPS
        self.stride = stride
        self.reduce = conv_bn(in_channels, inner, 1, groups=self.groups)
        self.expand = nn.Sequential(
            *conv_bn(inner, inner, 3, stride, groups=inner),
            *conv_bn(inner, branch_channels, 1, groups=GROUPS, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H / stride, W / stride], after the ReLU."""
        out: Tensor = self.expand(shuffle_channels(self.reduce(x), self.groups))
        if self.stride == 2:
            out = torch.cat([out, F.avg_pool2d(x, 3, stride=2, padding=1)], dim=1)
        else:
            out += x
        return F.relu(out, inplace=True)


def shufflenet_v1() -> StagedBackbone:
    """Build ShuffleNet with 240, 480 and 960 channels on a 1x1 stem.

    Convolutions start as PyTorch draws them, as in the benchmark.

    Returns:
        A backbone with D = 960 and three maps at half, quarter and eighth size.

    Source: Zhang et al. (2018), arXiv 1707.01083; the stem and the ReLU after the 3x3 convolution as in the
    CRD benchmark (arXiv 1910.10699).
    """
    stages = []
    channels = 24
    for width, blocks in ((240, 4), (480, 8), (960, 4)):
        first = ShuffleBlock(channels, width, stride=2)
        stages.append(
            nn.Sequential(first, *(ShuffleBlock(width, width, stride=1) for _ in range(blocks - 1)))
        )
        channels = width
    return StagedBackbone(conv_bn(3, 24, 1), stages, feature_size=channels)
