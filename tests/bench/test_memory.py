"""Peak memory is that of a part, not of everything before."""

import sys

import pytest

from lauter.bench.memory import read_peak, reset_peak


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is told by Linux alone")
def test_a_peak_is_forgotten_and_met_again() -> None:
    block = bytearray(300 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    high = read_peak()
    del block
    reset_peak()
    assert read_peak() < high - 200
    again = bytearray(300 * 2**20)
    again[::4096] = b"x" * len(again[::4096])
    assert read_peak() > high - 100
