"""Judgements of worlds and of digits whose noise is known; limits, bad inputs, and what must not matter."""

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from lauter.auditing.calibration import calibrate_labels
from lauter.auditing.evidence import EvidenceConfig, gather_evidence
from lauter.auditing.judgement import VERDICTS, Judgement
from lauter.auditing.judging import JudgingConfig, judge_labels
from lauter.auditing.noise_rates import BLUR, MISFIT, bound_systematic
from lauter.auditing.sharpness import agree_where_surest
from lauter.errors import ConfigError, DataError
from lauter.evaluation.metrics import score_label_errors
from lauter.noise.labels import flip_by_instance, flip_pairs, flip_symmetric
from lauter.noisy.beliefs import find_neighbours, vote
from lauter.noisy.confident import score_confidence
from lauter.noisy.top_beliefs import TopBeliefs

Array = np.ndarray[Any, Any]


def make_world(
    closed: float, open_: float = 0.0, *, seed: int = 0, count: int = 3000, classes: int = 6
) -> tuple[Array, Array, Array]:
    """Beliefs, given and true labels (-1: none) as a good but soft classifier sees them."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, count)
    kind = rng.random(count)
    stray = (kind >= closed) & (kind < closed + open_)
    given = np.where(kind < closed, (true + rng.integers(1, classes, count)) % classes, true)
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), true] += np.where(stray, 0, 3.5)
    beliefs = np.exp(2 * logits)
    return beliefs / beliefs.sum(1, keepdims=True), given, np.where(stray, -1, true)


def judge(beliefs: Any, labels: Array, **options: Any) -> Judgement:
    return judge_labels(beliefs, labels, JudgingConfig(**options), np.random.default_rng(0))


@cache
def noisy_world() -> tuple[Array, Array, Array, Judgement]:
    beliefs, given, true = make_world(0.2, 0.1, count=1800)
    return beliefs, given, true, judge(beliefs, given)


def corrupt_digits(name: str, rate: float) -> tuple[TopBeliefs, Array, Array]:
    """Out-of-fold beliefs, given and true labels of digits with so much noise of a kind."""
    images, true = load_digits(return_X_y=True)
    pixels, true = images.astype(np.float32), true.astype(np.int64)
    rng = np.random.default_rng(5)
    if name == "symmetric":
        given = flip_symmetric(true, rate, 10, rng)
    elif name == "pair":
        given = flip_pairs(true, rate, 10, rng)
    else:
        seen = vote(find_neighbours(pixels, 20), true, np.ones(len(true)), np.full(10, 0.1), smoothing=0.3)
        given = flip_by_instance(true, rate, seen, rng)
    config = EvidenceConfig(neighbours=20, folds=3, strength=100.0, choose=False)
    evidence = gather_evidence(pixels, given, 10, config, np.random.default_rng(0))
    return evidence.beliefs, given, true


CORRUPTIONS = [
    *(("symmetric", rate) for rate in (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)),
    *(("pair", rate) for rate in (0.1, 0.3)),
    *(("instance", rate) for rate in (0.1, 0.2)),
]


def test_the_true_noise_rate_is_inside_the_interval_of_nine_corruptions_in_ten() -> None:
    inside, report = 0, []
    for name, rate in CORRUPTIONS:
        beliefs, given, true = corrupt_digits(name, rate)
        found = judge(beliefs, given).noise_rate
        wrong = float(np.mean(given != true))
        inside += found.low <= wrong <= found.high
        report.append((name, rate, found))
        assert found.high - found.low <= 0.08, report[-1]
    assert inside >= 9, report


def test_bad_labels_are_found_ranked_and_shown_first() -> None:
    top, given, true = corrupt_digits("symmetric", 0.2)
    found, beliefs = judge(top, given), top.dense(given)
    wrong = given != true
    scores = score_label_errors(wrong, 1 - found.p_given_right, found.verdicts != "keep")
    plain = score_label_errors(
        wrong, 1 - score_confidence(beliefs, given, "self_confidence"), beliefs.argmax(1) != given
    )
    assert scores["f1"] > max(plain["f1"], 0.9)
    assert scores["f1"] > scores["best_f1"] - 0.03
    assert scores["auroc"] > plain["auroc"] - 0.003
    first = found.review.order[: min(200, wrong.sum() // 2)]
    assert wrong[first].mean() > 0.95


def test_probabilities_keep_their_promise() -> None:
    _, given, true, found = noisy_world()
    right = given == true
    promised = found.p_given_right
    assert np.mean(promised) == pytest.approx(right.mean(), abs=0.04)
    for low, high in ((0.0, 0.2), (0.8, 1.0)):
        group = (promised >= low) & (promised <= high)
        assert group.sum() > 60
        assert promised[group].mean() == pytest.approx(right[group].mean(), abs=0.06)
    brier = np.mean((promised - right) ** 2)
    assert brier < 0.5 * right.mean() * (1 - right.mean())
    for verdict, hit in (("relabel", found.suggested == true), ("drop", ~right)):
        chosen = found.verdicts == verdict
        assert chosen.sum() > 50
        assert hit[chosen].mean() > 0.9


def test_the_parts_of_a_judgement_fit_together() -> None:
    beliefs, given, _, found = noisy_world()
    count, classes = beliefs.shape
    assert set(found.verdicts.tolist()) <= set(VERDICTS)
    kept = found.verdicts == "keep"
    np.testing.assert_array_equal(found.suggested[kept], given[kept])
    assert (found.suggested[~kept] != given[~kept]).all()
    np.testing.assert_allclose(found.p_suggested_right[kept], found.p_given_right[kept])
    assert (found.p_suggested_right[~kept] <= 1 - found.p_given_right[~kept] + 1e-9).all()
    assert int(found.cuts.flagged[found.cuts.chosen]) == int((~kept).sum())
    assert len(found.review.order) == max(200, int((~kept).sum()))
    assert len(np.unique(found.review.order)) == len(found.review.order)
    assert (np.diff(found.p_given_right[found.review.order]) >= 0).all()
    for rate in (found.noise_rate, found.closed_rate, found.open_rate):
        assert 0 <= rate.low <= rate.value <= rate.high <= 1
    assert found.closed_rate.value + found.open_rate.value == pytest.approx(found.noise_rate.value, abs=1e-9)
    assert found.noise_rate.value == pytest.approx(1 - found.p_given_right.mean(), abs=1e-9)
    assert found.noise_rate_by_class.shape == (classes,)
    sizes = np.bincount(given, minlength=classes)
    assert found.noise_rate_by_class @ sizes / count == pytest.approx(found.noise_rate.value, abs=0.01)
    assert (found.transition_low <= found.transition + 1e-12).all()
    assert (found.transition <= found.transition_high + 1e-12).all()
    assert found.advice.clean


def test_clean_labels_are_left_alone() -> None:
    beliefs, given, _ = make_world(0.0, seed=1)
    found = judge(beliefs, given)
    assert (found.verdicts == "keep").mean() > 0.95
    assert found.noise_rate.value < 0.03
    assert not found.advice.clean


def test_unlabelled_images_get_a_suggestion_or_a_question() -> None:
    beliefs, given, true = make_world(0.2)
    given = given.copy()
    given[:300] = -1
    found = judge(beliefs, given)
    assert np.isnan(found.p_given_right[:300]).all()
    assert np.isfinite(found.p_given_right[300:]).all()
    assert set(found.verdicts[:300].tolist()) <= {"relabel", "ask"}
    taken = np.flatnonzero(found.verdicts[:300] == "relabel")
    assert len(taken) > 50
    assert np.mean(found.suggested[taken] == true[taken]) > 0.9
    assert not np.isin(np.arange(300), found.review.order).any()
    assert found.noise_rate.value == pytest.approx(np.mean(given[300:] != true[300:]), abs=0.04)


def test_the_order_of_images_does_not_matter() -> None:
    beliefs, given, _, found = noisy_world()
    order = np.random.default_rng(1).permutation(len(given))
    again = judge(beliefs[order], given[order])
    np.testing.assert_allclose(again.p_given_right, found.p_given_right[order], atol=1e-4)
    assert np.mean(again.verdicts == found.verdicts[order]) > 0.999


def test_the_names_of_classes_do_not_matter() -> None:
    beliefs, given, _, found = noisy_world()
    renamed = np.random.default_rng(2).permutation(6)
    moved = np.empty_like(beliefs)
    moved[:, renamed] = beliefs
    again = judge(moved, renamed[given])
    np.testing.assert_allclose(again.p_given_right, found.p_given_right, atol=1e-4)
    np.testing.assert_array_equal(again.suggested, renamed[found.suggested])


def test_dense_and_top_beliefs_are_judged_alike() -> None:
    beliefs, given, _, found = noisy_world()
    again = judge(TopBeliefs.from_dense(beliefs, given), given)
    np.testing.assert_allclose(again.p_given_right, found.p_given_right, atol=1e-6)
    cut = judge(TopBeliefs.from_dense(beliefs, given, depth=4), given)
    assert np.mean((cut.verdicts == "keep") == (found.verdicts == "keep")) > 0.97


def test_settings_do_what_they_say() -> None:
    beliefs, given, _ = make_world(0.2, 0.1, count=500)
    found = judge(beliefs, given)
    strict, loose = judge(beliefs, given, precision=0.999), judge(beliefs, given, precision=0.5)
    sure = [int(np.isin(one.verdicts, ["relabel", "drop"]).sum()) for one in (strict, found, loose)]
    assert sure[0] < sure[1] < sure[2]
    assert (judge(beliefs, given, keep_above=0.0).verdicts == "keep").all()
    doubted = judge(beliefs, given, keep_above=0.7)
    np.testing.assert_array_equal(doubted.verdicts == "keep", doubted.p_given_right >= 0.7)
    assert not np.isin(judge(beliefs, given, cap=0.0).verdicts, ["relabel", "drop"]).any()
    wide, narrow = judge(beliefs, given, level=0.99).noise_rate, judge(beliefs, given, level=0.5).noise_rate
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    assert len(judge(beliefs, given, budget=450).review.order) == 450


def test_a_rare_class_is_not_emptied() -> None:
    beliefs, given, true = make_world(0.1)
    rare = np.flatnonzero(true == 1)[:20]
    given = np.where((given == 0) & ~np.isin(np.arange(len(given)), rare), 2, given)
    given[rare] = 0  # every label of class 0 is wrong, and looks so
    found = judge(beliefs, given, cap=0.5)
    assert np.isin(found.verdicts[given == 0], ["relabel", "drop"]).sum() <= 0.5 * (given == 0).sum()


def test_without_any_label_nothing_is_judged() -> None:
    beliefs, given, _ = make_world(0.0, count=50)
    found = judge(beliefs, np.full_like(given, -1))
    assert set(found.verdicts.tolist()) == {"ask"}
    assert found.noise_rate.value == 0
    assert len(found.review.order) == 0
    assert not found.advice.clean


@pytest.mark.parametrize("count", [1, 2, 7])
def test_few_images_are_judged_too(count: int) -> None:
    beliefs, given, _ = make_world(0.2, count=count)
    found = judge(beliefs, given)
    assert np.isfinite(found.p_given_right).all()
    assert len(found.verdicts) == count


def test_certain_beliefs_and_an_absent_class_do_no_harm() -> None:
    given = np.array([0, 1, 0, 1, 1, 0] * 20)
    found = judge(np.eye(3)[given], given)
    assert (found.verdicts == "keep").all()
    assert np.isfinite(found.transition).all()
    uniform = judge(np.full((120, 3), 1 / 3), given)
    assert np.isfinite(uniform.p_given_right).all()


def test_doubts_of_both_views_promise_as_much() -> None:
    beliefs, given, _, found = noisy_world()
    calibration = calibrate_labels(TopBeliefs.from_dense(beliefs, given), given)
    np.testing.assert_allclose(1 - calibration.doubt, found.p_given_right, atol=1e-12)
    assert calibration.disagreement == pytest.approx(np.mean(beliefs.argmax(1) != given))


def test_the_systematic_error_grows_with_noise_and_with_the_classifiers_errors() -> None:
    assert bound_systematic(0.0, 0.0) == 0
    assert bound_systematic(0.4, 0.0) > bound_systematic(0.1, 0.0) > 0
    np.testing.assert_allclose(bound_systematic(0.0, 0.5), 0.5 * BLUR)
    np.testing.assert_allclose(bound_systematic(0.5, 0.0), MISFIT)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"precision": 0.0}, r"precision must be in \(0, 1\], not 0.0"),
        ({"precision": 1.1}, r"precision must be in \(0, 1\], not 1.1"),
        ({"cap": -0.1}, r"cap must be a share in 0..1, not -0.1"),
        ({"level": 1.0}, "level must be between 0 and 1, not 1.0"),
        ({"budget": -1}, "budget must be 0 images or more, not -1"),
        ({"keep_above": 2.0}, "keep_above must be a probability in 0..1, not 2.0"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        JudgingConfig(**options)


@pytest.mark.parametrize(
    ("beliefs", "labels", "match"),
    [
        (np.full((2, 3), 1 / 3), np.zeros(3, dtype=np.int64), r"labels \[N\], not \[2, 3\] and \[3\]"),
        (np.zeros((0, 3)), np.zeros(0, dtype=np.int64), "there are no images to judge"),
        (np.ones((2, 1)), np.zeros(2, dtype=np.int64), "among 2 classes or more, not 1"),
        (np.full((2, 3), 1 / 3), np.zeros(2), "labels must be integers, not float64"),
        (np.full((2, 3), 1 / 3), np.array([0, 3]), r"labels must be in -1..2 for 3 classes, found 0..3"),
        (np.array([[0.5, 0.5], [np.nan, 1]]), np.array([0, 1]), "beliefs of image 1 are not probabilities"),
        (np.array([[1.5, -0.5], [0, 1]]), np.array([0, 1]), "beliefs of image 0 are not probabilities"),
    ],
)
def test_what_does_not_fit_is_refused(beliefs: Array, labels: Array, match: str) -> None:
    with pytest.raises(DataError, match=match):
        judge(beliefs, labels)


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        JudgingConfig().precision = 0.5  # type: ignore[misc]


def test_poor_beliefs_are_no_evidence_against_labels() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 10, 4000)
    logits = rng.normal(size=(4000, 10))
    logits[np.arange(4000), true] += 0.7
    beliefs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    clean = judge_labels(beliefs, true, None, rng)
    assert set(clean.verdicts) <= {"keep", "ask"}
    assert clean.noise_rate.low == 0
    assert not clean.advice.clean
    assert "poor features" in clean.advice.reason


@pytest.mark.parametrize(("right", "share"), [(30, 1.0), (0, 0.0), (12, 0.4)])
def test_agreement_is_read_off_the_surest_images(right: int, share: float) -> None:
    confidence = np.concatenate([np.full(30, 0.9), np.full(70, 0.6)])
    beliefs = np.stack([confidence, 1 - confidence], 1)
    labels = np.ones(100, dtype=np.int64)
    labels[:right] = 0
    top = TopBeliefs.from_dense(beliefs, labels)
    assert agree_where_surest(top, labels) == pytest.approx(share)
    assert agree_where_surest(top.select(np.zeros(0, dtype=np.int64)), labels[:0]) == 0
