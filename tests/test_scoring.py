"""Scores of a saved model."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import lauter
from lauter.data.dataset import OPEN, UNLABELLED, Dataset
from lauter.errors import DataError
from lauter.pipeline import FitResult
from lauter.scoring import evaluate


@pytest.fixture
def data(photos: Path) -> Dataset:
    return lauter.open_dataset(photos)


def test_scores_are_those_of_the_predictions(finished: FitResult, data: Dataset) -> None:
    model = lauter.load(finished.directory)
    predicted = model.predict(data)["class"].to_numpy()
    names = np.array(data.class_names)
    # Labels from the predictions themselves, some of them changed: the scores are known then.
    labels = np.array([data.class_names.index(name) for name in predicted])
    changed = labels.copy()
    changed[::4] = (changed[::4] + 1) % 3
    scores = evaluate(model, data.with_labels(changed))
    assert set(scores) == {"balanced_accuracy", "macro_f1", "worst_class_recall", "accuracy"}
    assert scores["accuracy"]["value"] == pytest.approx((predicted == names[changed]).mean())
    recalls = [(labels[changed == k] == k).mean() for k in np.unique(changed)]
    assert scores["balanced_accuracy"]["value"] == pytest.approx(np.mean(recalls))
    assert scores["worst_class_recall"]["value"] == pytest.approx(min(recalls))
    for score in scores.values():
        assert score["low"] <= score["value"] <= score["high"]
    assert evaluate(model, data.with_labels(changed)) == scores  # the bootstrap is seeded


def test_the_truth_scores_where_there_is_one(finished: FitResult, data: Dataset) -> None:
    model = lauter.load(finished.directory)
    wrong = data.with_labels((data.labels + 1) % 3).with_truth(data.labels)
    assert evaluate(model, wrong) == evaluate(model, data)
    truth = data.labels.copy()
    truth[::5] = OPEN
    assert set(evaluate(model, data.with_truth(truth))) >= {"open_auroc", "open_macro_f1"}


def test_unlabelled_images_are_not_scored(finished: FitResult, data: Dataset) -> None:
    model = lauter.load(finished.directory)
    labels = data.labels.copy()
    labels[::2] = UNLABELLED
    half = evaluate(model, data.with_labels(labels))
    assert half == evaluate(model, data.subset(np.arange(1, len(data), 2)))
    with pytest.raises(DataError, match="photos: no image has a label to score by"):
        evaluate(model, data.with_labels(np.full(len(data), UNLABELLED)))


def test_other_classes_are_refused(finished: FitResult, data: Dataset) -> None:
    model = lauter.load(finished.directory)
    with pytest.raises(DataError, match="the model tells cat, dog, train"):
        evaluate(model, dataclasses.replace(data, class_names=("cat", "train", "dog")))
