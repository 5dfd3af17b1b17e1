"""The two-part mixture: against a loop written from the formulas, and where there is nothing to split."""

import math

import numpy as np
import pytest

from lauter.errors import DataError
from lauter.noisy.mixture import SMALLEST_GROUP, split_by_mixture


def draw_heaps(
    low: int, high: int, seed: int = 0, gap: float = 2.0, spread: float = 0.3
) -> tuple[np.ndarray, np.ndarray]:
    """Shuffled values of two heaps, and which of them belong to the lower one."""
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(0.5, 0.15, low), rng.normal(0.5 + gap, spread, high)])
    lower = np.arange(low + high) < low
    order = rng.permutation(low + high)
    return values[order], lower[order]


def fit_by_hand(values: np.ndarray) -> list[float]:
    """Expectation maximisation in plain loops, from the best cut in two, found by trying all."""
    low, high = min(values), max(values)
    xs = [(float(value) - low) / (high - low) for value in values]
    ordered = sorted(xs)

    def spread(part: list[float]) -> float:
        middle = sum(part) / len(part)
        return sum((x - middle) ** 2 for x in part)

    cut = min(range(1, len(xs)), key=lambda at: spread(ordered[:at]) + spread(ordered[at:]))
    parts = (ordered[:cut], ordered[cut:])
    shares = [len(part) / len(xs) for part in parts]
    means = [sum(part) / len(part) for part in parts]
    variances = [spread(part) / len(part) + 5e-4 for part in parts]

    def weigh(x: float) -> tuple[list[float], float]:
        joint = [
            math.log(share) - 0.5 * math.log(2 * math.pi * variance) - 0.5 * (x - mean) ** 2 / variance
            for share, mean, variance in zip(shares, means, variances, strict=True)
        ]
        top = max(joint)
        norm = top + math.log(sum(math.exp(value - top) for value in joint))
        return [math.exp(value - norm) for value in joint], norm

    before = -math.inf
    while True:
        weighed = [weigh(x) for x in xs]
        now = sum(norm for _, norm in weighed) / len(xs)
        for j in range(2):
            amounts = [responsibilities[j] for responsibilities, _ in weighed]
            total = sum(amounts)
            shares[j] = total / len(xs)
            means[j] = sum(a * x for a, x in zip(amounts, xs, strict=True)) / total
            variances[j] = (
                sum(a * (x - means[j]) ** 2 for a, x in zip(amounts, xs, strict=True)) / total + 5e-4
            )
        if abs(now - before) < 1e-6:
            break
        before = now
    lower = 0 if means[0] <= means[1] else 1
    return [weigh(x)[0][lower] for x in xs]


@pytest.mark.parametrize(("low", "high", "gap"), [(80, 40, 2.0), (30, 90, 1.0), (60, 60, 0.5), (100, 3, 3.0)])
def test_the_fit_is_expectation_maximisation(low: int, high: int, gap: float) -> None:
    values, _ = draw_heaps(low, high, seed=low, gap=gap)
    np.testing.assert_allclose(split_by_mixture(values), fit_by_hand(values), atol=1e-6)


def test_two_heaps_are_told_apart_and_their_shares_found() -> None:
    values, lower = draw_heaps(700, 300)
    found = split_by_mixture(values)
    assert found[lower].min() > 0.9
    assert found[~lower].max() < 0.1
    np.testing.assert_allclose(found.mean(), 0.7, atol=0.01)


def test_overlapping_heaps_are_split_where_they_are_equally_probable() -> None:
    values, lower = draw_heaps(20_000, 20_000, gap=0.5, spread=0.15)
    found = split_by_mixture(values)
    for edge in (0.2, 0.5, 0.8):
        near = np.abs(found - edge) < 0.1
        # The floor under the variances makes the parts a little wider than the heaps.
        np.testing.assert_allclose(lower[near].mean(), edge, atol=0.08)


