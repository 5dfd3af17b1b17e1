"""The channel shuffle of both ShuffleNets."""

from torch import Tensor


def shuffle_channels(x: Tensor, groups: int) -> Tensor:
    """Deal the channels [B, C, H, W] of ``groups`` equal groups out in turn: one of each, and again.

    Works on the channels as the last axis, so that channels_last memory stays channels_last.
    """
    batch, channels, height, width = x.shape
    grouped = x.permute(0, 2, 3, 1).reshape(batch, height, width, groups, channels // groups)
    return grouped.transpose(3, 4).flatten(3).permute(0, 3, 1, 2)
