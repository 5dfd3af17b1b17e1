import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import balanced_accuracy_score, f1_score

from lauter.errors import DataError, LauterError
from lauter.evaluation import (
    accuracy,
    balanced_accuracy,
    balanced_agreement,
    brier,
    expected_calibration_error,
    label_errors_by_class,
    macro_f1,
    open_auroc,
    open_macro_f1,
    per_class_recall,
    score_label_errors,
    worst_class_recall,
)


def draw_case(seed, n=400, k=5, with_open=True):
    rng = np.random.default_rng(seed)
    truth = rng.integers(-1 if with_open else 0, k, n)
    predictions = np.where(rng.random(n) < 0.6, np.maximum(truth, 0), rng.integers(0, k, n))
    return predictions, truth, k


def loop_recalls(predictions, truth, k):
    recalls = {}
    for c in range(k):
        total = hit = 0
        for p, t in zip(predictions, truth, strict=True):
            if t == c:
                total += 1
                hit += p == c
        if total:
            recalls[c] = hit / total
    return recalls


def loop_macro_f1(predictions, truth, k, count_open):
    values = []
    for c in range(k):
        tp = fp = fn = 0
        for p, t in zip(predictions, truth, strict=True):
            if t == -1 and not count_open:
                continue
            tp += t == c and p == c
            fp += t != c and p == c
            fn += t == c and p != c
        if tp + fn:
            values.append(2 * tp / (2 * tp + fp + fn))
    return sum(values) / len(values)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("with_open", [False, True])
def test_closed_metrics_equal_loops(seed, with_open):
    predictions, truth, k = draw_case(seed, with_open=with_open)
    recalls = loop_recalls(predictions, truth, k)
    assert_allclose(per_class_recall(predictions, truth, k), list(recalls.values()))
    assert_allclose(balanced_accuracy(predictions, truth, k), sum(recalls.values()) / len(recalls))
    assert_allclose(balanced_agreement(predictions, truth, k), sum(recalls.values()) / len(recalls))
    assert_allclose(worst_class_recall(predictions, truth, k), min(recalls.values()))
    known = truth >= 0
    assert_allclose(accuracy(predictions, truth, k), (predictions[known] == truth[known]).mean())
    assert_allclose(macro_f1(predictions, truth, k), loop_macro_f1(predictions, truth, k, count_open=False))
    assert_allclose(
        open_macro_f1(predictions, truth, k), loop_macro_f1(predictions, truth, k, count_open=True)
    )


def test_closed_metrics_equal_scikit_learn():
    predictions, truth, k = draw_case(7, with_open=False)
    assert_allclose(balanced_accuracy(predictions, truth, k), balanced_accuracy_score(truth, predictions))
    assert_allclose(macro_f1(predictions, truth, k), f1_score(truth, predictions, average="macro"))


def test_perfect_and_always_wrong_predictions():
    truth = np.array([0, 1, 2, 2, -1])
    for metric in (balanced_accuracy, macro_f1, worst_class_recall, accuracy):
        assert metric(np.array([0, 1, 2, 2, 0]), truth, 3) == 1.0
        assert metric(np.array([1, 2, 0, 0, 0]), truth, 3) == 0.0


def test_a_class_without_images_is_left_out_of_the_means():
    truth, predictions = np.array([0, 0, 2, 2]), np.array([0, 1, 2, 2])
    assert_array_equal(per_class_recall(predictions, truth, 4), [0.5, np.nan, 1.0, np.nan])
    assert balanced_accuracy(predictions, truth, 4) == 0.75
    assert worst_class_recall(predictions, truth, 4) == 0.5
    assert_allclose(macro_f1(predictions, truth, 4), (2 / 3 + 1) / 2)


def test_a_single_class_is_scored():
    truth, predictions = np.zeros(4, dtype=int), np.array([0, 0, 0, 1])
    assert balanced_accuracy(predictions, truth, 2) == accuracy(predictions, truth, 2) == 0.75


def test_a_prediction_of_no_class_is_a_miss_but_no_false_positive():
    truth = np.array([0, 0, 1, 1, -1, -1])
    assert balanced_accuracy(np.array([0, -1, 1, 1, -1, -1]), truth, 2) == 0.75
    rejecting = open_macro_f1(np.array([0, 0, 1, 1, -1, -1]), truth, 2)
    accepting = open_macro_f1(np.array([0, 0, 1, 1, 0, 1]), truth, 2)
    assert rejecting == 1.0
    assert_allclose(accepting, 0.8)


def test_balanced_accuracy_does_not_change_when_a_class_is_repeated():
    predictions, truth, k = draw_case(3, with_open=False)
    more = np.concatenate([np.arange(len(truth)), np.tile(np.flatnonzero(truth == 2), 5)])
    assert_allclose(
        balanced_accuracy(predictions[more], truth[more], k), balanced_accuracy(predictions, truth, k)
    )
    assert abs(accuracy(predictions[more], truth[more], k) - accuracy(predictions, truth, k)) > 1e-3


def test_small_unsigned_predictions_do_not_wrap():
    predictions, truth, k = draw_case(5)
    assert balanced_accuracy(predictions.astype(np.uint16), truth, k) == balanced_accuracy(
        predictions, truth, k
    )


@pytest.mark.parametrize(
    ("predictions", "truth", "message"),
    [
        ([0, 1], [0], "2 predictions for 1 labels"),
        ([0, 3], [0, 1], r"predictions must be in -1\.\.2"),
        ([0, 1], [0, -2], r"labels must be in -1\.\.2"),
        ([0.5, 1.0], [0, 1], "predictions must be integers"),
        ([[0, 1]], [[0, 1]], "must be integers"),
        ([0, 1], [-1, -1], "no image has a true class"),
    ],
)
def test_bad_predictions_are_named(predictions, truth, message):
    with pytest.raises(DataError, match=message):
        balanced_accuracy(np.array(predictions), np.array(truth), 3)


