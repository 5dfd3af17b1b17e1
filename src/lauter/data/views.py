"""Replayable views: augmentation in batches, on the device, as a pure function of (seed, index, view).

The same view of the same image is equal bit for bit in any batch order and size. Two things make it so:
parameters come from integer counters (``data/counters.py``), and pixels are computed by integer or purely
elementwise arithmetic, never by a reduction whose order a device may choose.

Views are uint8 at raw scale; each Network normalises for itself, so that teacher and student see the same
picture.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lauter.data.counters import draw_uniforms
from lauter.errors import ConfigError

VERSION = 2
"""Changes whenever the same recipe would give other pixels; part of every bank's and cache's key."""

_LUMA = (19595, 38470, 7471)  # ITU-R 601 grey in 16-bit fixed point; sums to 65536
_COLUMNS = 16
# Which draw decides what; a new parameter takes a new column, so that old views stay as they are.
_AREA, _RATIO, _TOP, _LEFT, _FLIP, _JITTER, _BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(10)
_GREY, _BLUR, _SIGMA, _HOLE_TOP, _HOLE_LEFT = range(10, 15)


@dataclass(frozen=True)
class ViewRecipe:
    """How a view is made of an image; all zero is the image itself.

    Attributes:
        pad: pixels of black added on every side before a random crop back to size (0: no such crop).
        area: smallest and largest share of the image in a RandomResizedCrop; (1, 1) switches it off.
        ratio: smallest and largest width / height of that crop.
        flip: probability of a horizontal flip.
        cutout: side of a black square, as a share of the image's side.
        jitter: probability of colour jitter.
        brightness: largest relative change of brightness.
        contrast: largest relative change of contrast.
        saturation: largest relative change of saturation.
        hue: largest turn of the hue, as a share of a full circle.
        grey: probability of greyscale.
        blur: probability of a Gaussian blur.
        blur_sigma: smallest and largest sigma in pixels at side 224, scaled with the side.
    """

    pad: int = 0
    area: tuple[float, float] = (1.0, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.0
    cutout: float = 0.0
    jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grey: float = 0.0
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        for name in ("flip", "cutout", "jitter", "grey", "blur", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"view {name} must be between 0 and 1, not {getattr(self, name)}")
        if not 0 <= self.hue <= 0.5:
            raise ConfigError(f"view hue must be between 0 and 0.5, not {self.hue}")
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ConfigError(f"view area must be 0 < smallest <= largest <= 1, not {self.area}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ConfigError(f"view ratio must be 0 < smallest <= largest, not {self.ratio}")
        if self.pad < 0:
            raise ConfigError(f"view pad must be 0 or more pixels, not {self.pad}")
        if self.pad and self.resizes:
            raise ConfigError(
                f"a view takes one crop: pad {self.pad} with area (1, 1), or area {self.area} with pad 0"
            )
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ConfigError(f"view blur_sigma must be 0 < smallest <= largest, not {self.blur_sigma}")

    @property
    def resizes(self) -> bool:
        """Whether the view takes a RandomResizedCrop."""
        return self.area[0] < 1

    @property
    def colours(self) -> bool:
        """Whether the view changes colours."""
        return self.jitter > 0 or self.grey > 0

    def key(self) -> str:
        """Text that is equal for equal views, for caches."""
        return f"v{VERSION}:" + ",".join(f"{name}={value}" for name, value in asdict(self).items())


IDENTITY = ViewRecipe()


def supervised_view(augment: str, size: int) -> ViewRecipe:
    """The view for training with labels or with a teacher.

    Args:
        augment: 'none', 'digits' (small shifts, no flip) or 'objects' (crop and flip).
        size: side of the image in pixels.

    Returns:
        Up to 96 pixels the crop is padded by an eighth of the side; above, it is a RandomResizedCrop.
    """
    _check_augment(augment)
    if augment == "none":
        return IDENTITY
    flip = 0.5 if augment == "objects" else 0.0
    if size > 96:
        return ViewRecipe(area=(0.08 if augment == "objects" else 0.6, 1.0), flip=flip)
    return ViewRecipe(pad=max(1, size // 8), flip=flip)


def contrastive_view(augment: str, size: int) -> ViewRecipe:
    """The view for self-supervised pretraining (SimCLR's, with blur only above 96 pixels)."""
    _check_augment(augment)
    if augment == "none":
        raise ConfigError("self-supervised pretraining needs views that differ: --augment digits or objects")
    if augment == "digits":
        return ViewRecipe(area=(0.4, 1.0), jitter=0.8, brightness=0.4, contrast=0.4)
    return ViewRecipe(
        area=(0.2, 1.0),
        flip=0.5,
        jitter=0.8,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.1,
        grey=0.2,
        blur=0.5 if size > 96 else 0.0,
    )


def _check_augment(augment: str) -> None:
    if augment not in ("none", "digits", "objects"):
        raise ConfigError(f"augment must be none, digits or objects, not {augment!r}")


@dataclass(frozen=True, eq=False)
class CropDraws:
    """What was drawn for the crops and flips of a batch, before the pictures are known.

    Attributes:
        area: [B] share of the image.
        ratio: [B] width / height.
        top: [B] place between the highest one (0) and the lowest (1).
        left: [B] place between the leftmost one (0) and the rightmost (1).
        flip: [B] whether left and right change places.
    """

    area: NDArray[np.float64]
    ratio: NDArray[np.float64]
    top: NDArray[np.float64]
    left: NDArray[np.float64]
    flip: NDArray[np.bool_]


def draw_crops(recipe: ViewRecipe, seed: int, index: NDArray[np.int64], view: int) -> CropDraws:
    """Draw crops and flips by a recipe; see :func:`render_view` for the arguments."""
    draws = draw_uniforms(seed, index, view, _FLIP + 1)
    low, high = math.log(recipe.ratio[0]), math.log(recipe.ratio[1])
    return CropDraws(
        area=recipe.area[0] + draws[:, _AREA] * (recipe.area[1] - recipe.area[0]),
        ratio=np.exp(low + draws[:, _RATIO] * (high - low)),
        top=draws[:, _TOP],
        left=draws[:, _LEFT],
        flip=np.asarray(draws[:, _FLIP] < recipe.flip),
    )


def draw_crop_boxes(
    recipe: ViewRecipe, seed: int, index: NDArray[np.int64], view: int
) -> NDArray[np.float64]:
    """RandomResizedCrop boxes as fractions of a square image.

    Returns:
        [B, 4]: top, left, height, width, each in 0..1.
    """
    drawn = draw_crops(recipe, seed, index, view)
    height = np.minimum(np.sqrt(drawn.area / drawn.ratio), 1.0)
    width = np.minimum(np.sqrt(drawn.area * drawn.ratio), 1.0)
    return np.stack([drawn.top * (1 - height), drawn.left * (1 - width), height, width], axis=1)


def render_view(
    images: Tensor,
    recipe: ViewRecipe,
    seed: int,
    index: NDArray[np.int64],
    view: int,
    *,
    cropped: bool = False,
) -> Tensor:
    """Render one view of each image.

    Args:
        images: uint8 [B, 3, S, S] on any device.
        recipe: how.
        seed: the run's seed.
        index: [B] stable sample indices, on the host.
        view: the view's number.
        cropped: whether a reader has already cropped and flipped (streamed images; see ``data/reading.py``).
            A padded crop, and the flip after it, are left to this function.

    Returns:
        uint8 [B, 3, S, S].
    """
    if recipe == IDENTITY:
        return images
    draws = draw_uniforms(seed, index, view, _COLUMNS)
    flip = draws[:, _FLIP] < recipe.flip
    if recipe.resizes and not cropped:
        images = _resize_boxes(images, draw_crop_boxes(recipe, seed, index, view), flip)
    elif recipe.pad or (flip.any() and not cropped):
        images = _shift_and_flip(images, recipe.pad, draws, flip)
    if recipe.colours:
        images = _colour(images, recipe, draws)
    if recipe.blur:
        images = _blur(images, recipe, draws)
    if recipe.cutout:
        images = _cut_out(images, recipe.cutout, draws)
    return images


def _shift_and_flip(images: Tensor, pad: int, draws: NDArray[np.float64], flip: NDArray[np.bool_]) -> Tensor:
    if pad:
        size, places = images.shape[-1], 2 * pad + 1
        top, left = ((draws[:, column] * places).astype(np.int64) for column in (_TOP, _LEFT))
        # [B, 3, places, places, S, S] without a copy; whole windows are then copied, not pixel by pixel.
        windows = F.pad(images, (pad, pad, pad, pad)).unfold(2, size, 1).unfold(3, size, 1)
        sample = torch.arange(len(images), device=images.device)
        images = windows[sample, :, _to(top, images), _to(left, images)]
    if flip.any():
        images = torch.where(_to(flip, images)[:, None, None, None], images.flip(3), images)
    return images


def _resize_boxes(images: Tensor, boxes: NDArray[np.float64], flip: NDArray[np.bool_]) -> Tensor:
    """Bilinear crop-and-resize in 8-bit fixed point: integers, so equal on every device."""
    size = images.shape[-1]

    def axis(
        start: NDArray[np.float64], extent: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Lower neighbour and weight of the upper one (0..256) for each output pixel."""
        centres = (start[:, None] + (np.arange(size) + 0.5) / size * extent[:, None]) * size - 0.5
        fixed = np.rint(np.clip(centres, 0, size - 1) * 256).astype(np.int64)
        return fixed >> 8, fixed & 255

    rows, row_weights = axis(boxes[:, 0], boxes[:, 2])
    columns, column_weights = axis(boxes[:, 1], boxes[:, 3])
    columns = np.where(flip[:, None], columns[:, ::-1], columns)
    column_weights = np.where(flip[:, None], column_weights[:, ::-1], column_weights)
    top, left = _to(rows, images), _to(columns, images)
    below, right = (top + 1).clamp_(max=size - 1), (left + 1).clamp_(max=size - 1)
    down = _to(row_weights, images).int()[:, None, :, None]
    across = _to(column_weights, images).int()[:, None, None, :]
    sample = torch.arange(len(images), device=images.device)[:, None]
    by_row = images.transpose(1, 2)  # [B, S, 3, S]: whole rows are picked, then columns
    upper, lower = by_row[sample, top].int(), by_row[sample, below].int()
    mixed = (upper * 256 + (lower - upper) * down.transpose(1, 2)).transpose(1, 2)  # [B, 3, S, S]
    shape = mixed.shape
    first = mixed.gather(3, left[:, None, None, :].expand(shape))
    second = mixed.gather(3, right[:, None, None, :].expand(shape))
    return ((first * 256 + (second - first) * across + 32768) >> 16).to(torch.uint8)


def _colour(images: Tensor, recipe: ViewRecipe, draws: NDArray[np.float64]) -> Tensor:
    """Brightness, contrast, saturation, hue and greyscale as one affine map of RGB per image.

    All five are affine, so they compose into a 3x3 matrix and an offset; only one rounding and one clamp
    happen, at the end. (Usual chains clamp after each step and draw the order; this order is fixed.)
    The mean grey that contrast turns around is an integer sum, in steps of 1/256.
    """
    jitter = draws[:, _JITTER] < recipe.jitter

    def factor(column: int, strength: float) -> NDArray[np.float64]:
        return np.where(jitter, 1 + strength * (2 * draws[:, column] - 1), 1.0)

    brightness = factor(_BRIGHTNESS, recipe.brightness)
    contrast = factor(_CONTRAST, recipe.contrast)
    saturation = factor(_SATURATION, recipe.saturation)
    saturation = np.where(draws[:, _GREY] < recipe.grey, 0.0, saturation)
    turn = np.where(jitter, 2 * np.pi * recipe.hue * (2 * draws[:, _HUE] - 1), 0.0)
    luma = np.array(_LUMA) / 65536
    to_grey = np.tile(luma, (3, 1))  # every channel becomes the grey
    matrix = saturation[:, None, None] * _turn_hue(turn) @ (np.eye(3) - to_grey) + to_grey
    matrix = (brightness * contrast)[:, None, None] * matrix
    grey_sum = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    for channel, weight in enumerate(_LUMA):
        grey_sum += weight * images[:, channel].flatten(1).sum(1, dtype=torch.int64)
    mean_grey = grey_sum.div(256 * images.shape[2] * images.shape[3], rounding_mode="floor").float() / 256
    darkened = (brightness * (1 - contrast)).astype(np.float32)
    offset = (mean_grey * _to(darkened, images))[:, None, None]
    coefficients = _to(matrix.astype(np.float32), images)[..., None, None]
    red, green, blue = images.float().unbind(1)
    mapped = torch.empty(images.shape, dtype=torch.float32, device=images.device)
    for channel in range(3):
        rows = coefficients[:, channel]
        torch.add(red * rows[:, 0] + green * rows[:, 1], blue * rows[:, 2], out=mapped[:, channel])
    return mapped.add_(offset[:, None]).round_().clamp_(0, 255).to(torch.uint8)


def _turn_hue(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation of the colour plane around the grey axis, [B, 3, 3] in RGB (Rodrigues' formula)."""
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    axis = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    return np.asarray(cos * np.eye(3) + (1 - cos) * axis + sin * cross)


def _blur(images: Tensor, recipe: ViewRecipe, draws: NDArray[np.float64]) -> Tensor:
    """Separable Gaussian blur of the images that drew it, as a sum of shifted pictures."""
    chosen = np.flatnonzero(draws[:, _BLUR] < recipe.blur)
    if not len(chosen):
        return images
    low, high = (sigma * images.shape[-1] / 224 for sigma in recipe.blur_sigma)
    sigma = np.maximum(low + draws[chosen, _SIGMA] * (high - low), 1e-3)
    radius = min(math.ceil(3 * high), images.shape[-1] - 1)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma[:, None]) ** 2)
    taps /= taps.sum(1, keepdims=True)
    weights = _to(taps.astype(np.float32), images)[:, :, None, None, None]
    rows = _to(chosen, images)
    picture = images[rows].float()
    size = picture.shape[-1]
    for pad, dimension in (((0, 0, radius, radius), 2), ((radius, radius, 0, 0), 3)):
        padded = F.pad(picture, pad, mode="reflect")
        picture = torch.zeros_like(picture)
        for tap in range(2 * radius + 1):
            picture = picture + padded.narrow(dimension, tap, size) * weights[:, tap]
    blurred = images.clone()
    blurred[rows] = picture.round_().clamp_(0, 255).to(torch.uint8)
    return blurred


def _cut_out(images: Tensor, share: float, draws: NDArray[np.float64]) -> Tensor:
    """Black square whose centre falls anywhere, clipped at the border (DeVries and Taylor, 2017)."""
    size = images.shape[-1]
    side = max(1, round(share * size))
    steps = np.arange(size)

    def inside(column: int) -> NDArray[np.bool_]:
        start = (draws[:, column] * size).astype(np.int64)[:, None] - side // 2
        return np.asarray((steps >= start) & (steps < start + side))

    hole = (
        _to(inside(_HOLE_TOP), images)[:, None, :, None] & _to(inside(_HOLE_LEFT), images)[:, None, None, :]
    )
    return images.masked_fill(hole, 0)


def _to(values: NDArray[np.generic], images: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(images.device, non_blocking=True)
