"""Newcomers: voters, margins and curves by plain loops, verdicts by hand, and each judged by itself."""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest

from lauter.auditing.evidence import Evidence, NeighbourSummary
from lauter.auditing.judgement import Advice, Cuts, Judgement, ReviewPlan
from lauter.auditing.newcomers import POOLING, Curve, Reference, make_reference, measure_margins, pick_others
from lauter.data.dataset import UNLABELLED
from lauter.errors import ConfigError, DataError
from lauter.evaluation.intervals import Interval
from lauter.noisy.top_beliefs import TopBeliefs

Array = np.ndarray[Any, Any]
PRIOR = np.array([0.5, 0.3, 0.2])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def make_judgement(right: Array, verdicts: list[str], suggested: Array, sure: Array) -> Judgement:
    """A judgement of which only what newcomers are judged by is filled in."""
    nothing = np.zeros(0)
    some = Interval(0.2, 0.1, 0.3)
    return Judgement(
        verdicts=np.array(verdicts),
        suggested=suggested,
        p_given_right=right,
        p_suggested_right=sure,
        p_open=np.zeros(len(right)),
        noise_rate=some,
        closed_rate=some,
        open_rate=some,
        noise_rate_by_class=np.zeros(3),
        transition=np.eye(3),
        transition_low=np.eye(3),
        transition_high=np.eye(3),
        cuts=Cuts(np.zeros(0, dtype=np.int64), nothing, nothing, nothing, 0),
        review=ReviewPlan(np.zeros(0, dtype=np.int64), nothing),
        advice=Advice(True, "because"),
    )


def make_evidence(beliefs: Array, labels: Array, *, voting: bool, predicting: bool) -> Evidence:
    top = TopBeliefs.from_dense(beliefs, labels, 3)
    weights = {
        name: weight
        for name, weight, asked in (("votes", 1, voting), ("predictions", 3, predicting))
        if asked
    }
    return Evidence(
        beliefs=top,
        prior=PRIOR,
        votes=top if voting else None,
        predictions=top if predicting else None,
        nearness=None,
        neighbours=NeighbourSummary(4, 1.0) if voting else None,
        heads=None,
        seconds={},
        shares={name: weight / sum(weights.values()) for name, weight in weights.items()},
    )


@pytest.fixture
def audited(rng: np.random.Generator) -> tuple[Array, Array, Array, Judgement]:
    """Features, labels, beliefs and a judgement of 60 examples, the last four without a label."""
    features = rng.normal(size=(60, 5)).astype(np.float32) + 3
    labels = rng.integers(0, 3, 60)
    labels[-4:] = UNLABELLED
    beliefs = rng.dirichlet([1, 1, 1], 60)
    right = rng.random(60)
    right[-4:] = np.nan
    verdicts = ["ask" if not p > 0.4 else "keep" for p in right]
    return features, labels, beliefs, make_judgement(right, verdicts, beliefs.argmax(1), rng.random(60))


def isotonic(at: list[float], values: list[float]) -> list[tuple[float, float]]:
    """Pool adjacent violators: the closest increasing values, at each distinct place."""
    blocks: list[tuple[float, int, list[float]]] = []  # sum, count, places
    for place in sorted(set(at)):
        own = [value for where, value in zip(at, values, strict=True) if where == place]
        blocks.append((sum(own), len(own), [place]))
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            total, count, places = blocks.pop()
            before = blocks.pop()
            blocks.append((before[0] + total, before[1] + count, [*before[2], *places]))
    return [(place, total / count) for total, count, places in blocks for place in places]


def read_off(steps: list[tuple[float, float]], at: float) -> float:
    if at <= steps[0][0]:
        return steps[0][1]
    for (left, low), (right, high) in itertools.pairwise(steps):
        if at <= right:
            return low + (high - low) * (at - left) / (right - left)
    return steps[-1][1]


def margin_of(belief: Array, label: int) -> float:
    other = max(float(belief[k]) for k in range(3) if k != label)
    return math.log(max(float(belief[label]), 1e-6)) - math.log(max(other, 1e-6))


def test_margins_by_plain_loops(rng: np.random.Generator) -> None:
    beliefs = rng.dirichlet([0.3, 0.3, 0.3], 40)
    labels = rng.integers(-1, 3, 40)
    found = measure_margins(TopBeliefs.from_dense(beliefs, labels, 3), labels)
    wanted = [0.0 if label < 0 else margin_of(row, label) for row, label in zip(beliefs, labels, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_the_best_other_class_is_never_the_given_one() -> None:
    beliefs = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.2, 0.1, 0.7]])
    labels = np.array([0, 1, UNLABELLED])
    classes, probs = pick_others(TopBeliefs.from_dense(beliefs, labels, 3), labels)
    assert classes.tolist() == [1, 0, 2]
    np.testing.assert_allclose(probs, [0.3, 0.5, 0.7], rtol=1e-6)