def test_open_auroc_equals_counting_pairs():
    rng = np.random.default_rng(0)
    truth = rng.integers(-1, 2, 120)
    scores = np.round(rng.normal(size=120) + (truth >= 0), 1)  # rounding makes ties
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in scores[truth >= 0] for b in scores[truth == -1]]
    assert_allclose(open_auroc(scores, truth), sum(wins) / len(wins))
    assert_allclose(open_auroc(-scores, truth), 1 - sum(wins) / len(wins))


@pytest.mark.parametrize(
    ("scores", "truth", "message"),
    [
        ([0.1, 0.2], [0, 1], "there are no open images"),
        ([0.1, 0.2], [-1, -1], "there are no images of a known class"),
        ([0.1, np.nan], [0, -1], "score of row 1 is nan"),
        ([0.1], [0, -1], "by image"),
        ([], [], "no images to score"),
    ],
)
def test_bad_open_scores_are_named(scores, truth, message):
    with pytest.raises(LauterError, match=message):
        open_auroc(np.array(scores, dtype=float), np.array(truth, dtype=int))


def loop_label_errors(wrong, score, flagged):
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in score[wrong] for b in score[~wrong]]
    best, precision_sum, seen_before = 0.0, 0.0, 0
    for threshold in sorted(set(score.tolist()), reverse=True):
        chosen = score >= threshold
        tp = sum(1 for c, w in zip(chosen, wrong, strict=True) if c and w)
        best = max(best, 2 * tp / (sum(chosen) + sum(wrong)))
        precision_sum += (tp - seen_before) / sum(wrong) * tp / sum(chosen)
        seen_before = tp
    tp = sum(1 for f, w in zip(flagged, wrong, strict=True) if f and w)
    return {
        "auroc": sum(pairs) / len(pairs),
        "average_precision": precision_sum,
        "precision": tp / sum(flagged),
        "recall": tp / sum(wrong),
        "f1": 2 * tp / (sum(flagged) + sum(wrong)),
        "best_f1": best,
    }


@pytest.mark.parametrize("seed", range(3))
def test_label_error_scores_equal_loops(seed):
    rng = np.random.default_rng(seed)
    wrong = rng.random(150) < 0.3
    score = np.round(rng.normal(size=150) + 1.5 * wrong, 1)
    flagged = score > 0.9
    expected = loop_label_errors(wrong, score, flagged)
    found = score_label_errors(wrong, score, flagged)
    assert list(found) == list(expected)
    for name in expected:
        assert_allclose(found[name], expected[name], err_msg=name)
    assert found["best_f1"] >= found["f1"]


def test_perfect_label_error_scores():
    wrong = np.array([True, False, True, False])
    assert set(score_label_errors(wrong, wrong.astype(float), wrong).values()) == {1.0}


def test_measures_that_the_data_do_not_define_are_left_out():
    score, none, all_ = np.arange(3.0), np.zeros(3, dtype=bool), np.ones(3, dtype=bool)
    assert score_label_errors(none, score, none) == {}
    assert score_label_errors(none, score, all_) == {"precision": 0.0, "f1": 0.0}
    assert score_label_errors(all_, score, none) == {"recall": 0.0, "f1": 0.0, "best_f1": 1.0}


def test_bad_label_error_input_is_named():
    wrong = np.array([True, False])
    with pytest.raises(DataError, match=r"flagged is \[3\]"):
        score_label_errors(wrong, np.zeros(2), np.zeros(3, dtype=bool))
    with pytest.raises(DataError, match="scores must be finite"):
        score_label_errors(wrong, np.array([0.0, np.inf]), wrong)


def test_label_errors_by_class_equal_each_class_alone():
    rng = np.random.default_rng(1)
    given = rng.integers(-1, 4, 300)
    wrong, flagged = rng.random(300) < 0.3, rng.random(300) < 0.4
    found = label_errors_by_class(wrong, flagged, given, 5)
    for c in range(4):
        here = given == c
        alone = score_label_errors(wrong[here], np.zeros(here.sum()), flagged[here])
        for name in ("precision", "recall", "f1"):
            assert_allclose(found[name][c], alone[name])
    assert np.isnan(found["f1"][4])
    with pytest.raises(DataError, match=r"given_labels \[2\]"):
        label_errors_by_class(wrong, flagged, given[:2], 5)


def test_calibration_equals_loops():
    rng = np.random.default_rng(2)
    probs = rng.random(500)
    outcomes = rng.random(500) < probs**2
    expected = 0.0
    for m in range(15):
        rows = [i for i in range(500) if m / 15 < probs[i] <= (m + 1) / 15]
        if rows:
            gap = sum(probs[i] for i in rows) / len(rows) - sum(outcomes[i] for i in rows) / len(rows)
            expected += len(rows) / 500 * abs(gap)
    assert_allclose(expected_calibration_error(probs, outcomes), expected)
    assert_allclose(
        brier(probs, outcomes), sum((p - o) ** 2 for p, o in zip(probs, outcomes, strict=True)) / 500
    )


def test_calibration_extremes():
    sure = np.array([1.0, 0.0, 1.0])
    assert expected_calibration_error(sure, sure > 0.5) == brier(sure, sure > 0.5) == 0.0
    assert expected_calibration_error(sure, sure < 0.5) == brier(sure, sure < 0.5) == 1.0
    with pytest.raises(DataError, match=r"in 0\.\.1, found 0\.\.1\.5"):
        brier(np.array([0.0, 1.5]), np.array([True, False]))
    with pytest.raises(DataError, match="num_bins"):
        expected_calibration_error(sure, sure > 0.5, num_bins=0)
