"""The noise model beside plain loops, and in worlds whose labels came about as it supposes."""

import math
from typing import Any

import numpy as np
import pytest

from lauter.auditing.noise_model import NoiseModel, fit_noise_model, judge_by_model, unmix
from lauter.auditing.sharpness import (
    SHARPNESS,
    choose_sharpness,
    estimate_calm_noise,
    rank_confidence,
)
from lauter.noisy.top_beliefs import TopBeliefs

Array = np.ndarray[Any, Any]


def make_world(
    closed: float, open_: float = 0.0, *, seed: int = 0, count: int = 4000, pairs: bool = False
) -> tuple[Array, Array, Array]:
    """Beliefs, given and true labels (-1: none) of ten classes as a good classifier sees them."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 10, count)
    kind = rng.random(count)
    stray = (kind >= closed) & (kind < closed + open_)
    steps = 1 if pairs else rng.integers(1, 10, count)
    given = np.where(kind < closed, (true + steps) % 10, true)
    logits = rng.normal(size=(count, 10))
    logits[np.arange(count), true] += np.where(stray, 0, 4.0)
    beliefs = np.exp(2 * logits)
    return beliefs / beliefs.sum(1, keepdims=True), given, np.where(stray, -1, true)


def a_model(num_classes: int, seed: int = 0) -> NoiseModel:
    rng = np.random.default_rng(seed)
    transition = rng.random((num_classes, num_classes)) * 0.2
    np.fill_diagonal(transition, 1.0)
    transition /= transition.sum(1, keepdims=True)
    edges = np.linspace(0.3, 0.9, 9)
    tau = rng.random(num_classes)
    return NoiseModel(1.7, transition, np.linspace(0.4, 0.02, 10), tau / tau.sum(), edges, 0.0)


def reference_posterior(probs: list[float], given: int, model: NoiseModel) -> tuple[float, float, int, float]:
    """Bayes' rule by the formula for one image: right, stray, the best other class and its share."""
    classes = len(probs)
    powers = [p**model.sharpness for p in probs]
    shares = [p / sum(powers) for p in powers]
    tenth = sum(1 for edge in model.edges if edge < max(probs))
    stray = float(model.strays[tenth])
    terms = [(1 - stray) * shares[k] * float(model.transition[k, given]) for k in range(classes)]
    nothing = stray * float(model.stray_labels[given])
    total = sum(terms) + nothing
    others = {k: terms[k] for k in range(classes) if k != given}
    best = max(others, key=lambda k: others[k])
    return terms[given] / total, nothing / total, best, others[best] / total


def test_the_posterior_is_bayes_rule() -> None:
    rng = np.random.default_rng(1)
    beliefs = rng.dirichlet(np.ones(6), 40)
    labels = rng.integers(0, 6, 40)
    model = a_model(6)
    top = TopBeliefs.from_dense(beliefs, labels)
    found = judge_by_model(top, labels, model)
    for row in range(40):
        right, stray, best, share = reference_posterior(beliefs[row].tolist(), int(labels[row]), model)
        np.testing.assert_allclose(found.right[row], right, rtol=1e-5)
        np.testing.assert_allclose(found.stray[row], stray, rtol=1e-5)
        np.testing.assert_allclose(found.p_other[row], share, rtol=1e-5)
        assert found.other[row] == best


def test_a_class_that_was_cut_is_still_weighed() -> None:
    beliefs = np.array([[0.6, 0.2, 0.1, 0.06, 0.03, 0.01]] * 2)
    labels = np.array([0, 5])
    top = TopBeliefs.from_dense(beliefs, labels, depth=3)
    model = a_model(6)
    found = judge_by_model(top, labels, model)
    whole = judge_by_model(TopBeliefs.from_dense(beliefs, labels), labels, model)
    np.testing.assert_allclose(found.right[0], whole.right[0], atol=0.02)
    np.testing.assert_allclose(found.right[1], whole.right[1], atol=0.02)
    assert 0 < found.right[1] < found.right[0]