def test_bounds_are_those_of_the_audits_verdicts() -> None:
    right = np.array([0.95, 0.6, 0.45, 0.1, 0.02, 0.3, 0.2, np.nan])
    verdicts = ["keep", "keep", "ask", "drop", "drop", "relabel", "relabel", "relabel"]
    sure = np.array([0.95, 0.6, 0.3, 0.5, 0.6, 0.68, 0.75, 0.4])
    labels = np.array([0, 1, 2, 0, 1, 2, 0, UNLABELLED])
    beliefs = np.random.default_rng(1).dirichlet([1, 1, 1], 8)
    evidence = make_evidence(beliefs, labels, voting=False, predicting=True)
    judgement = make_judgement(right, verdicts, np.zeros(8, dtype=np.int64), sure)
    found = make_reference(None, labels, evidence, judgement, 0.9)
    bounds = [found.flag_below, found.relabel_above, found.drop_above]
    np.testing.assert_allclose(bounds, [0.45, 0.68, 0.9], rtol=1e-12)
    quiet = make_judgement(right, ["keep"] * 7 + ["ask"], np.zeros(8, dtype=np.int64), sure)
    found = make_reference(None, labels, evidence, quiet, 0.8)
    assert (found.flag_below, found.relabel_above, found.drop_above) == (-np.inf, 0.8, 0.8)
    assert found.suggested_right is None


def test_voters_are_the_nearest_and_count_as_they_are_right(
    audited: tuple[Array, Array, Array, Judgement], rng: np.random.Generator
) -> None:
    features, labels, beliefs, judgement = audited
    evidence = make_evidence(beliefs, labels, voting=True, predicting=False)
    reference = make_reference(features, labels, evidence, judgement, 0.9)
    new = rng.normal(size=(7, 5)).astype(np.float32) + 3
    found = reference.believe(new)
    mean = features.astype(np.float64).mean(0)
    for row in range(7):
        cosines = []
        for other in range(60):
            one, two = new[row] - mean, features[other] - mean
            cosines.append(float(one @ two) / math.sqrt(float(one @ one) * float(two @ two)))
        nearest = sorted(range(60), key=lambda other: -cosines[other])[:4]
        said = [0.01 * 4 * share for share in PRIOR.tolist()]
        for other in nearest:
            if labels[other] >= 0:
                said[labels[other]] += float(judgement.p_given_right[other])
        np.testing.assert_allclose(found[row], np.array(said) / sum(said), rtol=1e-5)


def test_probabilities_and_votes_weigh_what_they_did_in_the_audit(
    audited: tuple[Array, Array, Array, Judgement], rng: np.random.Generator
) -> None:
    features, labels, beliefs, judgement = audited
    new, given = rng.normal(size=(5, 5)).astype(np.float32), rng.dirichlet([1, 1, 1], 5)
    said = {}
    for voting, predicting in ((True, False), (False, True), (True, True)):
        evidence = make_evidence(beliefs, labels, voting=voting, predicting=predicting)
        reference = make_reference(features, labels, evidence, judgement, 0.9)
        said[voting, predicting] = reference.believe(new if voting else None, given if predicting else None)
    np.testing.assert_allclose(said[False, True], given, rtol=1e-12)
    np.testing.assert_allclose(said[True, True], (said[True, False] + 3 * given) / 4, rtol=1e-12)


def test_probabilities_of_being_right_by_plain_loops(
    audited: tuple[Array, Array, Array, Judgement], rng: np.random.Generator
) -> None:
    _, labels, beliefs, judgement = audited
    evidence = make_evidence(beliefs, labels, voting=False, predicting=True)
    reference = make_reference(None, labels, evidence, judgement, 0.9)
    new, new_labels = rng.dirichlet([1, 1, 1], 30), rng.integers(0, 3, 30)
    found = reference.judge(new, new_labels).p_given_right

    known = [row for row in range(60) if labels[row] >= 0]
    margins = {row: margin_of(beliefs[row], labels[row]) for row in known}
    overall = isotonic(
        [margins[row] for row in known], [float(judgement.p_given_right[row]) for row in known]
    )
    for row in range(30):
        own = [other for other in known if labels[other] == new_labels[row]]
        curve = isotonic(
            [margins[other] for other in own], [float(judgement.p_given_right[other]) for other in own]
        )
        share = len(own) / (len(own) + POOLING)
        at = margin_of(new[row], new_labels[row])
        wanted = share * read_off(curve, at) + (1 - share) * read_off(overall, at)
        np.testing.assert_allclose(found[row], wanted, atol=2e-4)


def make_plain_reference(suggested_right: Curve | None) -> Reference:
    """A label is right with probability 1 / (1 + exp(-margin)), and a suggestion with that of the belief."""
    at = np.linspace(-12, 12, 2001)
    right = Curve(at, 1 / (1 + np.exp(-at)))
    prior, shares = np.full(3, 1 / 3), {"predictions": 1.0}
    return Reference(3, prior, None, None, True, shares, (right,) * 3, suggested_right, 0.4, 0.9, 0.93)


