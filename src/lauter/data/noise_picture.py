"""A picture of label noise: examples of every kind, under the names that were given and the true ones."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from lauter.data.dataset import Dataset, Pixels
from lauter.data.images import to_image
from lauter.errors import DataError
from lauter.files import atomic_path
from lauter.noise import noise_kinds, step_generator

KINDS = {
    "clean": "clean: the given name is right",
    "closed": "closed noise: the image is of another class",
    "open": "open noise: the image is of no class",
}
"""Kinds of noise in the order of their bands, with what stands above each."""
TILE = 96
"""Side in pixels of an example."""

_GAP, _TEXT, _HEADING = 8, 12, 15
_BAND = _HEADING + _GAP + TILE + 2 * (_TEXT + 2) + 2 * _GAP
_INK, _WRONG, _GROUND = "#1a1a1a", "#b00020", "#ffffff"
_LONGEST = 200  # characters of a text that are looked at; a tile has room for about fifteen


def draw_noise(noisy: Dataset, *, columns: int = 8, seed: int = 0) -> Image.Image:
    """Draw examples of each kind of noise, each under its given and its true class name.

    Names are shortened to the width of a picture; characters outside of ASCII, which the built-in font does
    not have, are escaped. A kind without images has no band.

    Args:
        noisy: images with given and true labels.
        columns: examples of each kind, 1 or more; fewer where there are not as many.
        seed: which images are shown; each kind draws for itself.

    Returns:
        The picture, RGB.

    Raises:
        DataError: the truth is not known, there are no images, or columns is below 1.
    """
    if noisy.true_labels is None:
        raise DataError(
            f"{noisy.name}: the kinds of noise cannot be told without true labels; open it with truth_column"
        )
    if columns < 1 or len(noisy) == 0:
        raise DataError(
            f"{noisy.name}: a picture needs 1 column and 1 image or more, not {columns} and {len(noisy)}"
        )
    kinds = noise_kinds(noisy.true_labels, noisy.labels)
    rows = {kind: np.flatnonzero(kinds == kind) for kind in KINDS}
    bands = [kind for kind in KINDS if len(rows[kind])]
    size = (_GAP + columns * (TILE + _GAP), _GAP + len(bands) * _BAND)
    canvas = Image.new("RGB", size, _GROUND)
    pen, heading = ImageDraw.Draw(canvas), ImageFont.load_default(_HEADING)
    for number, kind in enumerate(bands):
        top = _GAP + number * _BAND
        count = len(rows[kind])
        title = f"{KINDS[kind]} ({count:,} of {len(noisy):,}, {count / len(noisy):.1%})"
        pen.text((_GAP, top), _shorten(title, size[0] - 2 * _GAP, heading), _INK, heading)
        chosen = step_generator(seed, f"picture {kind}").permutation(rows[kind])[:columns]
        for column, row in enumerate(np.sort(chosen).tolist()):
            _draw_example(canvas, noisy, row, (_GAP + column * (TILE + _GAP), top + _HEADING + _GAP))
    return canvas


def write_noise_picture(noisy: Dataset, path: str | Path, *, columns: int = 8, seed: int = 0) -> None:
    """Write :func:`draw_noise` as PNG, whole or not at all.

    Raises:
        DataError: the file's name does not end in .png, or as for :func:`draw_noise`.
    """
    check_picture_name(path)
    picture = draw_noise(noisy, columns=columns, seed=seed)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def check_picture_name(path: str | Path) -> None:
    """Refuse a name that does not end in .png, before anything is made.

    Raises:
        DataError: it does not.
    """
    if Path(path).suffix.lower() != ".png":
        raise DataError(f"{path}: the picture is written as PNG; expected a name that ends in .png")


def _draw_example(canvas: Image.Image, noisy: Dataset, row: int, place: tuple[int, int]) -> None:
    """One image, given name and true name below it; the given one in red where it is wrong."""
    true_labels = np.asarray(noisy.true_labels)
    given, true = int(noisy.labels[row]), int(true_labels[row])
    canvas.paste(_fit_tile(noisy.images.read(row)), place)
    font = ImageFont.load_default(_TEXT)
    pen = ImageDraw.Draw(canvas)
    names = (
        ("given", noisy.class_names[given] if given >= 0 else "none", _INK if given == true else _WRONG),
        ("true", noisy.class_names[true] if true >= 0 else "no class", _INK),
    )
    left, top = place[0], place[1] + TILE + 2
    for title, name, colour in names:
        pen.text((left, top), _shorten(f"{title}: {name}", TILE + _GAP - 2, font), colour, font)
        top += _TEXT + 2


def _fit_tile(pixels: Pixels) -> Image.Image:
    """The whole image in a square, its pixels as they are where it is smaller."""
    image = to_image(pixels)
    method = Image.Resampling.NEAREST if max(image.size) <= TILE else Image.Resampling.BICUBIC
    return ImageOps.pad(image, (TILE, TILE), method, color=_GROUND)


def _shorten(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Text in printable ASCII that is at most ``width`` pixels wide, with dots for what is cut off."""
    cut = text[:_LONGEST]
    plain = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in cut)
    plain = plain.encode("ascii", "backslashreplace").decode("ascii")
    if cut == text and font.getlength(plain) <= width:
        return plain
    kept = len(plain)
    while kept and font.getlength(f"{plain[:kept]}...") > width:
        kept -= 1
    return f"{plain[:kept]}..."
