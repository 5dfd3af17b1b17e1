"""MobileNetV2 of half width for 32-pixel images."""

from torch import Tensor, nn

from lauter.models.cifar.staged import StagedBackbone, conv_bn, init_fan_out

BLOCKS = (
    ((1, 8, 1, 1), (6, 12, 2, 1)),
    ((6, 16, 3, 2),),
    ((6, 32, 4, 2), (6, 48, 3, 1)),
    ((6, 80, 3, 2), (6, 160, 1, 1)),
)
"""By stage: (expansion, channels, repeats, stride of the first); channels are half of the paper's."""


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter each channel by 3x3, project by 1x1 without activation; add where it fits."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = expansion * in_channels
        self.branch = nn.Sequential(
            *conv_bn(in_channels, inner, 1),
            *conv_bn(inner, inner, 3, stride, groups=inner),
            *conv_bn(inner, channels, 1, relu=False),
        )
        self.residual = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H / stride, W / stride]."""
        out: Tensor = self.branch(x)
        if self.residual:
            out += x
        return out


def mobilenet_v2() -> StagedBackbone:
    """Build MobileNetV2 with expansion 6, width 0.5 and a last layer of full width.

    Returns:
        A backbone with D = 1280 and four maps at half, quarter, eighth and sixteenth size.

    Source: Sandler et al. (2018), arXiv 1801.04381; strides, ReLU in place of ReLU6 and the expanding
    convolution that the first block keeps, as in the CRD benchmark (arXiv 1910.10699).
    """
    channels = 16
    stem = conv_bn(3, channels, 3, stride=2)
    stages = []
    for groups in BLOCKS:
        blocks = []
        for expansion, width, repeats, stride in groups:
            for repeat in range(repeats):
                blocks.append(InvertedResidual(channels, width, stride if repeat == 0 else 1, expansion))
                channels = width
        stages.append(nn.Sequential(*blocks))
    backbone = StagedBackbone(stem, stages, feature_size=1280, tail=conv_bn(channels, 1280, 1))
    init_fan_out(backbone)
    return backbone