def test_verdicts_by_hand() -> None:
    reference = make_plain_reference(Curve(np.array([0.0, 1.0]), np.array([0.0, 1.0])))
    beliefs = np.array(
        [
            [0.90, 0.05, 0.05],  # believed: kept
            [0.30, 0.40, 0.30],  # right with probability 3 / 7, which is above the threshold: kept
            [0.25, 0.50, 0.25],  # right with 1 / 3: asked about
            [0.01, 0.98, 0.01],  # wrong, and surely the second class
            [0.05, 0.80, 0.15],  # wrong with 16 / 17, but what it is is not so sure
            [0.02, 0.96, 0.02],  # no label: surely the second class
            [0.20, 0.60, 0.20],  # no label, and nothing is sure
        ]
    )
    labels = np.array([0, 0, 0, 0, 0, UNLABELLED, UNLABELLED])
    found = reference.judge(beliefs, labels)
    assert found.verdicts.tolist() == ["keep", "keep", "ask", "relabel", "drop", "relabel", "ask"]
    assert found.suggested.tolist() == [0, 0, 1, 1, 1, 1, 1]
    np.testing.assert_allclose(found.p_given_right[:5], [18 / 19, 3 / 7, 1 / 3, 1 / 99, 1 / 17], rtol=1e-3)
    assert np.isnan(found.p_given_right[5:]).all()
    # A suggestion is never more probable than that the label is wrong.
    np.testing.assert_allclose(
        found.p_suggested_right, [18 / 19, 3 / 7, 0.5, 0.98, 0.8, 0.96, 0.6], rtol=1e-3
    )
    unsure = make_plain_reference(None).judge(beliefs, labels)
    assert unsure.verdicts.tolist() == ["keep", "keep", "ask", "drop", "drop", "ask", "ask"]


def test_each_newcomer_is_judged_by_itself(
    audited: tuple[Array, Array, Array, Judgement], rng: np.random.Generator
) -> None:
    features, labels, beliefs, judgement = audited
    reference = make_reference(
        features, labels, make_evidence(beliefs, labels, voting=True, predicting=False), judgement, 0.9
    )
    new, given = rng.normal(size=(9, 5)).astype(np.float32) + 3, rng.integers(-1, 3, 9)
    together = reference.judge(reference.believe(new), given)
    for row in range(9):
        alone = reference.judge(reference.believe(new[row : row + 1]), given[row : row + 1])
        for field in dataclasses.fields(alone):
            one, all_ = getattr(alone, field.name)[0], getattr(together, field.name)[row]
            if field.name in ("verdicts", "suggested"):
                assert one == all_
            else:
                np.testing.assert_allclose(one, all_, rtol=1e-5)


def test_a_class_without_examples_is_judged_as_all_are(
    audited: tuple[Array, Array, Array, Judgement],
) -> None:
    _, labels, beliefs, judgement = audited
    labels = np.where(labels == 2, 1, labels)
    evidence = make_evidence(beliefs, labels, voting=False, predicting=True)
    reference = make_reference(None, labels, evidence, judgement, 0.9)
    known = np.flatnonzero(labels >= 0)
    steps = isotonic(
        [margin_of(beliefs[row], labels[row]) for row in known], judgement.p_given_right[known].tolist()
    )
    new = np.array([[0.2, 0.3, 0.5]])
    wanted = read_off(steps, math.log(0.5 / 0.3))
    np.testing.assert_allclose(reference.judge(new, np.array([2])).p_given_right, [wanted], atol=2e-4)


def test_what_the_audit_had_is_asked_for(
    audited: tuple[Array, Array, Array, Judgement], rng: np.random.Generator
) -> None:
    features, labels, beliefs, judgement = audited

    def refer(*, voting: bool, predicting: bool) -> Reference:
        evidence = make_evidence(beliefs, labels, voting=voting, predicting=predicting)
        return make_reference(features, labels, evidence, judgement, 0.9)

    new, given = rng.normal(size=(4, 5)).astype(np.float32), rng.dirichlet([1, 1, 1], 4)
    broken = new.copy()
    broken[2, 1] = np.nan
    cases: list[tuple[Reference, Any, Any, type[ValueError], str]] = [
        (
            refer(voting=True, predicting=False),
            None,
            None,
            ConfigError,
            "the audit was of features; give those",
        ),
        (
            refer(voting=True, predicting=False),
            new,
            given,
            ConfigError,
            "the audit had no probabilities; leave",
        ),
        (
            refer(voting=False, predicting=True),
            None,
            None,
            ConfigError,
            "the audit was of probabilities; give",
        ),
        (
            refer(voting=False, predicting=True),
            new,
            given,
            ConfigError,
            "the audit had no features; leave tho",
        ),
        (refer(voting=True, predicting=False), new[:, :3], None, DataError, "was of 5 features, these are 3"),
        (
            refer(voting=True, predicting=False),
            broken,
            None,
            DataError,
            "the features of image 2 are not fini",
        ),
        (
            refer(voting=False, predicting=True),
            None,
            given[:, :2],
            DataError,
            r"probabilities must be \[N, K\]",
        ),
        (refer(voting=False, predicting=True), None, given * 3, DataError, "are no distribution"),
    ]
    for reference, features_, probabilities, error, message in cases:
        with pytest.raises(error, match=message):
            reference.believe(features_, probabilities)
