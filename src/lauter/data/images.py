"""Image files into uint8 RGB: decoded whole, or refused with a reason; never half.

What is made of the unusual (all of it our choice):

- EXIF orientation is applied, so that pictures stand as a viewer shows them: 'rotated'.
- 16-bit samples are scaled to 8 bits (65535 becomes 255), not clipped: '16-bit'.
- CMYK becomes RGB by Pillow's plain conversion, without a colour profile: 'cmyk'.
- Transparent pixels are laid on white: 'transparent'.
- Grey and palette images become RGB, and animations give their first frame, without a note.

What is refused: 'missing', 'empty', 'unreadable', 'truncated', 'tiny', 'enormous'.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from lauter.data.dataset import Pixels, Share
from lauter.errors import DataError

MAX_PIXELS = 100_000_000
"""Pixels above which an image is refused before it is decoded."""
MAX_ASPECT = 3.0
"""Longer side by shorter side above which an image is noted for its shape: 'extreme aspect'."""
MIN_SIDE = 4
"""Side in pixels under which a file is a placeholder (a tracking pixel, say) and no picture."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""Formats that are read. Pillow's many others are a risk with strangers' files and slow the search down."""

_WHOLE_FILE = 2**20
"""Bytes that are read of a file at once where all of it will be: decoders ask for a few at a time."""
_DEEP_RAWMODE = re.compile(r"\b(?:I|L|LA|RGB|RGBA|RGBX|CMYK);16")
_ORIENTATION_TAG = 0x0112
_ORIENTATION_SOURCES = frozenset(
    {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif", "Raw profile type APP1"}
)


class ImageError(DataError):
    """An image that cannot be used.

    Attributes:
        fault: 'missing', 'empty', 'unreadable', 'truncated', 'tiny' or 'enormous'.
        detail: what the decoder said, for people.
    """

    def __init__(self, fault: str, detail: str) -> None:
        self.fault = fault
        self.detail = detail[:200]
        super().__init__(f"image is {fault}: {self.detail}; replace or remove it")

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        """Pickle by the two parts, so that the error survives the way home from a worker process."""
        return ImageError, (self.fault, self.detail)


def decode_image(source: bytes | Path, *, max_pixels: int = MAX_PIXELS) -> tuple[Pixels, str | None]:
    """Decode one image whole.

    Args:
        source: an encoded image, or the path of one.
        max_pixels: refuse images with more pixels than this; checked before decoding.

    Returns:
        The pixels, uint8 [3, H, W] in RGB, and what was changed on the way: None, or kinds out of
        'rotated', '16-bit', 'cmyk' and 'transparent', joined by '+'.

    Raises:
        ImageError: the image is missing, empty, unreadable, truncated, tiny or enormous.
    """
    image, fault = open_rgb(source, max_pixels)
    return to_pixels(image), fault


def open_rgb(
    source: bytes | Path, max_pixels: int = MAX_PIXELS, *, share: Share | None = None
) -> tuple[Image.Image, str | None]:
    """Like :func:`decode_image`, but as a Pillow image in mode RGB.

    Args:
        source: an encoded image, or the path of one.
        max_pixels: refuse images with more pixels than this.
        share: what share of the resolution is wanted of an image of some height and width. A JPEG image is
            then decoded at the smallest of the scales 1, 1/2, 1/4 and 1/8 that gives it. None decodes all
            of it, as for every other format.
    """
    with _faults_named(), _open_stream(source, _WHOLE_FILE) as stream:
        opened = Image.open(stream, formats=_formats())
        _check_size(opened.size, max_pixels)
        deep = any(_DEEP_RAWMODE.search(str(tile[3])) for tile in opened.tile)
        if share is not None and isinstance(opened, JpegImageFile):
            _reduce_scale(opened, share)
        opened.load()
        image: Image.Image = opened
        changes = []
        if _orientation(image) != 1:
            image = ImageOps.exif_transpose(image)
            changes.append("rotated")
        if image.mode.startswith(("I", "F")):
            image, deep = _scale_to_eight_bits(image), True
        if deep:
            changes.append("16-bit")
        if image.mode == "CMYK":
            changes.append("cmyk")
        if image.has_transparency_data:
            image, transparent = _lay_on_white(image)
            changes += ["transparent"] * transparent
        if image.mode != "RGB":
            image = image.convert("RGB")
    return image, "+".join(changes) or None


def probe_image(source: bytes | Path, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Check an image by its header and its end, cheaply.

    A file whose end is not what its format says (or whose format does not say) is decoded once to be sure.

    Args:
        source: an encoded image, or the path of one.
        max_pixels: refuse images with more pixels than this.

    Returns:
        Height and width in pixels as stored, before any EXIF rotation.

    Raises:
        ImageError: as :func:`decode_image`, as far as header and end can show it.
    """
    with _faults_named(), _open_stream(source) as stream:
        image = Image.open(stream, formats=_formats())
        _check_size(image.size, max_pixels)
        width, height = image.size
        if not _ends_whole(stream, image.format):
            image = Image.open(stream, formats=_formats())
            image.load()
    return height, width


def fit_square(image: Image.Image, size: int) -> Image.Image:
    """Resize the short side to ``size`` (bicubic, antialiased), then crop the centre to size x size.

    An image that is size x size already is returned untouched.
    """
    if image.size == (size, size):
        return image
    width, height = image.size
    short = min(width, height)
    width, height = max(size, round(width * size / short)), max(size, round(height * size / short))
    left, top = (width - size) // 2, (height - size) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + size, top + size))


def to_pixels(image: Image.Image) -> Pixels:
    """Pillow RGB image -> uint8 [3, H, W]."""
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))


def to_image(pixels: Pixels) -> Image.Image:
    """Pixels uint8 [3, H, W] -> Pillow RGB image."""
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def encode_png(pixels: Pixels) -> bytes:
    """Pixels uint8 [3, H, W] -> PNG, without loss."""
    buffer = io.BytesIO()
    to_image(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


@cache
def _formats() -> tuple[str, ...]:
    """The formats that this build of Pillow can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def _open_stream(source: bytes | Path, buffering: int = -1) -> Iterator[IO[bytes]]:
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb", buffering) as stream:
        if stream.seek(0, io.SEEK_END) == 0:
            raise ImageError("empty", "no bytes")
        stream.seek(0)
        yield stream


@contextmanager
def _faults_named() -> Iterator[None]:
    """Turn whatever a decoder raises on hostile bytes into an :class:`ImageError` of the right kind."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise ImageError("missing", str(error)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("enormous", str(error)) from error
    except Exception as error:  # decoders raise anything: OSError, SyntaxError, struct.error, IndexError, ...
        detail = str(error) or type(error).__name__
        cut = any(sign in detail.lower() for sign in ("truncated", "unexpected end", "broken data stream"))
        raise ImageError("truncated" if cut else "unreadable", detail) from error


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError("enormous", f"{width} x {height} pixels, more than {max_pixels:,}")
    if min(size) < MIN_SIDE:
        raise ImageError("tiny", f"{width} x {height} pixels, under {MIN_SIDE} on a side")


def _orientation(image: Image.Image) -> int:
    if image.info.keys().isdisjoint(_ORIENTATION_SOURCES):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # broken EXIF says nothing about the pixels, which have been read whole by now
        return 1
    return value if value in range(2, 9) else 1


def _reduce_scale(image: JpegImageFile, share: Share) -> None:
    """Let a JPEG image that was not decoded yet be decoded at the smallest scale that suffices.

    The decoder leaves out the finest frequencies of each block and transforms the others to a smaller block.
    """
    width, height = image.size
    turned = _orientation(image) >= 5  # shown on its side
    wanted = share(width, height) if turned else share(height, width)
    scale = next(scale for scale in (8, 4, 2, 1) if scale == 1 or scale * wanted <= 1)
    if scale > 1 and min(width, height) >= scale:
        image.draft(image.mode, (width // scale, height // scale))


def _scale_to_eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ImageError(
            "unreadable", f"samples of mode {image.mode} have no known range; store 8 or 16 bits"
        )
    return Image.fromarray(((values.astype(np.int64) + 128) // 257).astype(np.uint8))


def _lay_on_white(image: Image.Image) -> tuple[Image.Image, bool]:
    layered = image.convert("RGBA")
    lowest_alpha = layered.getchannel("A").getextrema()[0]
    if lowest_alpha == 255:
        return layered.convert("RGB"), False
    white = Image.new("RGBA", layered.size, "white")
    return Image.alpha_composite(white, layered).convert("RGB"), True


def _ends_whole(stream: IO[bytes], image_format: str | None) -> bool:
    """Whether the file ends as its format demands; False also where the format has no telling end."""
    length = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, length - 12))
    tail = stream.read()
    stream.seek(0)
    head = stream.read(12)
    stream.seek(0)
    if image_format == "JPEG":
        return tail.endswith(b"\xff\xd9")
    if image_format == "PNG":
        return tail[4:8] == b"IEND"
    if image_format == "GIF":
        return tail.endswith(b";")
    if image_format == "WEBP":
        return int.from_bytes(head[4:8], "little") + 8 <= length
    return False
