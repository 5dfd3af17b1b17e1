"""Verdicts: rules by hand, the transition matrix by plain loops, and no score without the truth."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lauter.auditing.verdicts import (
    ASK_ABOVE,
    decide_training_verdicts,
    estimate_transition,
    make_label_table,
    score_labels,
    summarise_labels,
)
from lauter.data.dataset import OPEN, UNLABELLED, Dataset, ImageFault, ResidentImages
from lauter.noisy.filtering import Assessment

NAMES = ("ant", "bee", "cow")


def make_assessment(p_right: list[float], kept: list[bool], rate: float = 0.3) -> Assessment:
    right = np.array(p_right)
    return Assessment(right, right / 2, np.array(kept), rate, np.array([0.1, 0.2, 0.6]))


def make_data(labels: list[int], truth: list[int] | None = None) -> Dataset:
    count = len(labels)
    return Dataset(
        "insects",
        ResidentImages(np.zeros((count, 3, 8, 8), dtype=np.uint8)),
        np.array(labels),
        NAMES,
        np.array([f"{number}.png" for number in range(count)]),
        None if truth is None else np.array(truth),
        (ImageFault("x.png", "empty", "no bytes", True),),
    )


@pytest.fixture
def beliefs() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).dirichlet([1.0, 1.0, 1.0], size=6)


@pytest.fixture
def robust(beliefs: np.ndarray[Any, Any]) -> Any:
    """What a finished robust stage says about six images; the last one is unlabelled."""
    return SimpleNamespace(
        assessment=make_assessment([0.9, 0.2, 0.4, 0.1, 0.6, 0.0], [True, False, False, False, True, False]),
        beliefs=beliefs,
        prior=np.array([0.5, 0.25, 0.25]),
        ensemble=SimpleNamespace(probabilities=beliefs[::-1]),
        votes=np.roll(beliefs, 1, axis=0),
        corrected=np.array([False, False, False, True, False, False]),
    )


LABELS = [0, 1, 2, 0, 1, UNLABELLED]


def test_verdicts_by_hand() -> None:
    labels = np.array([0, 0, 0, 0, 0, UNLABELLED, UNLABELLED, 0])
    right = [0.9, 0.1, ASK_ABOVE, ASK_ABOVE - 1e-9, 0.1, 0.0, 0.0, 0.05]
    kept = [True, False, False, False, False, False, False, True]  # the last one by the cap
    corrected = np.array([False, False, False, False, True, False, True, False])
    found = decide_training_verdicts(labels, make_assessment(right, kept), corrected)
    assert found.tolist() == ["keep", "drop", "ask", "drop", "relabel", "ask", "relabel", "keep"]
    assert decide_training_verdicts(labels, make_assessment(right, kept), corrected, 0.05)[1] == "ask"


def test_the_table_by_plain_loops(robust: Any, beliefs: np.ndarray[Any, Any]) -> None:
    data = make_data(LABELS)
    table = make_label_table(data, robust, np.array([1, 4]))
    assert list(table.columns) == [
        *("id", "given", "verdict", "suggested", "p_given_right", "p_open"),
        *("belief_given", "belief_suggested", "ensemble_given", "votes_given", "standing", "part"),
    ]
    for row, label in enumerate(LABELS):
        balanced = [beliefs[row, k] / robust.prior[k] for k in range(3)]
        best = max(range(3), key=lambda k: balanced[k])
        confidence = balanced[best] / sum(balanced)
        kept = robust.assessment.kept[row]
        entry = table.iloc[row]
        assert entry["id"] == f"{row}.png"
        assert entry["suggested"] == (NAMES[label] if kept else NAMES[best])
        assert entry["belief_suggested"] == pytest.approx(confidence)
        assert entry["p_open"] == pytest.approx((1 - robust.assessment.p_right[row]) * (1 - confidence))
        assert entry["part"] == ("holdout" if row in (1, 4) else "train")
        if label == UNLABELLED:
            assert pd.isna(entry["given"])
            own = ["p_given_right", "belief_given", "ensemble_given", "votes_given", "standing"]
            assert entry[own].isna().all()
            continue
        assert entry["given"] == NAMES[label]
        assert entry["p_given_right"] == robust.assessment.p_right[row]
        assert entry["standing"] == robust.assessment.standing[row]
        assert entry["belief_given"] == beliefs[row, label]
        assert entry["ensemble_given"] == beliefs[5 - row, label]
        assert entry["votes_given"] == beliefs[row - 1, label]
    assert table["verdict"].tolist() == ["keep", "drop", "ask", "relabel", "keep", "ask"]


def test_the_table_survives_parquet(robust: Any, tmp_path: Any) -> None:
    table = make_label_table(make_data(LABELS), robust, np.array([1]))
    table.to_parquet(tmp_path / "labels.parquet", index=False)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "labels.parquet"), table)


def test_the_transition_matrix_by_plain_loops() -> None:
    generator = np.random.default_rng(1)
    beliefs = generator.dirichlet([0.5, 1.0, 2.0], size=40)
    labels = generator.integers(-1, 3, size=40)
    right = generator.random(40)
    expected = [[0.0] * 3 for _ in range(3)]
    for i in range(40):
        given = int(labels[i])
        if given == UNLABELLED:
            continue
        for k in range(3):
            share = right[i] if k == given else (1 - right[i]) * beliefs[i, k] / (1 - beliefs[i, given])
            expected[k][given] += share
    for k in range(3):
        total = sum(expected[k])
        expected[k] = [value / total for value in expected[k]]
    found = estimate_transition(beliefs, labels, right)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(found.sum(1), 1)


def test_labels_that_are_right_for_sure_give_the_identity() -> None:
    beliefs = np.full((6, 3), 1 / 3)
    labels = np.array([0, 1, 2, 0, 1, 2])
    np.testing.assert_allclose(estimate_transition(beliefs, labels, np.ones(6)), np.eye(3))
    sure = np.eye(3)[labels]  # nothing is left for another class: no division by zero
    assert np.isfinite(estimate_transition(sure, labels, np.full(6, 0.5))).all()


def test_the_summary_counts_and_estimates(robust: Any) -> None:
    data = make_data(LABELS, truth=[0, 0, 0, 0, 0, 0])
    table = make_label_table(data, robust, np.array([1]))
    found = summarise_labels(data, robust, table)
    assert found["images"] == 6
    assert found["counts"] == {"keep": 2, "relabel": 1, "drop": 1, "ask": 1, "unlabelled": 1}
    assert found["noise_rate"]["value"] == 0.3
    right = [0.9, 0.2, 0.4, 0.1, 0.6]
    spread = 1.96 * sum(p * (1 - p) for p in right) ** 0.5 / 5
    assert found["noise_rate"]["high"] == pytest.approx(0.3 + spread)
    assert found["noise_rate"]["low"] == pytest.approx(max(0, 0.3 - spread))
    assert found["noise_rate_by_class"] == {"ant": 0.1, "bee": 0.2, "cow": 0.6}
    assert np.shape(found["transition_matrix"]) == (3, 3)
    assert found["faults"] == 1
    assert found == summarise_labels(data.without_truth(), robust, table)  # the truth is not read


def test_scores_against_the_truth_by_hand(robust: Any) -> None:
    truth = [0, 2, OPEN, 1, 1, 2]
    data = make_data(LABELS, truth)
    table = make_label_table(data, robust, np.array([1]))
    table.loc[3, "suggested"] = "bee"
    found = score_labels(data, table)
    # Given 0 1 2 0 1, true 0 2 - 1 1: rows 1, 2, 3 are wrong, and rows 1, 2, 3 are not kept.
    assert found["true_noise_rate"] == 3 / 5
    assert (found["precision"], found["recall"], found["f1"]) == (1, 1, 1)
    assert found["correction_precision"] == 1
    assert found["dropped_or_relabelled"] == 2 / 5
    table.loc[3, "suggested"] = "cow"
    assert score_labels(data, table)["correction_precision"] == 0
    table.loc[1, "verdict"] = "keep"
    table.loc[0, "verdict"] = "relabel"
    worse = score_labels(data, table)
    assert (worse["precision"], worse["recall"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert set(worse["f1_by_class"]) == set(NAMES)


def test_a_relabelled_open_image_is_no_hit(robust: Any) -> None:
    data = make_data(LABELS, [0, 1, 2, OPEN, 1, 0])
    table = make_label_table(data, robust, np.array([1]))
    table["suggested"] = "ant"
    assert score_labels(data, table)["correction_precision"] == 0


@pytest.mark.parametrize("truth", [[0, 1, 2, 0, 1, 2], [1, 2, 0, 1, 2, 0]])
def test_all_right_or_all_wrong_has_no_ranking_to_score(robust: Any, truth: list[int]) -> None:
    data = make_data(LABELS, truth)
    found = score_labels(data, make_label_table(data, robust, np.array([1])))
    assert found["true_noise_rate"] in (0, 1)
    assert "auroc" not in found
    assert "f1" not in found


def test_without_truth_there_are_no_scores(robust: Any) -> None:
    data = make_data(LABELS)
    assert score_labels(data, make_label_table(data, robust, np.array([1]))) == {}
