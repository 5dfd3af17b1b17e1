"""VGG networks with batch normalisation and one linear classifier, vgg8 to vgg19."""

from torch import nn

from lauter.models.cifar.staged import StagedBackbone, init_fan_out

CONVOLUTIONS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
"""Convolutions in each of the five stages, by depth."""
WIDTHS = (64, 128, 256, 512, 512)
POOLED_STAGES = (1, 2, 3)
"""Stages that begin with a 2x2 max pooling; the fifth stage keeps the fourth's size."""


def vgg(depth: int) -> StagedBackbone:
    """Build a VGG network.

    Args:
        depth: 8, 11, 13, 16 or 19.

    Returns:
        A backbone with D = 512 and five maps at full, half, quarter, eighth and eighth size.

    Source: Simonyan and Zisserman (2015), arXiv 1409.1556; vgg8, batch normalisation and the average pooling
    in place of the large classifier as in the CRD benchmark (arXiv 1910.10699). Departure: that benchmark
    pools once more on 64-pixel images; here the layers are the same for every size.
    """
    stages = []
    channels = 3
    for stage, (width, convolutions) in enumerate(zip(WIDTHS, CONVOLUTIONS[depth], strict=True)):
        layers: list[nn.Module] = [nn.MaxPool2d(2)] if stage in POOLED_STAGES else []
        for _ in range(convolutions):
            # The convolutions have biases, though the normalisation takes them out again: the benchmark's do.
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        stages.append(nn.Sequential(*layers))
    backbone = StagedBackbone(nn.Identity(), stages, feature_size=channels)
    init_fan_out(backbone)
    return backbone
