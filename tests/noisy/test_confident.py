"""Confident learning against slow loops, against its authors' library, and on labels whose truth is known."""

import math

import numpy as np
import pytest

from lauter.errors import ConfigError, DataError
from lauter.noisy.confident import (
    calibrate_joint,
    count_confident_joint,
    find_confident_errors,
    find_thresholds,
    score_confidence,
)

Floats = np.ndarray
WAYS = ("class", "noise_rate", "both")


def draw(
    seed: int, images: int, classes: int, skill: float = 2.0, rate: float = 0.3
) -> tuple[Floats, Floats]:
    """Predictions of a network of some skill, and labels of which some are wrong."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(classes, 2.0))
    true = rng.choice(classes, images, p=shares)
    logits = rng.normal(size=(images, classes))
    logits[np.arange(images), true] += skill
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = rng.random(images) < rate
    return probs, np.where(wrong, rng.integers(0, classes, images), true)


def thresholds_by_loop(probs: list[list[float]], labels: list[int]) -> list[float]:
    thresholds = []
    for k in range(len(probs[0])):
        own = [row[k] for row, label in zip(probs, labels, strict=True) if label == k]
        thresholds.append(math.fsum(own) / len(own) if own else math.inf)
    return thresholds


def joint_by_loop(probs: list[list[float]], labels: list[int]) -> list[list[int]]:
    classes = len(probs[0])
    thresholds = thresholds_by_loop(probs, labels)
    joint = [[0] * classes for _ in range(classes)]
    for row, label in zip(probs, labels, strict=True):
        reached = [k for k in range(classes) if label >= 0 and row[k] >= thresholds[k] - 1e-6]
        if len(reached) == 1:
            joint[label][reached[0]] += 1
        elif reached:
            joint[label][row.index(max(row))] += 1
    for k in range(classes):
        joint[k][k] = max(joint[k][k], 1)
    return joint


def counts_by_loop(joint: list[list[int]], sizes: list[int]) -> list[list[int]]:
    """The joint, scaled to all images; each row is rounded down, then the largest fractions get the rest."""
    counts = []
    for k, (row, size) in enumerate(zip(joint, sizes, strict=True)):
        exact = [round(count / sum(row) * size, 9) for count in row]
        # Of equal fractions the later class goes first, as in the authors' library; a half goes to even ones.
        keys = [(value % 1, value % 1 == 0.5 and int(value) % 2, j) for j, value in enumerate(exact)]
        rank = [j for *_, j in sorted(keys, reverse=True)]
        whole = [int(value) for value in exact]
        for j in rank[: size - sum(whole)]:
            whole[j] += 1
        if whole[k] == 0:
            whole = [max(count - 1, 0) for count in whole]
            whole[k] = 1
        counts.append(whole)
    return counts


def errors_by_loop(probs: Floats, labels: Floats, prune_by: str) -> list[bool]:
    rows, given = probs.tolist(), labels.tolist()
    classes = len(rows[0])
    counts = counts_by_loop(joint_by_loop(rows, given), [given.count(k) for k in range(classes)])
    by_class, by_rate = set(), set()
    for k in range(classes):
        members = [i for i, label in enumerate(given) if label == k]
        lowest = sorted(members, key=lambda i: rows[i][k])
        by_class |= set(lowest[: len(members) - counts[k][k]])
        for j in range(classes):
            if j != k:
                by_rate |= set(sorted(members, key=lambda i: rows[i][k] - rows[i][j])[: counts[k][j]])
    chosen = {"class": by_class, "noise_rate": by_rate, "both": by_class & by_rate}[prune_by]
    return [i in chosen and rows[i].index(max(rows[i])) != given[i] for i in range(len(given))]


@pytest.mark.parametrize("prune_by", WAYS)
@pytest.mark.parametrize(("seed", "images", "classes"), [(0, 300, 3), (1, 200, 7), (2, 150, 10), (3, 40, 12)])
def test_errors_are_those_of_the_loops(prune_by: str, seed: int, images: int, classes: int) -> None:
    probs, labels = draw(seed, images, classes)
    labels[::9] = -1
    found = find_confident_errors(probs, labels, prune_by=prune_by)
    assert found.tolist() == errors_by_loop(probs, labels, prune_by)
    assert 0.05 * images < found.sum() < 0.6 * images


@pytest.mark.parametrize("prune_by", WAYS)
def test_errors_are_those_of_the_authors_library(prune_by: str) -> None:
    library = pytest.importorskip("cleanlab.filter", reason="cleanlab comes with the bench extra")
    name = prune_by if prune_by == "both" else f"prune_by_{prune_by}"
    untied = 0
    for seed in range(20):
        probs, labels = draw(seed, 1000, 2 + seed % 11, skill=1 + seed % 3)
        labels[: probs.shape[1]] = np.arange(probs.shape[1])  # it wants to see every class
        issues = library.find_label_issues(labels, probs, filter_by=name, n_jobs=1)
        found = find_confident_errors(probs, labels, prune_by=prune_by)
        if has_ties(probs, labels):
            assert np.sum(found != issues) < 10, "it rounds equal remainders in no settled order"
        else:
            untied += 1
            np.testing.assert_array_equal(found, issues)
    assert untied >= 5


def has_ties(probs: Floats, labels: Floats) -> bool:
    """Whether counts of some row have equal remainders, so that rounding them is a matter of taste."""
    joint = count_confident_joint(probs, labels)
    exact = joint / joint.sum(1, keepdims=True) * np.bincount(labels)[:, None]
    remainders = np.round(exact % 1, 6)
    return any(len(set(row[row > 0])) < (row > 0).sum() for row in remainders)


@pytest.mark.parametrize(("score", "name"), [("margin", "normalized_margin"), ("self_confidence",) * 2])
def test_scores_are_those_of_the_authors_library(score: str, name: str) -> None:
    library = pytest.importorskip("cleanlab.rank", reason="cleanlab comes with the bench extra")
    probs, labels = draw(4, 200, 6)
    expected = library.get_label_quality_scores(labels, probs, method=name)
    np.testing.assert_allclose(score_confidence(probs, labels, score), expected, rtol=1e-12)


def test_thresholds_and_joint_are_those_of_the_loops() -> None:
    probs, labels = draw(5, 250, 6)
    labels[labels == 4] = 2  # a class that nobody gives
    labels[::10] = -1
    thresholds = find_thresholds(probs, labels)
    np.testing.assert_allclose(thresholds, thresholds_by_loop(probs.tolist(), labels.tolist()), rtol=1e-12)
    assert math.isinf(thresholds[4])
    joint = count_confident_joint(probs, labels)
    assert joint.tolist() == joint_by_loop(probs.tolist(), labels.tolist())
    sizes = np.bincount(labels[labels >= 0], minlength=6)
    calibrated = calibrate_joint(joint, sizes)
    for k in range(6):
        expected = joint[k] / joint[k].sum() * sizes[k] / sizes.sum()
        np.testing.assert_allclose(calibrated[k], expected, rtol=1e-12)


def test_equal_probabilities_reach_their_own_mean() -> None:
    for value in np.random.default_rng(6).random(50):
        probs = np.tile([value, 1 - value], (10, 1))
        assert count_confident_joint(probs, np.zeros(10, dtype=np.int64))[0, 0] == 10


@pytest.mark.parametrize("prune_by", WAYS)
def test_a_perfect_network_finds_exactly_the_wrong_labels(prune_by: str) -> None:
    rng = np.random.default_rng(7)
    true = rng.integers(0, 5, 500)
    probs = np.full((500, 5), 0.02)
    probs[np.arange(500), true] = 0.92
    given = np.where(rng.random(500) < 0.3, (true + rng.integers(1, 5, 500)) % 5, true)
    np.testing.assert_array_equal(find_confident_errors(probs, given, prune_by=prune_by), given != true)
    assert not find_confident_errors(probs, true, prune_by=prune_by).any()


def test_a_label_that_ties_with_the_prediction_is_not_called_wrong() -> None:
    # How much they look like class 0; the last four are labelled 1, and three of these are counted as 0.
    looks = [0.45, 0.45, 0.5 + 1e-7, 0.1, 0.45, 0.7]
    probs = np.array([[p, 1 - p] for p in looks])
    found = find_confident_errors(probs, np.array([0, 0, 1, 1, 1, 1]))
    assert np.flatnonzero(found).tolist() == [5]


@pytest.mark.parametrize("prune_by", WAYS)
def test_what_is_predicted_as_given_is_never_called_wrong(prune_by: str) -> None:
    probs, labels = draw(8, 600, 5, skill=0.5, rate=0.6)
    found = find_confident_errors(probs, labels, prune_by=prune_by)
    assert found.any()
    assert (probs.argmax(1) != labels)[found].all()


def test_both_is_what_the_two_agree_on() -> None:
    probs, labels = draw(9, 500, 6)
    by_class, by_rate, both = (
        find_confident_errors(probs, labels, prune_by=name) for name in ("class", "noise_rate", "both")
    )
    np.testing.assert_array_equal(both, by_class & by_rate)
    assert both.sum() < max(by_class.sum(), by_rate.sum())


@pytest.mark.parametrize("prune_by", WAYS)
def test_every_class_keeps_a_label(prune_by: str) -> None:
    probs = np.tile([0.05, 0.9, 0.05], (50, 1))
    labels = np.repeat([0, 1], [12, 38])
    probs[:12, 1:] = np.linspace([0.91, 0.04], [0.94, 0.01], 12)  # not one image of class 0 looks like it
    found = find_confident_errors(probs, labels, prune_by=prune_by)
    # Of equals the last one stays; by margin the one that looks least like another class.
    expected = {"class": range(11), "noise_rate": range(1, 12), "both": range(1, 11)}[prune_by]
    assert np.flatnonzero(found).tolist() == list(expected)


def test_a_class_of_two_gives_up_one_label_at_most() -> None:
    probs = np.array([[0.2, 0.8, 0.0], [0.1, 0.0, 0.9], *[[0.05, 0.75, 0.2]] * 5, *[[0.05, 0.2, 0.75]] * 5])
    labels = np.repeat([0, 1, 2], [2, 5, 5])  # one of the two looks like 1, the other like 2
    assert count_confident_joint(probs, labels)[0].tolist() == [1, 1, 1]
    assert np.flatnonzero(find_confident_errors(probs, labels, prune_by="class")).tolist() == [1]
    assert not find_confident_errors(probs, labels, prune_by="noise_rate").any()


def test_unlabelled_images_change_nothing_and_the_order_does_not_matter() -> None:
    probs, labels = draw(11, 300, 4)
    alone = find_confident_errors(probs[:200], labels[:200])
    hidden = np.where(np.arange(300) < 200, labels, -1)
    found = find_confident_errors(probs, hidden)
    np.testing.assert_array_equal(found[:200], alone)
    assert not found[200:].any()
    order = np.random.default_rng(0).permutation(300)
    np.testing.assert_array_equal(find_confident_errors(probs[order], hidden[order]), found[order])
    assert not find_confident_errors(probs, np.full(300, -1)).any()


def test_scores_are_those_of_the_loops() -> None:
    probs, labels = draw(12, 100, 5)
    labels[:3] = -1
    margins, confidences = score_confidence(probs, labels), score_confidence(probs, labels, "self_confidence")
    assert np.isnan(margins[:3]).all()
    assert np.isnan(confidences[:3]).all()
    for i in range(3, 100):
        row, given = probs[i].tolist(), int(labels[i])
        others = max(p for k, p in enumerate(row) if k != given)
        np.testing.assert_allclose([margins[i], confidences[i]], [(row[given] - others + 1) / 2, row[given]])
    np.testing.assert_array_equal(margins[3:] < 0.5, (probs.argmax(1) != labels)[3:])


def test_what_does_not_fit_is_refused() -> None:
    probs, labels = draw(13, 20, 3)
    with pytest.raises(DataError, match=r"not \[20, 3\] and \[19\]"):
        find_confident_errors(probs, labels[1:])
    with pytest.raises(DataError, match="K of 2 or more"):
        find_thresholds(probs[:, :1], labels)
    with pytest.raises(DataError, match="integers, not float64"):
        find_thresholds(probs, labels.astype(np.float64))
    with pytest.raises(DataError, match=r"in -1\.\.2 for 3 classes, found 0\.\.7"):
        find_thresholds(probs, np.r_[0, 7, labels[2:]])
    with pytest.raises(DataError, match="not logits"):
        count_confident_joint(probs * 1e4, labels)
    with pytest.raises(DataError, match="finite"):
        score_confidence(np.where(probs == probs[4, 1], np.nan, probs), labels)
    with pytest.raises(ConfigError, match="prune_by must be both, class, noise_rate, not 'all'"):
        find_confident_errors(probs, labels, prune_by="all")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="score must be margin or self_confidence, not 'entropy'"):
        score_confidence(probs, labels, "entropy")  # type: ignore[arg-type]
