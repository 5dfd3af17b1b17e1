"""Cuts and the review plan beside plain sums."""

import numpy as np
import pytest

from lauter.auditing.cuts import (
    MOST_CUTS,
    choose_cut,
    choose_cut_at,
    list_cuts,
    order_by_doubt,
    plan_review,
    raise_doubt,
)
from lauter.errors import ConfigError


def expected_f1(doubt: list[float], count: int) -> float:
    ordered = sorted(doubt, reverse=True)
    return 2 * sum(ordered[:count]) / (count + sum(doubt))


def test_the_chosen_cut_has_the_largest_expected_f1() -> None:
    rng = np.random.default_rng(0)
    for shape in (0.2, 1.0, 3.0):
        doubt = rng.beta(shape, 2, 60)
        scores = [expected_f1(doubt.tolist(), count) for count in range(1, 61)]
        assert choose_cut(doubt) == int(np.argmax(scores)) + 1


def test_the_cut_is_where_doubt_falls_below_half_of_the_best_f1() -> None:
    doubt = np.random.default_rng(1).beta(0.5, 1, 2000)
    count = choose_cut(doubt)
    best = expected_f1(doubt.tolist(), count)
    ordered = np.sort(doubt)[::-1]
    assert ordered[count] < best / 2 <= ordered[count - 1]


def test_equal_doubts_are_cut_together() -> None:
    assert choose_cut(np.array([0.9, 0.4, 0.4, 0.4, 0.01])) in (1, 4)
    assert choose_cut(np.full(5, 0.3)) == 5


def test_nothing_is_cut_where_nothing_is_doubted() -> None:
    assert choose_cut(np.zeros(4)) == 0
    assert choose_cut(np.zeros(0)) == 0


def test_a_stated_threshold_is_kept() -> None:
    doubt = np.array([0.9, 0.5, 0.2])
    assert [choose_cut_at(doubt, at) for at in (0.0, 0.3, 0.6, 1.0)] == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match=r"keep_above must be a probability in 0\.\.1, not 1\.5"):
        choose_cut_at(doubt, 1.5)


def test_cuts_state_the_mean_doubt_and_the_share_of_all_doubt() -> None:
    doubt = np.random.default_rng(2).random(37)
    cuts = list_cuts(doubt, 11)
    assert int(cuts.flagged[cuts.chosen]) == 11
    ordered = sorted(doubt.tolist(), reverse=True)
    for place, count in enumerate(cuts.flagged.tolist()):
        found = sum(ordered[:count])
        np.testing.assert_allclose(cuts.recall[place], found / sum(ordered), rtol=1e-9)
        if count:
            np.testing.assert_allclose(cuts.precision[place], found / count, rtol=1e-9)
            np.testing.assert_allclose(cuts.threshold[place], 1 - ordered[count - 1], rtol=1e-9)
    assert (np.diff(cuts.flagged) > 0).all()
    assert (np.diff(cuts.precision) <= 1e-12).all()
    assert (np.diff(cuts.recall) >= -1e-12).all()


def test_few_cuts_of_many_labels() -> None:
    cuts = list_cuts(np.random.default_rng(3).random(5000), 1234)
    assert len(cuts.flagged) <= MOST_CUTS
    assert int(cuts.flagged[0]) == 0
    assert int(cuts.flagged[-1]) == 5000
    assert int(cuts.flagged[cuts.chosen]) == 1234


def test_review_begins_with_the_most_doubtful() -> None:
    plan = plan_review(np.array([0.1, 0.7, 0.7, 0.9]), np.array([10, 11, 12, 13]), 3)
    assert plan.order.tolist() == [13, 11, 12]
    np.testing.assert_allclose(plan.expected_found, [0.9, 1.6, 2.3])
    assert order_by_doubt(np.array([0.2, 0.2, 0.5])).tolist() == [2, 0, 1]


def test_raised_doubts_keep_their_order_and_reach_the_mean() -> None:
    doubt = np.random.default_rng(4).beta(0.5, 2, 500)
    for lift in (0.01, 0.1, 0.3):
        raised = raise_doubt(doubt, lift)
        assert raised.mean() == pytest.approx(doubt.mean() + lift, abs=1e-6)
        np.testing.assert_array_equal(np.argsort(raised, kind="stable"), np.argsort(doubt, kind="stable"))
    np.testing.assert_array_equal(raise_doubt(doubt, 0.0), doubt)
    certain = np.array([0.0, 1.0])
    np.testing.assert_allclose(raise_doubt(certain, 0.2), certain)
