"""The threshold of correction that sets itself: expected precision beside the realised one."""

from typing import Any

import numpy as np
import pytest

from lauter.errors import ConfigError, DataError
from lauter.noisy.beliefs import estimate_prior
from lauter.noisy.correction import propose_labels
from lauter.noisy.estimates import tell_open
from lauter.noisy.filtering import Assessment, assess_labels
from lauter.noisy.thresholds import choose_confidence, expect_right

Array = np.ndarray[Any, Any]


def make_world(
    closed: float,
    open_: float,
    *,
    seed: int = 0,
    skill: float = 3.0,
    open_skill: float = 0.0,
    imbalance: float = 1.0,
    count: int = 8000,
) -> tuple[Array, Array, Array, Array, Assessment]:
    """Beliefs, given and true labels (-1: none), prior and assessment; open images may resemble a class."""
    rng = np.random.default_rng(seed)
    sizes = imbalance ** (-np.arange(10) / 9)
    prior = sizes / sizes.sum()
    true = rng.choice(10, count, p=prior)
    kind = rng.random(count)
    is_open = (kind >= closed) & (kind < closed + open_)
    given = np.where(kind < closed, (true + rng.integers(1, 10, count)) % 10, true)
    logits = rng.normal(size=(count, 10))
    resembled = np.where(is_open, rng.integers(0, 10, count), true)
    logits[np.arange(count), resembled] += np.where(is_open, open_skill, skill)
    scores = skill * logits + np.log(prior)
    beliefs = np.exp(scores - scores.max(1, keepdims=True))
    beliefs /= beliefs.sum(1, keepdims=True)
    assessment = assess_labels(beliefs, given)
    estimated = estimate_prior(given, assessment.p_right, 10)
    return beliefs, given, np.where(is_open, -1, true), estimated, assessment


@pytest.mark.parametrize(
    ("closed", "open_", "options", "tolerance"),
    [
        (0.3, 0.0, {}, 0.08),
        (0.5, 0.0, {"skill": 2.5}, 0.08),
        (0.3, 0.2, {}, 0.05),
        (0.2, 0.4, {}, 0.08),
        (0.3, 0.2, {"skill": 4.0}, 0.05),
        (0.3, 0.2, {"imbalance": 10.0}, 0.1),
        (0.3, 0.2, {"open_skill": 1.5}, 0.1),  # images of no class that resemble one half as much
    ],
)
def test_the_expected_precision_is_about_the_realised_one(
    closed: float, open_: float, options: dict[str, float], tolerance: float
) -> None:
    beliefs, given, true, prior, assessment = make_world(closed, open_, **options)  # type: ignore[arg-type]
    suggested, confidence = propose_labels(beliefs, prior)
    expected = expect_right(beliefs, given, assessment.p_right, prior, np.ones(len(given), dtype=bool))
    for least in (0.0, 0.5, 0.7, 0.9):
        chosen = ~assessment.kept & (confidence >= least)
        assert chosen.sum() > 200
        realised = np.mean(suggested[chosen] == true[chosen])
        assert expected[chosen].mean() == pytest.approx(realised, abs=tolerance), least


def test_a_precision_asked_for_is_about_the_one_that_comes() -> None:
    beliefs, given, true, prior, assessment = make_world(0.3, 0.2)
    suggested, confidence = propose_labels(beliefs, prior)
    everywhere = np.ones(len(given), dtype=bool)
    expected = expect_right(beliefs, given, assessment.p_right, prior, everywhere)
    sizes = []
    for precision in (0.9, 0.8, 0.7):
        threshold = choose_confidence(confidence, expected, ~assessment.kept, precision)
        chosen = ~assessment.kept & (confidence >= threshold)
        assert np.mean(suggested[chosen] == true[chosen]) == pytest.approx(precision, abs=0.05)
        sizes.append(chosen.sum())
    assert 100 < sizes[0] < sizes[1] < sizes[2]


def test_open_images_lower_what_is_expected_of_the_same_confidence() -> None:
    means = []
    for open_ in (0.0, 0.2, 0.4):
        beliefs, given, _, prior, assessment = make_world(0.2, open_)
        _, confidence = propose_labels(beliefs, prior)
        expected = expect_right(beliefs, given, assessment.p_right, prior, np.ones(len(given), dtype=bool))
        means.append(expected[~assessment.kept & (confidence > 0.7) & (confidence < 0.9)].mean())
    assert means[0] > means[1] + 0.05 > means[2] + 0.1


