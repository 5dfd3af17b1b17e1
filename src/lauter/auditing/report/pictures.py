"""Which pictures the report shows, and their thumbnails."""

import base64
import io

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from lauter.errors import DataError

LONG_SIDE = 96
"""Longest side of a thumbnail, in pixels."""
DOUBTFUL = ("relabel", "drop", "ask")
KEPT_SHARE = 8
"""At most one in so many pictures shows a label that was kept, for comparison."""


def select_doubtful(labels: pd.DataFrame, max_pictures: int) -> list[int]:
    """Choose the most doubtful images: an equal share to each verdict, least sure of the given label first.

    Sorting all by doubt would fill the page with the plainest errors and never show what is for a person to
    decide. A few of the least sure labels that were kept stand beside them, to judge the threshold by.

    Args:
        labels: columns verdict and p_given_right.
        max_pictures: upper bound on what is returned.

    Returns:
        Positions of rows, ordered by p_given_right.
    """
    doubt = labels["p_given_right"].to_numpy(dtype=np.float64, na_value=np.nan)
    order = np.argsort(doubt, kind="stable")  # NaN comes last
    verdicts = labels["verdict"].to_numpy(dtype=object)
    queues = {name: order[verdicts[order] == name] for name in (*DOUBTFUL, "keep")}
    num_kept = min(len(queues["keep"]), max_pictures // KEPT_SHARE)
    taken = dict.fromkeys(DOUBTFUL, 0)
    room = max_pictures - num_kept
    for name in sorted(DOUBTFUL, key=lambda name: len(queues[name])):
        # From the smallest queue up, so that what one verdict leaves goes to the others.
        open_queues = sum(1 for other in DOUBTFUL if not taken[other] and len(queues[other]))
        taken[name] = min(len(queues[name]), room // max(1, open_queues))
        room -= taken[name]
    chosen = [queues[name][:count] for name, count in (*taken.items(), ("keep", num_kept))]
    is_chosen = np.isin(order, np.concatenate(chosen))
    return [int(row) for row in order[is_chosen]]


def encode_thumbnail(pixels: NDArray[np.uint8], long_side: int = LONG_SIDE) -> tuple[str, int, int]:
    """Shrink a picture and encode it as a WebP data URI; small ones keep their size.

    Args:
        pixels: uint8 [3, H, W] in RGB.
        long_side: longest side of the result, in pixels.

    Returns:
        The data URI, its width and its height.

    Raises:
        DataError: the array is not a picture.
    """
    payload, width, height = encode_webp(pixels, long_side, quality=84)
    return f"data:image/webp;base64,{base64.b64encode(payload).decode('ascii')}", width, height


def encode_webp(pixels: NDArray[np.uint8], long_side: int, quality: int) -> tuple[bytes, int, int]:
    """Shrink a picture and encode it as WebP; small ones keep their size.

    Args:
        pixels: uint8 [3, H, W] in RGB.
        long_side: longest side of the result, in pixels.
        quality: 0..100.

    Returns:
        The file's bytes, its width and its height.

    Raises:
        DataError: the array is not a picture.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[0] != 3 or not pixels.size:
        raise DataError(f"a picture must be uint8 [3, H, W], not {pixels.dtype} {list(pixels.shape)}")
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    image.thumbnail((long_side, long_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=quality, method=4)
    return buffer.getvalue(), image.width, image.height
