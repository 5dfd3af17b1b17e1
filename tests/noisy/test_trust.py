"""Trust: what a person decided stands, and only the doubt about it is taken out of the noise rates."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lauter.data import Dataset
from lauter.data.dataset import UNLABELLED
from lauter.errors import DataError
from lauter.noisy.correction import CorrectionConfig
from lauter.noisy.filtering import Assessment
from lauter.noisy.judge import Judge, JudgeConfig
from lauter.noisy.trust import trust_labels
from lauter.training.predict import Predictions

LABELS = np.array([0, 0, 1, 1, 2, UNLABELLED, UNLABELLED])
RIGHT = np.array([0.9, 0.2, 0.4, 0.8, 0.1, 0.0, 0.0])
KEPT = np.array([True, False, False, True, False, False, False])


def make_assessment() -> Assessment:
    return Assessment(RIGHT.copy(), RIGHT / 2, KEPT.copy(), 0.52, np.array([0.45, 0.4, 0.9]))


def test_trusted_labels_by_plain_loops() -> None:
    trusted = np.array([False, True, True, False, False, True, False])
    found = trust_labels(make_assessment(), LABELS, trusted)
    right, kept, taken, by_class = [], [], 0.0, [0.0, 0.0, 0.0]
    for row in range(7):
        sure = bool(trusted[row]) and LABELS[row] != -1
        right.append(1.0 if sure else float(RIGHT[row]))
        kept.append(bool(KEPT[row]) or sure)
        if sure:
            taken += (1 - float(RIGHT[row])) / 5
            by_class[LABELS[row]] += (1 - float(RIGHT[row])) / 2  # two images of each of these classes
    np.testing.assert_allclose(found.p_right, right, rtol=1e-12)
    np.testing.assert_array_equal(found.kept, kept)
    np.testing.assert_allclose(found.noise_rate, 0.52 - taken, rtol=1e-12)
    # The second class had .4, of which its trusted image takes .3; the first one .45, less than .8 / 2 + ...
    expected = np.maximum(np.array([0.45, 0.4, 0.9]) - by_class, 0)
    np.testing.assert_allclose(found.class_noise_rates, expected, rtol=1e-12)
    np.testing.assert_array_equal(found.standing, RIGHT / 2)


def test_trusting_everything_leaves_no_noise_and_trusting_nothing_changes_nothing() -> None:
    known = LABELS != UNLABELLED
    everything = trust_labels(make_assessment(), LABELS, np.ones(7, dtype=bool))
    np.testing.assert_array_equal(everything.p_right, known.astype(float))
    np.testing.assert_array_equal(everything.kept, known)
    np.testing.assert_allclose(everything.noise_rate, 0, atol=1e-12)
    plain = make_assessment()
    assert trust_labels(plain, LABELS, None) is plain
    nothing = trust_labels(plain, LABELS, np.zeros(7, dtype=bool))
    for field in dataclasses.fields(Assessment):
        np.testing.assert_array_equal(getattr(nothing, field.name), getattr(plain, field.name))


def test_a_mask_of_another_length_is_refused() -> None:
    with pytest.raises(DataError, match=r"trusted must say yes or no of each of the 7 images, not be of sh"):
        trust_labels(make_assessment(), LABELS, np.ones(6, dtype=bool))


def believe(data: Dataset) -> np.ndarray[Any, np.dtype[np.float64]]:
    true = data.images.uniform.mean((2, 3)).argmax(1)  # type: ignore[union-attr]
    return np.eye(3)[true] * 0.9 + 0.1 / 3


def judge_for_two_epochs(data: Dataset) -> Judge:
    """A judge who sees the truth, and corrects what he can as soon as he may."""
    rows = np.arange(len(data))
    train, holdout = rows[rows % 6 != 5], rows[rows % 6 == 5]
    known = believe(data)
    config = JudgeConfig(
        neighbours=5, correction=CorrectionConfig(confidence=0.5, stable_epochs=0, first_epoch=0)
    )
    features = torch.from_numpy(known).float()
    judge = Judge(data, train, holdout, features, known, config, torch.device("cpu"), epochs=2)
    for epoch in range(2):
        logits = torch.from_numpy(known).log().float() - judge.log_prior
        judge.remember(torch.from_numpy(train), logits[train], features[train], judge.log_prior)
        judge.close_epoch(epoch, Predictions(logits[holdout], features[holdout]))
    return judge


def test_the_judge_teaches_what_a_person_decided_and_nothing_else(make_data: Callable[..., Dataset]) -> None:
    data = make_data()
    wrong = np.flatnonzero(data.labelled & (believe(data).argmax(1) != data.labels))
    doubted = judge_for_two_epochs(data)
    assert doubted.corrected[wrong].any()
    assert doubted.corrected[~data.labelled].any()  # an unlabelled image may be given a label

    trusted = np.zeros(len(data), dtype=bool)
    trusted[wrong] = True  # a person insists
    trusted[:3] = True  # and has left these without a label
    judge = judge_for_two_epochs(dataclasses.replace(data, trusted=trusted))
    assert judge.assessment.kept[wrong].all()
    np.testing.assert_array_equal(judge.assessment.p_right[wrong], 1)
    assert not judge.corrected[trusted].any()
    targets = judge.choose_targets()
    np.testing.assert_array_equal(targets[wrong], data.labels[wrong])
    np.testing.assert_array_equal(targets[:3], UNLABELLED)
    np.testing.assert_array_equal(judge.weights.numpy()[:3], 0)
    in_training = wrong[wrong % 6 != 5]
    np.testing.assert_array_equal(judge.weights.numpy()[in_training], 1)
