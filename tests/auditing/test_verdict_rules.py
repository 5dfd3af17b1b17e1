"""Verdicts at a stated precision, and the classes that are spared."""

import numpy as np
import pytest

from lauter.auditing.advice import LEAST_SURE, give_advice
from lauter.auditing.verdict_rules import decide_verdicts, take_at_precision
from lauter.evaluation.intervals import Interval

EVERYTHING = np.ones(6, dtype=bool)


def decide(labels: list[int], right: list[float], suggested: list[float], **options: float) -> list[str]:
    flagged = np.array(right) < 0.5
    settings = {"precision": 0.9, "cap": 1.0} | options
    found = decide_verdicts(
        np.array(labels), flagged & (np.array(labels) >= 0), np.array(right), np.array(suggested), **settings
    )
    return [str(verdict) for verdict in found]


def test_sure_suggestions_relabel_sure_errors_drop_and_the_rest_is_asked() -> None:
    found = decide([0, 0, 0, 0], [0.01, 0.02, 0.4, 0.9], [0.95, 0.3, 0.5, 0.05])
    assert found == ["relabel", "drop", "ask", "keep"]


def test_a_poor_classifier_is_believed_less() -> None:
    right, suggested = [0.01, 0.9], [0.91, 0.05]
    assert decide([0, 0], right, suggested, errors=0.1)[0] == "relabel"
    assert decide([0, 0], right, suggested, errors=0.5)[0] == "drop"


def test_unlabelled_images_are_relabelled_or_asked_about() -> None:
    assert decide([-1, -1, 0], [0, 0, 0.9], [0.97, 0.5, 0]) == ["relabel", "ask", "keep"]


def test_the_mean_of_what_is_taken_reaches_the_precision_and_one_more_would_not() -> None:
    probability = np.random.default_rng(0).random(300)
    for precision in (0.6, 0.8, 0.95):
        taken = take_at_precision(probability, probability > 0.1, precision)
        assert probability[taken].mean() >= precision - 1e-9
        rest = np.sort(probability[~taken])[::-1]
        assert np.append(probability[taken], rest[0]).mean() < precision


def test_equals_are_taken_or_left_together() -> None:
    probability = np.array([1.0, 0.8, 0.8, 0.8, 0.8, 0.8])
    assert take_at_precision(probability, EVERYTHING, 0.9).tolist() == [True] + [False] * 5
    assert take_at_precision(probability, EVERYTHING, 0.8).all()
    assert not take_at_precision(probability, ~EVERYTHING, 0.5).any()


def test_a_class_keeps_its_share_and_the_most_credible_labels_are_asked_about() -> None:
    labels = [0] * 4 + [1] * 2
    right = [0.01, 0.02, 0.03, 0.04, 0.9, 0.9]
    found = decide(labels, right, [0.99] * 4 + [0.0] * 2, cap=0.5)
    assert found == ["relabel", "relabel", "ask", "ask", "keep", "keep"]
    assert decide(labels, right, [0.0] * 6, cap=0.0)[:4] == ["ask"] * 4


@pytest.mark.parametrize(
    ("verdicts", "rate", "clean", "reason"),
    [
        (["drop"] * 5 + ["keep"] * 95, Interval(0.06, 0.02, 0.1), True, "5 can be corrected or dropped"),
        (["drop"] * 5 + ["keep"] * 95, Interval(0.02, 0.0, 0.05), False, "cannot be told from no noise"),
        (["ask"] * 9 + ["keep"] * 91, Interval(0.06, 0.02, 0.1), False, "look at the 9 that are in question"),
    ],
)
def test_advice_states_what_decided(verdicts: list[str], rate: Interval, clean: bool, reason: str) -> None:
    found = give_advice(np.zeros(100, dtype=np.int64), np.array(verdicts), rate)
    assert found.clean is clean
    assert reason in found.reason
    assert f"{rate.value:.1%} of 100 labels" in found.reason


def test_without_labels_there_is_nothing_to_clean() -> None:
    found = give_advice(np.full(3, -1), np.array(["ask"] * 3), Interval(0, 0, 0))
    assert not found.clean
    assert "No image has a label" in found.reason
    assert LEAST_SURE > 0