def test_the_factors_by_plain_loops() -> None:
    """The precision of look-alikes, made increasing by pooling, times the share that is closed."""
    confidence = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
    hit = [0, 1, 0, 1, 1, 1]
    beliefs, labels = [], []
    for value, right in zip(confidence, hit, strict=True):
        beliefs.append([value, 1 - value])
        labels.append(0 if right else 1)
    beliefs.append([0.75, 0.25])
    labels.append(1)
    right = np.array([1.0] * 6 + [0.0])
    trusted = np.ones(7, dtype=bool)
    found = expect_right(np.array(beliefs), np.array(labels), right, np.full(2, 0.5), trusted)
    closed = tell_open(np.array(beliefs), np.array(labels), right, np.full(2, 0.5)).p_closed[6]
    # 0.6 and 0.7 violate the order and share a half; 0.75 stands midway between that and 1.
    assert found[6] == pytest.approx(0.75 * closed)
    assert closed > 0.5
    np.testing.assert_array_equal(found[:6], hit)  # labels that are right for sure: suggested again, or not
    trusted[6] = False
    assert expect_right(np.array(beliefs), np.array(labels), right, np.full(2, 0.5), trusted)[6] == 0


def test_a_label_suggested_again_is_as_right_as_it_was() -> None:
    beliefs, given, _, prior, assessment = make_world(0.3, 0.1, count=1000)
    suggested, _ = propose_labels(beliefs, prior)
    expected = expect_right(beliefs, given, assessment.p_right, prior, np.ones(1000, dtype=bool))
    again = suggested == given
    np.testing.assert_array_equal(expected[again], assessment.p_right[again])
    assert (expected[~again] <= 1 - assessment.p_right[~again]).all()


def test_unlabelled_images_are_judged_and_teach_nothing() -> None:
    beliefs, given, _, prior, assessment = make_world(0.3, 0.1, count=1000)
    everywhere = np.ones(800, dtype=bool)
    alone = expect_right(beliefs[:800], given[:800], assessment.p_right[:800], prior, everywhere)
    some = np.where(np.arange(1000) < 800, given, -1)
    found = expect_right(beliefs, some, assessment.p_right, prior, np.ones(1000, dtype=bool))
    np.testing.assert_allclose(found[:800], alone)
    assert found[800:].min() >= 0
    assert found[800:].max() > 0.5


def test_where_nothing_can_be_learnt_nothing_is_expected() -> None:
    beliefs, given, _, prior, _ = make_world(0.3, 0.1, count=100)
    none = np.zeros(100, dtype=bool)
    np.testing.assert_array_equal(expect_right(beliefs, given, np.full(100, 0.5), prior, none), 0)
    np.testing.assert_array_equal(expect_right(beliefs, given, np.zeros(100), prior, ~none), 0)


def test_the_chosen_confidence_by_a_plain_search() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        confidence = rng.integers(1, 8, 30) / 8  # with ties
        expected, eligible = rng.random(30), rng.random(30) < 0.7
        best = float("inf")
        for candidate in sorted(set(confidence[eligible]), reverse=True):
            chosen = [
                e for c, e, m in zip(confidence, expected, eligible, strict=True) if m and c >= candidate
            ]
            if sum(chosen) / len(chosen) >= 0.5:
                best = candidate
        assert choose_confidence(confidence, expected, eligible, 0.5) == best


def test_a_precision_out_of_reach_corrects_nothing() -> None:
    some = np.array([0.9, 0.8])
    assert choose_confidence(some, np.array([0.5, 0.5]), np.ones(2, dtype=bool), 0.9) == float("inf")
    assert choose_confidence(some, np.ones(2), np.zeros(2, dtype=bool), 0.9) == float("inf")


def test_bad_inputs_to_thresholds_are_refused() -> None:
    beliefs, given, _, prior, assessment = make_world(0.3, 0.1, count=100)
    with pytest.raises(DataError, match="trusted must be one per image"):
        expect_right(beliefs, given, assessment.p_right, prior, np.ones(99, dtype=bool))
    for precision in (0.0, 1.1):
        with pytest.raises(ConfigError, match="precision must be in"):
            choose_confidence(given * 0.1, given * 0.1, given > 0, precision)
