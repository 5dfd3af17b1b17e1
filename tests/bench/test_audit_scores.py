"""Findings against the truth: every measure by hand, and what is left out where it is not defined."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from lauter.bench.audit_rivals import Findings
from lauter.bench.audit_scores import score_findings
from lauter.errors import ConfigError
from lauter.evaluation.intervals import Interval

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
TRUTH = np.array([0, 0, 1, -1, 1, 1, 0, 2, 2, 2])
"""Wrong are rows 2, 3 (open), 6 and 7; class 2 has no wrong label."""
DOUBT = np.array([0.1, 0.7, 0.9, 0.8, 0.2, 0.3, 0.6, 0.4, 0.0, 0.5])
FLAGGED = np.array([0, 1, 1, 1, 0, 0, 1, 0, 0, 0], dtype=bool)


def score(**changes: Any) -> dict[str, float]:
    found = dataclasses.replace(Findings(DOUBT, FLAGGED), **changes)
    return score_findings(found, LABELS, TRUTH, 3)


def test_detection_is_counted() -> None:
    values = score()
    pairs = [(bad, good) for bad in (2, 3, 6, 7) for good in (0, 1, 4, 5, 8, 9)]
    above = sum(DOUBT[bad] > DOUBT[good] for bad, good in pairs)
    # By falling doubt: 2, 3, (1), 6, (9), 7.
    wanted = {
        "auroc": above / 24,
        "average_precision": (1 + 1 + 3 / 4 + 4 / 6) / 4,
        "precision": 3 / 4,
        "recall": 3 / 4,
        "f1": 3 / 4,
        "best_f1": 4 / 5,
        "f1_of_best": (3 / 4) / (4 / 5),
        "flagged": 0.4,
        "noise_true": 0.4,
        # Class 0: 2 of 3 flagged, 2 of 2 found; class 1: 1 of 1, 1 of 2.
        "f1_worst_class": 2 / 3,
        "recall_worst_class": 1 / 2,
        "review_size": 2,
        "review_precision": 1,
    }
    assert values == pytest.approx(wanted)


def test_probabilities_are_scored_as_those_of_being_right() -> None:
    p_right = 1 - DOUBT
    values = score(p_right=p_right)
    right = (TRUTH == LABELS).astype(float)
    brier = sum((p_right[row] - right[row]) ** 2 for row in range(10)) / 10
    assert values["brier"] == pytest.approx(brier)
    assert values["brier_base"] == pytest.approx(0.24)
    assert values["brier_of_base"] == pytest.approx(brier / 0.24)
    gaps = sum(abs(p_right[row] - right[row]) for row in range(10)) / 10  # ten bins of one promise each
    assert values["adaptive_calibration_error"] == pytest.approx(gaps)
    assert values["calibration_error"] == pytest.approx(gaps)
    assert score(p_right=right)["brier_of_base"] == pytest.approx(0)


def test_rates_stand_beside_the_truth_of_their_kind() -> None:
    rates = {"noise": Interval(0.35, 0.3, 0.45), "closed": Interval(0.2, 0.1, 0.29), "open": 0.15}
    values = score(rates=rates)
    wanted = {
        "noise_true": 0.4,
        "noise_estimated": 0.35,
        "noise_low": 0.3,
        "noise_high": 0.45,
        "noise_width": 0.15,
        "noise_inside": 1,
        "closed_true": 0.3,
        "closed_estimated": 0.2,
        "closed_inside": 0,
        "open_true": 0.1,
        "open_estimated": 0.15,
    }
    assert {name: values[name] for name in wanted} == pytest.approx(wanted)
    assert "open_inside" not in values
    assert score(rates={"noise": Interval(0.4, 0.4, 0.4)})["noise_inside"] == 1


def test_a_person_looks_in_the_order_of_the_plan() -> None:
    order = np.array([0, 2, 1, 3, 4, 5, 6, 7, 8, 9])
    assert score(review=order)["review_precision"] == pytest.approx(0.5)
    # What a plan does not show is not found.
    assert score(review=order[1:2])["review_precision"] == pytest.approx(0.5)
    assert score(review=order[:0])["review_precision"] == 0


def test_at_most_two_hundred_are_looked_at() -> None:
    wrong = np.arange(1000) < 600
    doubt = np.where(np.arange(1000) % 4 == 0, 2.0, 1.0) * wrong + 0.5 * ~wrong
    labels, truth = np.zeros(1000, dtype=np.int64), wrong.astype(np.int64)
    values = score_findings(Findings(doubt, wrong), labels, truth, 2)
    assert (values["review_size"], values["review_precision"]) == (200, 1)
    few = score_findings(Findings(doubt, wrong), labels, (np.arange(1000) < 41).astype(np.int64), 2)
    assert few["review_size"] == 20


def test_corrections_are_right_where_the_suggested_class_is_the_true_one() -> None:
    suggested = np.array([0, 1, 1, 2, 1, 1, 0, 2, 2, 2])
    values = score(suggested=suggested)
    assert values["relabelled"] == pytest.approx(0.4)
    assert values["correction_precision"] == pytest.approx(2 / 4)  # rows 2 and 6; 1 was right, 3 is open
    only = np.zeros(10, dtype=bool)
    only[[2, 7]] = True
    values = score(suggested=suggested, relabelled=only)
    assert (values["relabelled"], values["correction_precision"]) == (0.2, 1)
    assert "correction_precision" not in score(suggested=suggested, relabelled=only & False)
    assert score(advises=True)["advises"] == 1
    assert score(advises=False)["advises"] == 0


def test_on_clean_labels_nothing_undefined_is_said() -> None:
    found = Findings(DOUBT, FLAGGED, p_right=1 - DOUBT, rates={"noise": Interval(0, 0, 0.02)})
    values = score_findings(found, LABELS, LABELS, 3)
    assert values["flagged"] == pytest.approx(0.4)
    assert (values["precision"], values["f1"], values["noise_inside"]) == (0, 0, 1)
    undefined = {"auroc", "best_f1", "f1_of_best", "f1_worst_class", "brier_of_base", "review_precision"}
    assert not undefined & values.keys()
    assert values["brier"] == pytest.approx(float(np.mean(DOUBT**2)))


def test_unlabelled_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="leave the unlabelled ones out"):
        score_findings(Findings(DOUBT, FLAGGED), np.where(LABELS == 2, -1, LABELS), TRUTH, 3)
