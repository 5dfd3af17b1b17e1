"""Crops of streamed images: where a view lies in a picture, and how it is brought to its size.

Boxes are whole pixels, and pixels are resampled by torch's antialiased bilinear filter on 8 bits, which is
computed in integers: vector instructions, memory layout and number of threads change nothing.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from lauter.data.dataset import Pixels
from lauter.data.views import CropDraws


class Box(NamedTuple):
    """A part of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


def middle_box(height: int, width: int) -> Box:
    """The largest square in the middle of a picture: the usual crop of evaluation.

    Example:
        >>> middle_box(10, 31)
        Box(top=0, left=10, height=10, width=10)
    """
    side = min(height, width)
    return Box((height - side) // 2, (width - side) // 2, side, side)


def place_box(draws: CropDraws, place: int, height: int, width: int) -> Box:
    """The RandomResizedCrop that was drawn for one image, in its pixels.

    Area and proportions are those of the crop as it lies in the picture. A side that would be longer than the
    picture's is cut to it.

    Args:
        draws: of a batch.
        place: of the image in the batch.
        height: of the picture.
        width: of the picture.

    Returns:
        A box within the picture, one pixel or more on each side; every position is equally probable.
    """
    area, ratio = float(draws.area[place]) * height * width, float(draws.ratio[place])
    tall = min(height, max(1, round(math.sqrt(area / ratio))))
    wide = min(width, max(1, round(math.sqrt(area * ratio))))
    top = int(draws.top[place] * (height - tall + 1))
    left = int(draws.left[place] * (width - wide + 1))
    return Box(top, left, tall, wide)


def resize_crop(picture: Pixels, box: Box, size: int, *, flip: bool = False) -> Pixels:
    """Cut a box out of a picture and bring it to a square.

    A box of that size is copied as it is.

    Args:
        picture: uint8 [H, W, 3].
        box: what is cut out; within the picture.
        size: S, side of the square.
        flip: whether left and right change places.

    Returns:
        uint8 [S, S, 3].
    """
    top, left, height, width = box
    crop = picture[None, top : top + height, left : left + width].copy()
    pixels = torch.from_numpy(crop).permute(0, 3, 1, 2)  # channels_last, which the filter is fastest on
    if (height, width) != (size, size):
        pixels = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True, align_corners=False)
    if flip:
        pixels = pixels.flip(3)
    return np.asarray(pixels[0].permute(1, 2, 0).numpy())
