"""Calibration by bins of equal count, and skill against the base rate: loops, limits, ties, bad input."""

import math

import numpy as np
import pytest

from lauter.errors import DataError
from lauter.evaluation import (
    adaptive_calibration_error,
    brier,
    brier_skill,
    expected_calibration_error,
)


def reference_error(probs: list[float], outcomes: list[bool], bins: int) -> float:
    """Sorted promises dealt out to bins as evenly as they go; here none are equal."""
    order = sorted(range(len(probs)), key=lambda row: probs[row])
    total = 0.0
    for number in range(bins):
        rows = [row for place, row in enumerate(order) if math.floor(place * bins / len(probs)) == number]
        if rows:
            promised = sum(probs[row] for row in rows) / len(rows)
            happened = sum(outcomes[row] for row in rows) / len(rows)
            total += len(rows) / len(probs) * abs(promised - happened)
    return total


@pytest.mark.parametrize(("count", "bins"), [(300, 15), (301, 15), (47, 4), (10, 10), (9, 1)])
def test_equal_counts_match_a_plain_loop(count: int, bins: int) -> None:
    rng = np.random.default_rng(count)
    probs = rng.beta(0.5, 0.2, count)
    outcomes = rng.random(count) < probs**2
    wanted = reference_error(probs.tolist(), outcomes.tolist(), bins)
    np.testing.assert_allclose(adaptive_calibration_error(probs, outcomes, bins), wanted, rtol=1e-12)


def test_fewer_promises_than_bins_are_bins_of_their_own() -> None:
    probs, outcomes = np.array([0.2, 0.9, 0.6]), np.array([False, True, True])
    np.testing.assert_allclose(adaptive_calibration_error(probs, outcomes), (0.2 + 0.1 + 0.4) / 3)


def test_equal_promises_stay_together_whatever_their_order() -> None:
    # Split among bins, a calibrated constant would look wrong by chance, and by the order of its rows.
    outcomes = np.arange(100) % 4 == 0
    probs = np.full(100, 0.25)
    np.testing.assert_allclose(adaptive_calibration_error(probs, outcomes), 0, atol=1e-12)
    np.testing.assert_allclose(adaptive_calibration_error(probs, np.sort(outcomes)), 0, atol=1e-12)
    mixed = np.where(np.arange(100) < 30, 0.1, 0.25)
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(100)
    np.testing.assert_allclose(
        adaptive_calibration_error(mixed[shuffled], outcomes[shuffled], 7),
        adaptive_calibration_error(mixed, outcomes, 7),
        rtol=1e-12,
    )


def test_a_sharp_model_cannot_hide_in_the_outer_bins() -> None:
    """Two halves of the last bin of equal width err in opposite directions and cancel out there alone."""
    probs = np.repeat([0.94, 0.99], 500)
    outcomes = np.concatenate([np.ones(500), np.tile([1.0] * 7 + [0.0], 63)[:500]]) > 0
    assert expected_calibration_error(probs, outcomes) < 0.05
    assert adaptive_calibration_error(probs, outcomes, 2) > 0.08


def test_one_bin_is_the_difference_of_the_means() -> None:
    rng = np.random.default_rng(3)
    probs, outcomes = rng.random(50), rng.random(50) < 0.3
    wanted = abs(sum(probs.tolist()) - sum(outcomes.tolist())) / 50
    np.testing.assert_allclose(adaptive_calibration_error(probs, outcomes, 1), wanted, rtol=1e-12)


def test_skill_is_one_for_the_truth_and_none_for_the_base_rate() -> None:
    outcomes = np.arange(40) < 12
    np.testing.assert_allclose(brier_skill(outcomes.astype(float), outcomes), 1)
    np.testing.assert_allclose(brier_skill(np.full(40, 0.3), outcomes), 0, atol=1e-12)
    assert brier_skill(1.0 - outcomes, outcomes) < -3
    probs = np.random.default_rng(0).random(40)
    np.testing.assert_allclose(
        brier_skill(probs, outcomes), 1 - brier(probs, outcomes) / (0.3 * 0.7), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("probs", "outcomes", "message"),
    [
        ([0.5, 1.5], [True, False], r"must be in 0\.\.1, found 0\.5\.\.1\.5"),
        ([0.5], [True, False], "both are by image"),
        ([], [], "no images to score"),
        ([np.nan, 0.5], [True, False], "the score of row 0 is nan"),
    ],
)
def test_bad_promises_are_refused(probs: list[float], outcomes: list[bool], message: str) -> None:
    for measure in (adaptive_calibration_error, brier_skill):
        with pytest.raises(DataError, match=message):
            measure(np.array(probs), np.array(outcomes, dtype=bool))


def test_what_is_not_defined_is_refused() -> None:
    with pytest.raises(DataError, match="num_bins must be 1 or more, not 0"):
        adaptive_calibration_error(np.array([0.5]), np.array([True]), 0)
    with pytest.raises(DataError, match="all 2 outcomes are the same"):
        brier_skill(np.array([0.5, 0.4]), np.array([True, True]))
