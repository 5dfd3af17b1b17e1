import math

import numpy as np
import pytest

from lauter.errors import DataError
from lauter.noisy.likelihood import score_under_noise, share_labels


def test_the_score_is_the_best_over_noise_rates() -> None:
    rng = np.random.default_rng(0)
    own, shares = rng.random(50), rng.dirichlet(np.ones(50))
    score, rate = score_under_noise(own, shares)
    best = max(
        sum(math.log((1 - step / 1000) * p + step / 1000 * s) for p, s in zip(own, shares, strict=True)) / 50
        for step in range(1000)
    )
    assert score == pytest.approx(best, abs=1e-3)
    np.testing.assert_allclose(score, np.mean(np.log((1 - rate) * own + rate * shares)), atol=1e-9)


def test_the_noise_rate_of_sure_and_true_beliefs_is_found() -> None:
    rng = np.random.default_rng(1)
    wrong = rng.random(20_000) < 0.3
    own = np.where(wrong, 1e-6, 1.0)
    own[wrong & (rng.random(20_000) < 0.1)] = 1.0  # a label drawn at random is right in one of ten cases
    assert score_under_noise(own, np.full(20_000, 0.1))[1] == pytest.approx(0.3, abs=0.03)


def test_without_noise_it_is_the_plain_likelihood() -> None:
    own = np.array([0.9, 0.95, 0.99])
    score, rate = score_under_noise(own, np.full(3, 0.1))
    assert rate == 0
    np.testing.assert_allclose(score, np.log(own).mean(), atol=1e-9)


def test_beliefs_of_zero_stay_finite() -> None:
    assert math.isfinite(score_under_noise(np.zeros(3), np.zeros(3))[0])


def test_shares_count_labels_alone() -> None:
    np.testing.assert_allclose(share_labels(np.array([0, 0, 1, -1]), 3), [2 / 3, 1 / 3, 0])
    np.testing.assert_array_equal(share_labels(np.array([-1]), 2), 0)


def test_no_label_at_all_is_refused() -> None:
    with pytest.raises(DataError, match="one label or more"):
        score_under_noise(np.zeros(0), np.zeros(0))
    with pytest.raises(DataError, match="one label or more"):
        score_under_noise(np.zeros(2), np.zeros(3))
