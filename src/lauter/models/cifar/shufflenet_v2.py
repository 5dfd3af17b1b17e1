"""ShuffleNetV2 of width 1 for 32-pixel images."""

import torch
from torch import Tensor, nn

from lauter.models.cifar.channel_shuffle import shuffle_channels
from lauter.models.cifar.staged import StagedBackbone, conv_bn


class SplitBlock(nn.Module):
    """Half of the channels pass as they are, half through 1x1, 3x3 per channel, 1x1; joined and shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            *conv_bn(half, half, 1), *conv_bn(half, half, 3, groups=half, relu=False), *conv_bn(half, half, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        kept, changed = x.chunk(2, dim=1)
        return shuffle_channels(torch.cat([kept, self.branch(changed)], dim=1), groups=2)


class DownBlock(nn.Module):
    """Two branches of stride 2 on all channels, joined and shuffled."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.short = nn.Sequential(
            *conv_bn(in_channels, in_channels, 3, 2, groups=in_channels, relu=False),
            *conv_bn(in_channels, half, 1),
        )
        self.long = nn.Sequential(
            *conv_bn(in_channels, half, 1),
            *conv_bn(half, half, 3, 2, groups=half, relu=False),
            *conv_bn(half, half, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H / 2, W / 2]."""
        return shuffle_channels(torch.cat([self.short(x), self.long(x)], dim=1), groups=2)


def shufflenet_v2() -> StagedBackbone:
    """Build ShuffleNetV2 with 116, 232 and 464 channels on a 1x1 stem.

    Convolutions start as PyTorch draws them, as in the benchmark.

    Returns:
        A backbone with D = 1024 and three maps at half, quarter and eighth size.

    Source: Ma et al. (2018), arXiv 1807.11164; the stem as in the CRD benchmark (arXiv 1910.10699).
    """
    stages = []
    channels = 24
    for width, blocks in ((116, 3), (232, 7), (464, 3)):
        stages.append(nn.Sequential(DownBlock(channels, width), *(SplitBlock(width) for _ in range(blocks))))
        channels = width
    return StagedBackbone(conv_bn(3, 24, 1), stages, feature_size=1024, tail=conv_bn(channels, 1024, 1))
