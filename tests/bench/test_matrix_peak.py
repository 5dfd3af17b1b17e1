"""The matrix product as the limit of a machine."""

import pytest
import torch

from lauter.bench import matrix_peak
from lauter.bench.matrix_peak import measure_matrix_peak
from lauter.errors import ConfigError


def test_the_fastest_product_counts_and_the_first_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([0.0, 0.0, 2.0, 10.0, 14.0, 0.0, 20.0, 21.0, 30.0, 34.0])
    # per size: a start to warm up, then start and end of two products
    monkeypatch.setattr(matrix_peak.time, "perf_counter", lambda: next(readings))
    found = measure_matrix_peak("32", torch.device("cpu"), (4, 8), repeats=2)
    assert found == 2 * 8**3 / 1.0


def test_both_precisions_are_measured() -> None:
    assert measure_matrix_peak("bf16", torch.device("cpu"), (16,), 1) > 0
    assert measure_matrix_peak("32", torch.device("cpu"), (16,), 1) > 0


@pytest.mark.parametrize(("sizes", "repeats"), [((), 1), ((0,), 1), ((16,), 0)])
def test_nothing_to_measure_is_refused(sizes: tuple[int, ...], repeats: int) -> None:
    with pytest.raises(ConfigError, match="sizes and repeats of 1 or more"):
        measure_matrix_peak("32", torch.device("cpu"), sizes, repeats)