def test_ranks_begin_anew_in_every_believed_class() -> None:
    probs = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    top = TopBeliefs.from_dense(probs, np.zeros(4, dtype=np.int64))
    np.testing.assert_allclose(rank_confidence(top), [1 / 6, 5 / 6, 3 / 6, 1 / 2])


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_calm_noise_is_what_a_falling_error_leaves(noise: float) -> None:
    rng = np.random.default_rng(0)
    ranks = (np.arange(20_000) + 0.5) / 20_000
    errs = rng.random(20_000) < 0.25 * ranks**2  # a good classifier: few errors, all on doubtful images
    wrong = rng.random(20_000) < noise
    assert estimate_calm_noise(ranks, errs | wrong) == pytest.approx(noise, abs=0.025)


def test_calm_noise_of_nothing_is_nothing() -> None:
    assert estimate_calm_noise(np.zeros(0), np.zeros(0, dtype=bool)) == 0.0


def test_sharpness_follows_the_calm_images_where_the_likelihood_is_flat() -> None:
    calm = np.linspace(0, 0.6, len(SHARPNESS))
    flat = np.zeros(len(SHARPNESS))
    for number in (3, 9, 15):
        found = choose_sharpness(flat, calm, float(calm[number]), 10_000, 3000)
        assert found == pytest.approx(float(SHARPNESS[number]), rel=0.02)
    peaked = -np.abs(np.log(SHARPNESS / SHARPNESS[12]))
    alike = np.full(len(SHARPNESS), 0.2)
    assert choose_sharpness(peaked, alike, 0.2, 10_000, 3000) == pytest.approx(SHARPNESS[12], rel=0.02)


def test_unmixing_undoes_the_mixing_of_clear_images() -> None:
    transition = 0.7 * np.eye(4) + 0.3 * np.roll(np.eye(4), 1, axis=1)
    mixed = np.eye(4) @ transition
    labels = np.arange(4)
    found = unmix(TopBeliefs.from_dense(mixed, labels), labels, transition).dense()
    assert (np.diagonal(found) > 0.9).all()
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    unmixed = unmix(TopBeliefs.from_dense(mixed, labels), labels, np.eye(4)).dense()
    np.testing.assert_allclose(unmixed, mixed, atol=1e-6)  # nothing is mixed by the identity


@pytest.mark.parametrize(
    ("closed", "open_", "pairs"), [(0.1, 0.0, False), (0.4, 0.0, False), (0.3, 0.0, True), (0.1, 0.2, False)]
)
def test_noise_is_found_and_blamed_on_the_right_labels(closed: float, open_: float, pairs: bool) -> None:
    beliefs, given, true = make_world(closed, open_, pairs=pairs)
    top = TopBeliefs.from_dense(beliefs, given)
    calm_rate = estimate_calm_noise(rank_confidence(top), top.classes[:, 0] != given)
    fit = fit_noise_model(top, given, calm_rate)
    found = judge_by_model(fit.beliefs, given, fit.model)
    wrong = given != true
    assert np.mean(1 - found.right) == pytest.approx(wrong.mean(), abs=0.04)
    assert found.right[~wrong].mean() > found.right[wrong].mean() + 0.7
    np.testing.assert_allclose(fit.model.transition.sum(1), 1, rtol=1e-9)
    moved = wrong & (true >= 0)
    assert np.mean(found.other[moved] == true[moved]) > 0.9
    likelihoods = [model.log_likelihood for model in fit.tried]
    assert len(likelihoods) == len(SHARPNESS)
    assert max(likelihoods) > likelihoods[0]


def test_em_never_makes_the_labels_less_likely() -> None:
    """Likelihood of a model's own world is above that of a model that knows no noise."""
    beliefs, given, _ = make_world(0.3)
    top = TopBeliefs.from_dense(beliefs, given)
    fit = fit_noise_model(top, given, 0.3)
    plain = np.mean([math.log(max(p[g], 1e-12)) for p, g in zip(beliefs, given, strict=True)])
    assert max(model.log_likelihood for model in fit.tried) > plain + 0.1
