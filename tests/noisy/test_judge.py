"""The judge: what is taught follows from what is believed, and hold-out labels have no say."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lauter.data import Dataset
from lauter.data.dataset import UNLABELLED
from lauter.errors import ConfigError
from lauter.noisy.correction import CorrectionConfig
from lauter.noisy.filtering import FilterConfig
from lauter.noisy.judge import Judge, JudgeConfig
from lauter.training.predict import Predictions

ROWS = np.arange(120)
TRAIN, HOLDOUT = ROWS[ROWS % 6 != 5], ROWS[ROWS % 6 == 5]

Make = Callable[..., Judge]


@pytest.fixture
def data(make_data: Callable[..., Dataset]) -> Dataset:
    return make_data()


def believe(data: Dataset, strength: float = 0.9) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Probabilities that know the true class of every image."""
    true = data.images.uniform.mean((2, 3)).argmax(1)  # type: ignore[union-attr]
    return np.eye(3)[true] * strength + (1 - strength) / 3


@pytest.fixture
def make() -> Make:
    def make_judge(data: Dataset, config: JudgeConfig | None = None, **options: Any) -> Judge:
        known = believe(data)
        return Judge(
            data,
            TRAIN,
            HOLDOUT,
            torch.from_numpy(known).float(),
            known,
            config or JudgeConfig(neighbours=5),
            torch.device("cpu"),
            **{"epochs": 4, **options},
        )

    return make_judge


def show(judge: Judge, data: Dataset) -> Predictions:
    """Let the judge see every training image as the truth has it; gives the same of the hold-out."""
    logits = torch.from_numpy(believe(data)).log().float() - judge.log_prior
    features = torch.from_numpy(believe(data)).float()
    judge.remember(torch.from_numpy(TRAIN), logits[TRAIN], features[TRAIN], judge.log_prior)
    return Predictions(logits[HOLDOUT], features[HOLDOUT])


def test_only_believed_labels_are_taught_to_others(make: Make, data: Dataset) -> None:
    judge = make(data)
    judge.given = np.array([0, 1, 2, UNLABELLED, 1, UNLABELLED])
    judge.corrected = np.array([False, True, False, False, False, True])
    judge.suggested = np.array([1, 2, 1, 1, 0, 0])
    kept = np.array([True, False, False, False, True, False])
    judge.assessment = dataclasses.replace(judge.assessment, kept=kept)
    np.testing.assert_array_equal(judge.choose_targets(), [0, 2, UNLABELLED, UNLABELLED, 1, 0])


def test_weights_are_the_probability_of_being_right_or_all_or_nothing(make: Make, data: Dataset) -> None:
    soft, hard = (make(data, JudgeConfig(neighbours=5, weighting=kind)) for kind in ("soft", "hard"))
    expected = np.where(data.labels == UNLABELLED, 0, soft.assessment.p_right)
    np.testing.assert_allclose(soft.weights.numpy(), expected, rtol=1e-6)
    np.testing.assert_array_equal(hard.weights.numpy(), hard.assessment.kept.astype(np.float32))
    np.testing.assert_array_equal(soft.targets.numpy(), data.labels)


def test_corrections_wait_for_their_share_of_the_training(make: Make, data: Dataset) -> None:
    correction = CorrectionConfig(confidence=0.5, stable_epochs=0, first_epoch=0, first_share=0.5)
    judge = make(data, JudgeConfig(neighbours=5, correction=correction))
    counts = []
    for epoch in range(4):
        judge.close_epoch(epoch, show(judge, data))
        counts.append(int(judge.corrected.sum()))
    assert counts[0] == 0
    assert min(counts[1:]) > 0
    true = believe(data).argmax(1)
    np.testing.assert_array_equal(judge.suggested[judge.corrected], true[judge.corrected])
    np.testing.assert_array_equal(judge.weights.numpy()[judge.corrected], 1)


def test_soft_targets_hold_the_belief_and_a_precision_sets_the_confidence(make: Make, data: Dataset) -> None:
    counts = []
    for precision in (
        1.0,
        0.01,
    ):  # images that are all alike leave much doubt about how right suggestions are
        correction = CorrectionConfig(precision=precision, targets="soft", stable_epochs=0, first_epoch=0)
        judge = make(data, JudgeConfig(neighbours=5, correction=correction))
        for epoch in range(2):
            judge.close_epoch(epoch, show(judge, data))
        counts.append(int(judge.corrected.sum()))
    assert counts[0] == 0 < counts[1]
    targets = judge.targets.numpy()
    assert targets.shape == (len(data), 3)
    np.testing.assert_array_equal(targets[judge.corrected].argmax(1), judge.suggested[judge.corrected])
    assert targets[judge.corrected].max() < 1
    plain = ~judge.corrected & data.labelled
    np.testing.assert_array_equal(targets[plain], np.eye(3, dtype=np.float32)[data.labels[plain]])


def test_losses_reach_a_filter_that_asks_for_them(make: Make, data: Dataset) -> None:
    rule = FilterConfig(kind="mixture", signal="loss")
    judge = make(data, JudgeConfig(neighbours=5, filter=rule))
    judge.close_epoch(0, show(judge, data))
    wrong = (believe(data).argmax(1) != data.labels) & data.labelled
    assert judge.assessment.p_right[data.labelled & ~wrong].min() > judge.assessment.p_right[wrong].max()


def test_holdout_labels_have_no_vote_and_no_say(make: Make, data: Dataset) -> None:
    other = data.labels.copy()
    other[HOLDOUT] = (other[HOLDOUT] + 1) % 3
    first, second = make(data), make(data.with_labels(other))
    for judge in (first, second):
        judge.close_epoch(0, show(judge, data))
    np.testing.assert_array_equal(first.beliefs, second.beliefs)
    np.testing.assert_array_equal(first.weights.numpy()[TRAIN], second.weights.numpy()[TRAIN])
    assert not np.array_equal(first.assessment.p_right[HOLDOUT], second.assessment.p_right[HOLDOUT])


def test_a_judge_goes_on_from_its_state(make: Make, data: Dataset) -> None:
    whole, stopped = make(data), make(data)
    for judge in (whole, stopped):
        judge.close_epoch(0, show(judge, data))
    resumed = make(data)
    resumed.load_state(stopped.state())
    for judge in (whole, resumed):
        judge.close_epoch(1, show(judge, data))
    np.testing.assert_array_equal(resumed.beliefs, whole.beliefs)
    np.testing.assert_array_equal(resumed.assessment.p_right, whole.assessment.p_right)
    torch.testing.assert_close(resumed.weights, whole.weights, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"neighbours": 0}, "neighbours must be 1 or more"),
        ({"refresh_neighbours": -1}, "refresh_neighbours 0 or more, not 100 and -1"),
        ({"ensemble_momentum": 1.0}, r"ensemble_momentum must be in \[0, 1\), not 1.0"),
        ({"beliefs": "gut"}, "beliefs must be both, ensemble or neighbours, not 'gut'"),
        ({"weighting": "none"}, "weighting must be soft or hard, not 'none'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        JudgeConfig(**settings)
