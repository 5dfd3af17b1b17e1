"""The row of a bank: every byte by hand, and what is kept for whom."""

import struct

import pytest
import torch

from lauter.distillation.bank_layout import Layout, plan_layout
from lauter.distillation.method import Part, Seen
from lauter.errors import ConfigError, ModelError

CPU = torch.device("cpu")


def pack(features: list[float], code: str, logits: list[float], bits: list[bool], size: int) -> bytes:
    """A row by hand: numbers little-endian, bits from the highest of each byte on, zeros up to the end."""
    numbers = b"".join(struct.pack("<" + code, value) for value in features)
    numbers += b"".join(struct.pack("<e", value) for value in logits)
    for start in range(0, len(bits), 8):
        byte = 0
        for place, bit in enumerate(bits[start : start + 8]):
            byte += int(bit) * 2 ** (7 - place)
        numbers += bytes([byte])
    return numbers + bytes(size - len(numbers))


@pytest.mark.parametrize(
    ("layout", "code", "size"),
    [
        (Layout(5, 2, 3, 2, 11, packed=True), "e", 20),
        (Layout(5, 4, 3, 2, 11, packed=True), "f", 28),
        (Layout(5, 4, 3, 2, 11), "f", 28),
        (Layout(5, 2), "e", 12),
    ],
)
def test_a_row_is_features_then_logits_then_bits(layout: Layout, code: str, size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    features, logits = torch.randn(6, 5, generator=generator), 9 * torch.randn(6, 3, generator=generator)
    bits = torch.rand(6, 11, generator=generator) > 0.4
    found = layout.encode(Seen(features, logits, bits=bits))
    assert found.shape == (6, layout.row_bytes) == (6, size)
    for row in range(6):
        kept_logits = logits[row].tolist() if layout.logit_bytes else []
        kept_bits = bits[row].tolist() if layout.packed else []
        assert found[row].tobytes() == pack(features[row].tolist(), code, kept_logits, kept_bits, size)
    back = layout.decode(found, CPU)
    kind = torch.float16 if code == "e" else torch.float32
    torch.testing.assert_close(back.features, features.to(kind).float(), rtol=0, atol=0)
    if layout.logit_bytes:
        torch.testing.assert_close(back.logits, logits.half().float(), rtol=0, atol=0)
    if layout.packed:
        torch.testing.assert_close(back.bits, bits, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("parts", "hashes", "exact", "expected", "size"),
    [
        ({"features"}, 0, False, Layout(64, 2), 128),
        ({"features"}, 0, True, Layout(64, 4), 256),
        ({"logits"}, 0, False, Layout(64, 0, 10, 2), 20),
        ({"bits"}, 2048, False, Layout(64, 0, 0, 0, 2048, packed=True), 256),
        ({"bits"}, 2049, False, Layout(64, 4, 0, 0, 2049), 256),
        ({"bits"}, 7, False, Layout(64, 0, 0, 0, 7, packed=True), 4),
        ({"features", "bits"}, 2048, False, Layout(64, 2, 0, 0, 2048, packed=True), 384),
        ({"features", "bits"}, 4096, False, Layout(64, 4, 0, 0, 4096), 256),
        ({"features", "bits", "logits"}, 64, True, Layout(64, 4, 10, 4, 64, packed=True), 304),
    ],
)
def test_what_is_kept_is_small_and_bits_are_exact(
    parts: set[Part], hashes: int, exact: bool, expected: Layout, size: int
) -> None:
    layout = plan_layout(frozenset(parts), 64, 10, hashes, exact=exact)
    assert layout == expected
    assert layout.row_bytes == size
    assert layout.shows >= parts


def test_more_hashes_than_32_per_feature_never_take_more_room_than_float32_features() -> None:
    sizes = [plan_layout(frozenset({"bits"}), 16, 0, count).row_bytes for count in range(1, 1200, 7)]
    assert max(sizes) == 64


@pytest.mark.parametrize(
    ("parts", "classes", "hashes", "error", "message"),
    [
        ({"maps"}, 3, 0, ModelError, "a bank does not keep maps; take a live teacher"),
        ({"logits"}, 0, 0, ModelError, "this teacher has no classifier"),
        (set(), 3, 0, ConfigError, "none of them was asked for"),
        ({"bits"}, 3, 0, ConfigError, "bits need hashes"),
        ({"features"}, 3, 8, ConfigError, "hashes are for bits alone"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    parts: set[Part], classes: int, hashes: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        plan_layout(frozenset(parts), 8, classes, hashes)
