"""Image faults: what is wrong with a picture whatever its label says.

Faults of a file (unreadable, truncated, empty, tiny, enormous, ...) are found when it is opened, see
``data/images.py``; the faults here are of pictures that could be read. None leaves a picture out.

==============  ========================================================================================
blank           one colour, or nearly: what a lens cap, an empty scan or a failed download leave
featureless     a smooth run of colour and nothing in it: fog, blur, a wall
dark            hardly a pixel that is not dark
bright          hardly a pixel that is not bright, though not blank: overexposed
greyscale       a grey picture where nearly all others are in colour
colour          a coloured picture where nearly all others are grey
extreme aspect  so long that a square view of it shows less than a third of its area
small           much smaller than the other pictures, so that it is blurred where they are sharp
==============  ========================================================================================

All thresholds are our choice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lauter.auditing.image_measures import BRIGHT_LEVEL, DARK_LEVEL, Float32s, ImageMeasures
from lauter.data.dataset import ImageFault, Pixels
from lauter.data.images import MAX_ASPECT
from lauter.errors import ConfigError, DataError

Bools = NDArray[np.bool_]
_GREY = 1.0
"""Mean difference of the channels, in levels, up to which a picture is grey: what chroma in JPEG leaves."""


@dataclass(frozen=True)
class FaultRules:
    """From where on a picture is at fault.

    Attributes:
        blank_spread: levels of 0..255; a picture is blank where the standard deviation of its pixels is at
            most this in every channel.
        featureless_detail: levels; a picture is featureless where its thumbnail differs by at most this
            from a plane of colour (:func:`measure_detail`).
        exposure_share: share of pixels that must be dark, or bright.
        odd_share: grey pictures among coloured ones (or the reverse) are at fault where they are at most
            this share of the set; more of them are a property of the set.
        max_aspect: longer side by shorter side above which an aspect is extreme.
        small_side: a picture is small where its shorter side is below this share of the set's median.
    """

    blank_spread: float = 2.0
    featureless_detail: float = 3.0
    exposure_share: float = 0.98
    odd_share: float = 0.1
    max_aspect: float = MAX_ASPECT
    small_side: float = 0.25

    def __post_init__(self) -> None:
        for name in ("blank_spread", "featureless_detail"):
            if not 0 <= getattr(self, name) < 128:
                raise ConfigError(f"{name} must be in 0..128 levels, not {getattr(self, name)}")
        if not 0.5 < self.exposure_share <= 1:
            raise ConfigError(
                f"exposure_share must be above 0.5 and at most 1, not {self.exposure_share}; a picture can "
                "otherwise be dark and bright at once"
            )
        if not 0 <= self.odd_share < 0.5:
            raise ConfigError(f"odd_share must be in 0..0.5 without its end, not {self.odd_share}")
        if not self.max_aspect > 1:
            raise ConfigError(f"max_aspect must be above 1, not {self.max_aspect}")
        if not 0 <= self.small_side <= 1:
            raise ConfigError(f"small_side must be in 0..1, not {self.small_side}")


def find_image_faults(
    measures: ImageMeasures, ids: Sequence[str] | NDArray[np.str_], rules: FaultRules | None = None
) -> tuple[ImageFault, ...]:
    """Name what is wrong with pictures.

    Args:
        measures: of N images.
        ids: [N] ids.
        rules: thresholds; the defaults where None.

    Returns:
        Faults in the order of the images, the measures' own notes first; an image may have several, but
        what is blank is not also called featureless, dark, bright or odd in colour. None is dropped.

    Raises:
        DataError: there are not as many ids as images.

    Example:
        >>> from lauter.auditing.image_measures import measure_images
        >>> from lauter.data.dataset import ResidentImages
        >>> grey = ResidentImages(np.full((1, 3, 32, 32), 120, dtype=np.uint8))
        >>> [fault.fault for fault in find_image_faults(measure_images(grey, ["a.png"]), ["a.png"])]
        ['blank']
    """
    rules = rules or FaultRules()
    if len(ids) != len(measures):
        raise DataError(f"{len(ids)} ids for the measures of {len(measures)} images; hand over one for each")
    found = [
        (int(row), kind, text)
        for kind, mask, details in _judge(measures, rules)
        for row, text in zip(np.flatnonzero(mask), details(mask), strict=True)
    ]
    found.sort(key=lambda entry: entry[0])
    return (*measures.notes, *(ImageFault(str(ids[row]), kind, text, False) for row, kind, text in found))


def measure_detail(thumbnails: Pixels) -> Float32s:
    r"""How much a thumbnail holds beside a smooth run of colour.

    .. math:: d = \max_c \sqrt{\tfrac{1}{256} \min_{a, b, e} \sum_{yx} (t_{cyx} - a - b y - e x)^2}

    Args:
        thumbnails: uint8 [N, 3, 16, 16].

    Returns:
        [N] in levels of 0..255, of the channel where it is largest.
    """
    side = thumbnails.shape[-1]
    across = np.arange(side) - (side - 1) / 2
    ones = np.ones(side)
    plane = np.stack([np.outer(ones, ones), np.outer(across, ones), np.outer(ones, across)]).reshape(3, -1)
    plane /= np.linalg.norm(plane, axis=1, keepdims=True)
    detail = np.empty(len(thumbnails), dtype=np.float32)
    for start in range(0, len(thumbnails), 4096):
        values = thumbnails[start : start + 4096].astype(np.float64).reshape(-1, 3, side * side)
        left = values - (values @ plane.T) @ plane
        detail[start : start + 4096] = np.sqrt(np.square(left).mean(2)).max(1)
    return detail


def _judge(measures: ImageMeasures, rules: FaultRules) -> Iterator[tuple[str, Bools, "_Details"]]:
    """Each kind of fault, the images that have it, and what to say of them."""
    readable = measures.readable
    blank = readable & (measures.spread <= rules.blank_spread)
    filled = readable & ~blank
    detail = measure_detail(measures.thumbnails)
    yield "blank", blank, _Details("its pixels spread by {:.1f} levels", measures.spread)
    dark = filled & (measures.dark_share >= rules.exposure_share)
    yield "dark", dark, _Details(f"{{:.1%}} of its pixels are below level {DARK_LEVEL}", measures.dark_share)
    bright = filled & (measures.bright_share >= rules.exposure_share)
    text = f"{{:.1%}} of its pixels are above level {BRIGHT_LEVEL}"
    yield "bright", bright, _Details(text, measures.bright_share)
    smooth = filled & (detail <= rules.featureless_detail)
    yield "featureless", smooth, _Details("a smooth run of colour explains it up to {:.1f} levels", detail)
    grey = filled & (measures.colour <= _GREY)
    for kind, odd in (("greyscale", grey), ("colour", filled & ~grey)):
        share = odd.sum() / max(1, filled.sum())
        if share <= rules.odd_share:
            yield kind, odd, _Details("as only {:.1%} of the pictures are", np.full(len(measures), share))
    shorter = np.minimum(measures.heights, measures.widths)
    aspect = np.maximum(measures.heights, measures.widths) / np.maximum(shorter, 1)
    long = readable & (aspect > rules.max_aspect)
    yield "extreme aspect", long, _Details("{:.1f} to 1", aspect)
    usual = float(np.median(shorter[readable])) if readable.any() else 0.0
    small = readable & (shorter < rules.small_side * usual)
    yield "small", small, _Details(f"{{:.0f}} pixels on its shorter side, usual are {usual:.0f}", shorter)


@dataclass(frozen=True, eq=False)
class _Details:
    """A sentence with a place for a number of each image."""

    text: str
    values: NDArray[np.generic]

    def __call__(self, mask: Bools) -> list[str]:
        return [self.text.format(value) for value in self.values[mask].tolist()]
