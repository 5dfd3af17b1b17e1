import io
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lauter.data.images import (
    ImageError,
    decode_image,
    encode_png,
    fit_square,
    probe_image,
    to_image,
    to_pixels,
)


def encode(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def draw_pixels(height: int = 8, width: int = 12, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(1).integers(0, 256, size=shape, dtype=np.uint8)


def encode_deep_png(values: np.ndarray, colour_type: int) -> bytes:
    """A 16-bit PNG written by hand from the specification; Pillow cannot write 16-bit colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_images_come_back_exactly(image_format: str, tmp_path: Path) -> None:
    pixels = draw_pixels()
    data = encode(Image.fromarray(pixels), image_format)
    (tmp_path / "x").write_bytes(data)
    for source in (data, tmp_path / "x"):
        decoded, fault = decode_image(source)
        assert fault is None
        assert decoded.shape == (3, 8, 12)
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, pixels.transpose(2, 0, 1))


def test_lossless_webp_comes_back_exactly() -> None:
    pixels = draw_pixels()
    decoded, fault = decode_image(encode(Image.fromarray(pixels), "WEBP", lossless=True))
    assert fault is None
    np.testing.assert_array_equal(decoded, pixels.transpose(2, 0, 1))


def test_png_round_trip_is_exact() -> None:
    pixels = draw_pixels().transpose(2, 0, 1)
    np.testing.assert_array_equal(decode_image(encode_png(pixels))[0], pixels)


def test_grey_and_black_and_white_become_rgb_without_a_note() -> None:
    grey = draw_pixels(channels=1)
    decoded, fault = decode_image(encode(Image.fromarray(grey)))
    assert fault is None
    np.testing.assert_array_equal(decoded, np.stack([grey] * 3))
    decoded, fault = decode_image(encode(Image.fromarray(grey).convert("1")))
    assert fault is None
    assert set(np.unique(decoded).tolist()) == {0, 255}


def test_a_palette_becomes_rgb_without_a_note() -> None:
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[:, 4:] = (10, 200, 30)
    decoded, fault = decode_image(encode(Image.fromarray(pixels).quantize(2)))
    assert fault is None
    np.testing.assert_array_equal(decoded, pixels.transpose(2, 0, 1))


def test_cmyk_is_converted_and_noted() -> None:
    cmyk = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    decoded, fault = decode_image(encode(cmyk, "TIFF"))
    assert fault == "cmyk"
    np.testing.assert_array_equal(decoded[:, 0, 0], [0, 255, 255])


@pytest.mark.parametrize("value", [0, 128, 256, 300, 40_000, 65_535])
def test_16_bit_grey_is_scaled_not_clipped(value: int) -> None:
    values = np.full((8, 8), value, dtype=np.uint16)
    values[0, 0] = 65_535
    decoded, fault = decode_image(encode_deep_png(values, 0))
    assert fault == "16-bit"
    assert decoded[0, 4, 4] == round(value / 257)
    assert decoded[0, 0, 0] == 255


@pytest.mark.parametrize("endian", ["<u2", ">u2"])
def test_16_bit_tiff_of_either_byte_order_is_scaled(endian: str) -> None:
    values = (1000 * np.arange(64).reshape(8, 8)).astype(endian)
    mode = "I;16" if endian == "<u2" else "I;16B"
    image = Image.frombytes(mode, (8, 8), values.tobytes())
    decoded, fault = decode_image(encode(image, "TIFF"))
    assert fault == "16-bit"
    np.testing.assert_array_equal(decoded[0], np.floor(values.astype(float) / 257 + 0.5))


def test_16_bit_colour_is_scaled_and_noted() -> None:
    values = np.zeros((8, 8, 3), dtype=np.uint16)
    values[..., 0], values[..., 1] = 65_535, 32_768
    decoded, fault = decode_image(encode_deep_png(values, 2))
    assert fault == "16-bit"
    np.testing.assert_array_equal(decoded[:, 3, 3], [255, 128, 0])


def test_samples_of_unknown_range_are_refused() -> None:
    floats = Image.fromarray(np.linspace(0, 7, 64, dtype=np.float32).reshape(8, 8))
    with pytest.raises(ImageError, match="mode F have no known range") as caught:
        decode_image(encode(floats, "TIFF"))
    assert caught.value.fault == "unreadable"


def test_transparent_pixels_are_laid_on_white() -> None:
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[:4] = (200, 0, 0, 255)
    pixels[4:] = (200, 0, 0, 0)
    decoded, fault = decode_image(encode(Image.fromarray(pixels)))
    assert fault == "transparent"
    np.testing.assert_array_equal(decoded[:, 0, 0], [200, 0, 0])
    np.testing.assert_array_equal(decoded[:, 7, 7], [255, 255, 255])


def test_an_alpha_channel_that_hides_nothing_is_no_fault() -> None:
    pixels = np.concatenate([draw_pixels(), np.full((8, 12, 1), 255, dtype=np.uint8)], axis=2)
    decoded, fault = decode_image(encode(Image.fromarray(pixels)))
    assert fault is None
    np.testing.assert_array_equal(decoded, pixels[..., :3].transpose(2, 0, 1))


def test_a_transparent_palette_colour_is_laid_on_white() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 9, 9, 9])
    image.paste(0, (0, 0, 4, 8))
    decoded, fault = decode_image(encode(image, transparency=1))
    assert fault == "transparent"
    np.testing.assert_array_equal(decoded[:, 0, 7], [255, 255, 255])
    np.testing.assert_array_equal(decoded[:, 0, 0], [0, 0, 0])


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_exif_rotation_is_applied_and_noted(image_format: str) -> None:
    pixels = np.zeros((8, 12, 3), dtype=np.uint8)
    pixels[:, :6] = 255  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter clockwise: left becomes top
    decoded, fault = decode_image(encode(Image.fromarray(pixels), image_format, exif=exif))
    assert fault == "rotated"
    assert decoded.shape == (3, 12, 8)
    assert decoded[:, 1].min() > 200
    assert decoded[:, -2].max() < 50


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    decoded, _ = decode_image(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    np.testing.assert_array_equal(decoded[:, 0, 0], [255, 0, 0])


def find_fault(source: bytes | Path, **options: int) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(source, **options)
    return caught.value.fault


def test_refusals_have_their_kind(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    good = encode(Image.fromarray(draw_pixels(64, 64)), "JPEG")
    assert find_fault(b"") == "empty"
    assert find_fault(tmp_path / "empty.png") == "empty"
    assert find_fault(tmp_path / "none.png") == "missing"
    assert find_fault(tmp_path / "folder.png") == "unreadable"
    assert find_fault(b"no image at all") == "unreadable"
    assert find_fault(encode(Image.new("RGB", (1, 1)))) == "tiny"
    assert find_fault(good, max_pixels=64 * 64 - 1) == "enormous"
    assert decode_image(good, max_pixels=64 * 64)[0].shape == (3, 64, 64)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_images_are_refused_by_decoder_and_probe(image_format: str, share: float) -> None:
    data = encode(Image.fromarray(draw_pixels(64, 64)), image_format)
    cut = data[: int(share * len(data))]
    assert find_fault(cut) in ("truncated", "unreadable")
    with pytest.raises(ImageError):
        probe_image(cut)


def test_a_truncated_jpeg_is_called_truncated() -> None:
    assert find_fault(encode(Image.fromarray(draw_pixels(64, 64)), "JPEG")[:-300]) == "truncated"


@pytest.mark.parametrize("side", [20_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
    data += struct.pack(">I", zlib.crc32(b"IHDR" + header)) + struct.pack(">I", 0) + b"IDAT" + bytes(4)
    assert find_fault(data) == "enormous"


def test_decoding_random_bytes_behind_a_signature_never_raises_anything_else() -> None:
    rng = np.random.default_rng(0)
    good = [encode(Image.fromarray(draw_pixels(16, 16)), f) for f in ("PNG", "JPEG", "GIF", "TIFF", "WEBP")]
    refused = 0
    for data in good:
        for _ in range(40):
            noisy = bytearray(data)
            for position in rng.integers(0, len(data), size=10):
                noisy[position] = rng.integers(0, 256)
            try:
                decoded, _ = decode_image(bytes(noisy), max_pixels=10**6)
            except ImageError:
                refused += 1
            else:
                assert decoded.dtype == np.uint8
                assert decoded.shape[0] == 3
    assert refused > 20


def test_probe_tells_height_and_width() -> None:
    for image_format in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        assert probe_image(encode(Image.fromarray(draw_pixels(8, 12)), image_format)) == (8, 12)


def test_fit_square_leaves_fitting_images_alone_and_crops_the_centre() -> None:
    square = to_image(draw_pixels(8, 8).transpose(2, 0, 1))
    assert fit_square(square, 8) is square
    pixels = np.zeros((8, 24, 3), dtype=np.uint8)
    pixels[:, 8:16] = 255
    np.testing.assert_array_equal(to_pixels(fit_square(Image.fromarray(pixels), 8)), np.full((3, 8, 8), 255))
    for height, width in ((7, 100), (100, 7), (33, 34), (5, 5)):
        assert fit_square(Image.new("RGB", (width, height)), 16).size == (16, 16)


def test_image_errors_survive_pickling() -> None:
    again = pickle.loads(pickle.dumps(ImageError("truncated", "cut short")))
    assert (again.fault, again.detail) == ("truncated", "cut short")
    assert str(again) == "image is truncated: cut short; replace or remove it"