def test_scale_and_order_of_the_values_do_not_matter() -> None:
    values, _ = draw_heaps(100, 60)
    found = split_by_mixture(values)
    np.testing.assert_allclose(split_by_mixture(1e-6 * values - 40.0), found, atol=1e-5)
    np.testing.assert_allclose(split_by_mixture(1e6 * values), found, atol=1e-9)
    order = np.random.default_rng(1).permutation(len(values))
    np.testing.assert_allclose(split_by_mixture(values[order]), found[order], atol=1e-9)


def test_the_upper_part_of_the_mirrored_values_is_the_lower_one() -> None:
    values, _ = draw_heaps(100, 60)
    np.testing.assert_allclose(split_by_mixture(-values), 1 - split_by_mixture(values), atol=1e-9)


def test_nothing_is_random() -> None:
    values, _ = draw_heaps(200, 100, gap=0.6)
    before = np.random.get_state()[1].copy()  # noqa: NPY002  # the very state that must not be touched
    first, second = split_by_mixture(values), split_by_mixture(values)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("count", [0, 1, 5])
def test_equal_values_are_one_part(count: int) -> None:
    np.testing.assert_array_equal(split_by_mixture(np.full(count, 0.3)), np.ones(count))


@pytest.mark.parametrize(
    "values",
    [
        np.array([0.0, 1.0]),
        np.array([2.0, 2.0, 2.0, 2.0 + 4e-16]),
        np.append(np.random.default_rng(0).random(500), 1e15),
        np.repeat([0.0, 0.5, 1.0], 100),
        np.append(np.zeros(999), 1.0),
        np.random.default_rng(0).normal(size=1000),
        np.random.default_rng(0).exponential(size=1000),
        np.array([0.0, 5e-324, 5e-324]),
        1e300 * np.random.default_rng(0).random(50),
    ],
    ids=["two", "one ulp", "outlier", "ties", "one apart", "one heap", "tail", "subnormal", "huge"],
)
def test_every_finite_row_gives_probabilities(values: np.ndarray) -> None:
    found = split_by_mixture(values)
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1
    assert found[values.argmin()] >= found[values.argmax()]


def test_every_group_has_a_mixture_of_its_own() -> None:
    first, first_lower = draw_heaps(200, 100, seed=1)
    second, second_lower = draw_heaps(60, 120, seed=2)
    second = 10 + 5 * second  # what is low here is high there
    values, groups = np.concatenate([first, second]), np.repeat([7, -2], [300, 180])
    order = np.random.default_rng(3).permutation(len(values))
    found = np.empty(len(values))
    found[order] = split_by_mixture(values[order], groups[order])
    np.testing.assert_allclose(found, np.append(split_by_mixture(first), split_by_mixture(second)), atol=1e-9)
    np.testing.assert_array_equal(found > 0.5, np.append(first_lower, second_lower))
    assert np.mean((split_by_mixture(values) > 0.5) == (found > 0.5)) < 0.8


def test_small_and_constant_groups_are_judged_by_all_values() -> None:
    values, _ = draw_heaps(300, 200, seed=4)
    groups = np.zeros(500, dtype=np.int64)
    groups[: SMALLEST_GROUP - 1] = 1
    groups[100:200] = 2
    values[100:200] = values.max()
    groups[200 : 200 + SMALLEST_GROUP] = 3
    found, of_all = split_by_mixture(values, groups), split_by_mixture(values)
    for group in (1, 2):
        np.testing.assert_array_equal(found[groups == group], of_all[groups == group])
    for group in (0, 3):
        alone = split_by_mixture(values[groups == group])
        np.testing.assert_allclose(found[groups == group], alone, atol=1e-9)
    assert found[100:200].max() < 0.1


def test_no_value_and_no_group_give_nothing() -> None:
    assert split_by_mixture(np.zeros(0), np.zeros(0, dtype=np.int64)).shape == (0,)


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(DataError, match=r"2 of 4 are not, the first in row 1 \(nan\)"):
        split_by_mixture(np.array([0.0, np.nan, 1.0, np.inf]))
    with pytest.raises(DataError, match=r"values \[N\], not \[2, 2\]"):
        split_by_mixture(np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"groups \[3\] for 2 values"):
        split_by_mixture(np.zeros(2), np.zeros(3, dtype=np.int64))
