"""StagedBackbone: stem, stages, tail, global average pooling. What every zoo family is built as."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class StagedBackbone(nn.Module):
    """A convolutional backbone whose stages can be looked at.

    Fully convolutional, then pooled over all positions, so the input's side is free (28 to 64 pixels are
    usual, 8 is the least).

    Args:
        stem: images [B, 3, H, W] to the first stage's input.
        stages: applied in order; their outputs are the maps. A stage must not change its input in place.
        feature_size: D, the channels that the tail gives.
        tail: what stands between the last stage and the pooling; None for nothing.
    """

    feature_size: int

    def __init__(
        self, stem: nn.Module, stages: Iterable[nn.Module], feature_size: int, tail: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.tail = nn.Identity() if tail is None else tail
        self.feature_size = feature_size

    def forward(self, images: Tensor, want_maps: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Normalised images [B, 3, H, W] -> features [B, D] and, where asked for, every stage's output.

        Args:
            images: normalised, any memory format; channels_last is kept throughout.
            want_maps: whether to return the stages' outputs [B, C_j, H_j, W_j] by depth.

        Returns:
            Features after the last activation and global average pooling, in float32 at least, and the maps
            (else empty).
        """
        x = self.stem(images)
        maps: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            if want_maps:
                maps.append(x)
        x = self.tail(x)
        # Under autocast the maps are bfloat16; features rounded to it would flip some of their hash bits.
        dtype = torch.promote_types(x.dtype, torch.float32)
        return torch.mean(x, dim=(2, 3), dtype=dtype), tuple(maps)


def conv_bn(
    in_channels: int, channels: int, kernel_size: int, stride: int = 1, groups: int = 1, *, relu: bool = True
) -> nn.Sequential:
    """Convolution without bias and "same" padding, batch normalisation and, unless told not to, a ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels),
    ]
    # The ReLU may write over the normalisation's output: its backward pass reads the input alone.
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


def init_fan_out(backbone: nn.Module) -> None:
    """Draw every convolution from Normal(0, 2 / (k * k * output channels)); biases start at zero.

    Batch normalisations keep their start at weight 1 and bias 0, the last one of a residual branch too: the
    benchmark does not start residual branches at zero.

    Source: He et al. (2015), arXiv 1502.01852, in its fan-out form, as the CRD benchmark does it.
    """
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
