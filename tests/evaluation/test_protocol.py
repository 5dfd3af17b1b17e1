import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from lauter.errors import DataError
from lauter.evaluation import (
    EpochPredictions,
    balanced_accuracy,
    balanced_agreement,
    open_auroc,
    open_macro_f1,
    score_agreement,
    score_run,
    select_epoch,
)


def draw_run(shares, n=400, k=4, with_open=False, seed=0):
    """Predictions [E, N] that are right with each epoch's share, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(-1 if with_open else 0, k, n)
    rows = [np.where(rng.random(n) < share, np.maximum(truth, 0), rng.integers(0, k, n)) for share in shares]
    return np.array(rows), truth


def test_selected_is_what_the_holdout_chose_and_not_what_is_best_on_test():
    predictions, truth = draw_run([0.2, 0.9, 0.5, 0.3])
    scores = score_run(predictions, truth, [0.1, 0.2, 0.8, 0.3], 4, np.random.default_rng(0), resamples=50)
    values = [balanced_accuracy(row, truth, 4) for row in predictions]
    assert scores.selected_epoch == 2
    assert scores.selected["balanced_accuracy"].value == values[2]
    assert scores.last["balanced_accuracy"].value == values[3]
    assert_allclose(scores.oracle_gap, values[1] - values[2])


def test_the_gap_is_zero_where_the_best_epoch_was_selected():
    predictions, truth = draw_run([0.2, 0.9])
    scores = score_run(predictions, truth, [0.1, 0.2], 4, np.random.default_rng(0), resamples=20)
    assert scores.oracle_gap == 0
    assert scores.selected == scores.last


def test_the_dictionary_has_the_form_of_metrics_json():
    predictions, truth = draw_run([0.2, 0.9])
    scores = score_run(predictions, truth, [0.3, 0.2], 4, np.random.default_rng(0), resamples=20).to_dict()
    assert list(scores) == ["selected", "last", "selected_epoch", "oracle_gap"]
    assert list(scores["selected"]) == ["balanced_accuracy", "macro_f1", "worst_class_recall", "accuracy"]
    assert list(scores["last"]["accuracy"]) == ["value", "low", "high"]
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_open_images_add_the_open_metrics():
    predictions, truth = draw_run([0.5, 0.8], with_open=True)
    known_scores = np.random.default_rng(1).random(predictions.shape) + (truth >= 0) * 0.5
    rng = np.random.default_rng(0)
    scores = score_run(predictions, truth, [0.1, 0.2], 4, rng, known_scores=known_scores, resamples=20)
    assert scores.selected["open_macro_f1"].value == open_macro_f1(predictions[1], truth, 4)
    assert_allclose(scores.selected["open_auroc"].value, open_auroc(known_scores[1], truth))
    without = score_run(predictions, truth, [0.1, 0.2], 4, rng, resamples=20)
    assert "open_auroc" not in without.selected
    assert "open_macro_f1" in without.selected


def test_without_truth_the_metric_is_agreement_and_there_is_no_oracle():
    predictions, given = draw_run([0.2, 0.9, 0.6], with_open=True)
    scores = score_agreement(predictions, given, 4, np.random.default_rng(0), resamples=20).to_dict()
    assert scores["selected_epoch"] == 1
    assert list(scores) == ["selected", "last", "selected_epoch"]
    assert list(scores["selected"]) == ["agreement_with_given"]
    assert scores["selected"]["agreement_with_given"]["value"] == balanced_agreement(predictions[1], given, 4)
    assert scores["last"]["agreement_with_given"]["value"] == balanced_agreement(predictions[2], given, 4)


def test_the_earliest_of_equal_epochs_is_selected():
    assert select_epoch([0.1, 0.7, 0.3, 0.7]) == 1


@pytest.mark.parametrize(
    ("scores", "message"), [([], "one epoch or more"), ([0.1, float("nan")], "epoch 1 has nan")]
)
def test_bad_holdout_scores_are_named(scores, message):
    with pytest.raises(DataError, match=message):
        select_epoch(scores)


def test_runs_that_do_not_fit_together_are_named():
    predictions, truth = draw_run([0.2, 0.9])
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="3 hold-out scores for 2 epochs"):
        score_run(predictions, truth, [0.1, 0.2, 0.3], 4, rng)
    with pytest.raises(DataError, match=r"must be \[E, 399\]"):
        score_run(predictions, truth[1:], [0.1, 0.2], 4, rng)
    with pytest.raises(DataError, match="known_scores of 1 epochs"):
        score_run(predictions, truth, [0.1, 0.2], 4, rng, known_scores=np.zeros((1, 400)))


def test_epoch_predictions_collect_save_and_truncate(tmp_path):
    predictions, truth = draw_run([0.1, 0.5, 0.9])
    scores = np.random.default_rng(0).random(predictions.shape).astype(np.float32)
    collected = EpochPredictions(len(truth))
    assert collected.predictions.shape == (0, len(truth))
    assert collected.known_scores is None
    for row, row_scores in zip(predictions, scores, strict=True):
        collected.append(row, row_scores)
    collected.save(tmp_path / "predictions.npz")
    loaded = EpochPredictions.load(tmp_path / "predictions.npz")
    assert loaded.predictions.dtype == np.uint16
    assert_array_equal(loaded.predictions, predictions)
    assert_array_equal(loaded.known_scores, scores)
    loaded.truncate(1)
    loaded.append(predictions[2], scores[2])
    assert_array_equal(loaded.predictions, predictions[[0, 2]])
    assert_array_equal(loaded.known_scores, scores[[0, 2]])
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.npz"]


def test_collected_predictions_do_not_follow_a_buffer_that_is_used_again():
    buffer = np.array([1, 2], dtype=np.uint16)
    collected = EpochPredictions(2)
    collected.append(buffer)
    buffer[:] = 0
    assert_array_equal(collected.predictions, [[1, 2]])


def test_bad_epochs_are_named(tmp_path):
    collected = EpochPredictions(2)
    with pytest.raises(DataError, match=r"predictions must be \[2\]"):
        collected.append(np.array([1]))
    with pytest.raises(DataError, match=r"0\.\.65535, found -1"):
        collected.append(np.array([-1, 0]))
    collected.append(np.array([1, 0]))
    with pytest.raises(DataError, match="in every epoch or in none"):
        collected.append(np.array([1, 0]), np.array([0.5, 0.5]))
    with pytest.raises(DataError, match="cannot keep 3 of 1"):
        collected.truncate(3)
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    with pytest.raises(DataError, match="holds no predictions"):
        EpochPredictions.load(tmp_path / "other.npz")
