"""Peak memory is that of a part, not of everything before."""

import sys

import pytest
import torch

from lauter.bench.memory import read_peak, reset_peak


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is told by Linux alone")
def test_a_peak_is_forgotten_and_met_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # and is not what computes
    processor = torch.device("cpu")
    block = bytearray(300 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    high = read_peak(processor)
    del block
    reset_peak(processor)
    assert read_peak(processor) < high - 200
    again = bytearray(300 * 2**20)
    again[::4096] = b"x" * len(again[::4096])
    assert read_peak(processor) > high - 100
