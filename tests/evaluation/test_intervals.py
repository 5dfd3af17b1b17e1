import time

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from lauter.errors import DataError
from lauter.evaluation import (
    Interval,
    balanced_accuracy,
    bootstrap_auroc,
    bootstrap_metrics,
    macro_f1,
    open_auroc,
    open_macro_f1,
    paired_difference,
    worst_class_recall,
)
from lauter.evaluation.counts import CLOSED_METRICS, OPEN_METRICS
from lauter.evaluation.intervals import resample_counts


def draw_case(seed, n, k, with_open=True, share=0.7):
    rng = np.random.default_rng(seed)
    truth = rng.integers(-1 if with_open else 0, k, n)
    predictions = np.where(rng.random(n) < share, np.maximum(truth, 0), rng.integers(0, k, n))
    return predictions, truth


def test_interval_holds_its_ends():
    assert Interval(0.5, 0.4, 0.6).to_dict() == {"value": 0.5, "low": 0.4, "high": 0.6}
    with pytest.raises(DataError, match="low <= high"):
        Interval(0.5, 0.6, 0.4)


def test_resamples_keep_the_strata_and_the_support():
    predictions, truth = draw_case(0, 300, 4)
    counts = resample_counts(predictions, truth, 6, np.random.default_rng(1), resamples=50)
    assert_array_equal(counts.support[17], [(truth == c).sum() for c in range(6)])
    assert_array_equal(counts.predicted.sum(-1), np.full(50, (truth >= 0).sum()))
    assert_array_equal(counts.strays.sum(-1), np.full(50, (truth == -1).sum()))
    assert (counts.hits <= np.minimum(counts.support, counts.predicted)).all()


def test_intervals_agree_with_resampling_images_one_by_one():
    k = 3
    predictions, truth = draw_case(2, 240, k)
    rng = np.random.default_rng(3)
    drawn = {"balanced_accuracy": [], "macro_f1": [], "worst_class_recall": [], "open_macro_f1": []}
    strata = [np.flatnonzero(truth == c) for c in range(-1, k)]
    for _ in range(2000):
        rows = np.concatenate([rng.choice(rows, len(rows)) for rows in strata])
        p, t = predictions[rows], truth[rows]
        drawn["balanced_accuracy"].append(balanced_accuracy(p, t, k))
        drawn["macro_f1"].append(macro_f1(p, t, k))
        drawn["worst_class_recall"].append(worst_class_recall(p, t, k))
        drawn["open_macro_f1"].append(open_macro_f1(p, t, k))
    metrics = {**CLOSED_METRICS, **OPEN_METRICS}
    found = bootstrap_metrics(predictions, truth, k, np.random.default_rng(4), metrics, resamples=20_000)
    for name, values in drawn.items():
        low, high = np.quantile(values, [0.025, 0.975])
        # The end of an interval from 2,000 draws has a standard error of about 0.03 of its width.
        assert_allclose(
            [found[name].low, found[name].high], [low, high], atol=0.15 * (high - low), err_msg=name
        )
    assert found["balanced_accuracy"].value == balanced_accuracy(predictions, truth, k)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng, k, inside = np.random.default_rng(5), 4, 0
    true_value = 0.7 + 0.3 / k
    for seed in range(200):
        predictions, truth = draw_case(seed + 100, 400, k, with_open=False)
        interval = bootstrap_metrics(predictions, truth, k, rng, resamples=300)["balanced_accuracy"]
        inside += interval.low <= true_value <= interval.high
    low, high = stats.binom.ppf([0.0005, 0.9995], 200, 0.94)
    assert low <= inside <= high


def test_intervals_repeat_with_the_seed_and_shrink_with_the_data():
    small, large = draw_case(6, 200, 5), draw_case(6, 20_000, 5)
    first = bootstrap_metrics(*small, 5, np.random.default_rng(0))
    assert first == bootstrap_metrics(*small, 5, np.random.default_rng(0))
    assert first != bootstrap_metrics(*small, 5, np.random.default_rng(1))
    wide = first["accuracy"]
    narrow = bootstrap_metrics(*large, 5, np.random.default_rng(0))["accuracy"]
    assert_allclose((wide.high - wide.low) / (narrow.high - narrow.low), 10, rtol=0.25)


def test_perfect_predictions_have_an_interval_of_no_width():
    truth = np.array([0, 0, 1, 2])
    for interval in bootstrap_metrics(truth, truth, 3, np.random.default_rng(0)).values():
        assert interval == Interval(1.0, 1.0, 1.0)


def test_a_thousand_resamples_are_quick():
    predictions, truth = draw_case(7, 10_000, 10)
    start = time.perf_counter()
    bootstrap_metrics(predictions, truth, 10, np.random.default_rng(0))
    assert time.perf_counter() - start < 1.0


def test_auroc_interval_agrees_with_resampling_one_by_one():
    rng = np.random.default_rng(8)
    truth = rng.integers(-1, 2, 150)
    scores = np.round(rng.normal(size=150) + 0.8 * (truth >= 0), 1)
    known, stray = np.flatnonzero(truth >= 0), np.flatnonzero(truth == -1)
    drawn = []
    for _ in range(1000):
        rows = np.concatenate([rng.choice(known, len(known)), rng.choice(stray, len(stray))])
        drawn.append(open_auroc(scores[rows], truth[rows]))
    found = bootstrap_auroc(scores, truth, np.random.default_rng(9), resamples=4000)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert_allclose([found.low, found.high], [low, high], atol=0.15 * (high - low))
    assert_allclose(found.value, open_auroc(scores, truth))


@pytest.mark.parametrize(("setting", "message"), [({"level": 1.0}, "level"), ({"resamples": 0}, "resamples")])
def test_bad_bootstrap_settings_are_named(setting, message):
    with pytest.raises(DataError, match=message):
        bootstrap_metrics(np.array([0]), np.array([0]), 1, np.random.default_rng(0), **setting)


def test_paired_difference_equals_the_paired_t_test():
    a, b = [0.71, 0.74, 0.69, 0.75], [0.70, 0.70, 0.66, 0.73]
    found = paired_difference(a, b)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert_allclose([found.low, found.high], [expected.low, expected.high])
    assert_allclose(found.mean, 0.025)
    assert_allclose(found.std, np.std([0.01, 0.04, 0.03, 0.02], ddof=1))
    assert found.num_seeds == 4
    reverse = paired_difference(b, a)
    assert_allclose([reverse.low, reverse.high], [-found.high, -found.low])


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [([0.1], [0.2], "two seeds"), ([0.1, 0.2], [0.1], "same seeds"), ([0.1, np.nan], [0.1, 0.1], "finite")],
)
def test_bad_pairs_are_named(a, b, message):
    with pytest.raises(DataError, match=message):
        paired_difference(a, b)
