"""Thumbnails that together keep below a bound: as large and as good as it allows."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lauter.auditing.report.pictures import encode_webp

RUNGS = ((192, 82), (160, 80), (128, 78), (112, 72), (96, 64), (80, 56), (64, 48), (48, 40))
"""Longest side in pixels and WebP quality, the best first."""
BYTES_PER_PICTURE = 11_000
"""What a picture may take in the page on average, as base64: 2,000 of them stay below 22 MB."""
SAMPLE = 48
"""Pictures that are tried before a rung is chosen."""
MARGIN = 0.9
"""Share of the bound that the tried pictures may fill, for the others may be harder."""


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """Pictures as the page holds them.

    Attributes:
        payloads: [M] WebP files in base64.
        widths: [M] in pixels.
        heights: [M] in pixels.
    """

    payloads: list[str]
    widths: list[int]
    heights: list[int]


def make_thumbnails(picture: Callable[[int], NDArray[np.uint8]], rows: Sequence[int]) -> Thumbnails:
    """Encode the pictures of ``rows`` within ``BYTES_PER_PICTURE`` on average.

    A sample decides on size and quality; were the others so much harder that the bound is passed, all are
    encoded again one rung lower. Small pictures keep their size. The last rung is taken as it comes out: it
    holds 48 x 48 pixels, which fit even as noise.

    Args:
        picture: row -> uint8 [3, H, W].
        rows: [M] which, in the order of the result.

    Raises:
        DataError: a picture is not uint8 [3, H, W].
    """
    bound = BYTES_PER_PICTURE * len(rows)
    step = max(1, len(rows) // SAMPLE)
    first = 0
    if rows:
        sample = [picture(row) for row in rows[::step]]
        fits = [_measure(sample, *rung) <= MARGIN * BYTES_PER_PICTURE for rung in RUNGS]
        first = fits.index(True) if any(fits) else len(RUNGS) - 1
    for rung in RUNGS[first:-1]:
        found = _encode_all(picture, rows, *rung)
        if sum(map(len, found.payloads)) <= bound:
            return found
    return _encode_all(picture, rows, *RUNGS[-1])


def _measure(sample: Sequence[NDArray[np.uint8]], long_side: int, quality: int) -> float:
    """Mean length in base64."""
    return float(np.mean([4 * -(-len(encode_webp(pixels, long_side, quality)[0]) // 3) for pixels in sample]))


def _encode_all(
    picture: Callable[[int], NDArray[np.uint8]], rows: Sequence[int], long_side: int, quality: int
) -> Thumbnails:
    thumbnails = Thumbnails([], [], [])
    for row in rows:
        payload, width, height = encode_webp(picture(row), long_side, quality)
        thumbnails.payloads.append(base64.b64encode(payload).decode("ascii"))
        thumbnails.widths.append(width)
        thumbnails.heights.append(height)
    return thumbnails
