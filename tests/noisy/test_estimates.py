"""Estimates of the noise in worlds whose noise is known, and their arithmetic by plain loops."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from lauter.errors import ConfigError, DataError
from lauter.noisy.beliefs import estimate_prior
from lauter.noisy.estimates import bound_noise_rate, estimate_noise, estimate_transition, tell_open
from lauter.noisy.filtering import assess_labels

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class World:
    """Images whose truth is known (-1: of no class), as a classifier that never saw labels sees them."""

    beliefs: Array
    given: Array
    true: Array
    prior: Array
    p_right: Array

    @property
    def closed(self) -> float:
        return float(np.mean((self.true >= 0) & (self.true != self.given)))

    @property
    def open(self) -> float:
        return float(np.mean(self.true < 0))

    def arguments(self) -> tuple[Array, Array, Array, Array]:
        return self.beliefs, self.given, self.p_right, self.prior


def make_world(
    closed: float,
    open_: float,
    *,
    seed: int = 0,
    count: int = 8000,
    num_classes: int = 10,
    skill: float = 3.0,
    imbalance: float = 1.0,
    neighbour: bool = False,
) -> World:
    """Closed noise is symmetric, or goes to the next class; images of no class give no signal at all."""
    rng = np.random.default_rng(seed)
    sizes = imbalance ** (-np.arange(num_classes) / max(num_classes - 1, 1))
    true = rng.choice(num_classes, count, p=sizes / sizes.sum())
    kind = rng.random(count)
    is_open = (kind >= closed) & (kind < closed + open_)
    steps = 1 if neighbour else rng.integers(1, num_classes, count)
    given = np.where(kind < closed, (true + steps) % num_classes, true)
    logits = rng.normal(size=(count, num_classes))
    logits[np.arange(count), true] += np.where(is_open, 0, skill)
    scores = skill * logits + np.log(sizes / sizes.sum())
    beliefs = np.exp(scores - scores.max(1, keepdims=True))
    beliefs /= beliefs.sum(1, keepdims=True)
    p_right = assess_labels(beliefs, given).p_right
    prior = estimate_prior(given, p_right, num_classes)
    return World(beliefs, given, np.where(is_open, -1, true), prior, p_right)


def estimate(world: World, **options: Any) -> Any:
    return estimate_noise(*world.arguments(), np.random.default_rng(0), **options)


@pytest.mark.parametrize(
    ("closed", "open_", "options"),
    [
        (0.0, 0.0, {}),
        (0.1, 0.0, {}),
        (0.3, 0.0, {}),
        (0.5, 0.0, {}),
        (0.2, 0.1, {}),
        (0.3, 0.2, {}),
        (0.2, 0.4, {}),
        (0.3, 0.0, {"neighbour": True}),
        (0.3, 0.2, {"skill": 4.0}),
        (0.3, 0.2, {"imbalance": 10.0}),
        (0.3, 0.2, {"count": 2000}),
        (0.3, 0.2, {"num_classes": 40}),
    ],
)
def test_closed_and_open_rates_are_found_without_being_told(
    closed: float, open_: float, options: dict[str, Any]
) -> None:
    world = make_world(closed, open_, **options)
    found = estimate(world, resamples=20)
    assert found.closed_rate.value == pytest.approx(world.closed, abs=0.05)
    assert found.open_rate.value == pytest.approx(world.open, abs=0.05)
    for rate in (found.closed_rate, found.open_rate):
        assert rate.low <= rate.value <= rate.high
        assert rate.high - rate.low < 0.1


@pytest.mark.parametrize("closed", [0.1, 0.3, 0.5])
def test_purely_closed_noise_is_not_called_open(closed: float) -> None:
    for options in ({}, {"skill": 4.0}, {"neighbour": True}):
        found = estimate(make_world(closed, 0.0, **options), resamples=1)  # type: ignore[arg-type]
        assert found.open_rate.value < 0.05


def test_purely_open_noise_is_not_called_closed() -> None:
    found = estimate(make_world(0.0, 0.3), resamples=1)
    # The filter takes some images of no class for rightly labelled; what it finds is called what it is.
    assert found.open_rate.value > 0.9 * (found.open_rate.value + found.closed_rate.value) > 0.1


def test_open_images_rank_behind_closed_ones() -> None:
    world = make_world(0.3, 0.2, skill=4.0)
    p_open = estimate(world, resamples=1).p_open
    opened, rest = p_open[world.true < 0], p_open[(world.true >= 0) & (world.true != world.given)]
    assert np.mean(opened[:500, None] > rest[None, :500]) > 0.85
    assert p_open.mean() == pytest.approx(world.open, abs=0.05)
    assert ((p_open >= 0) & (p_open <= 1 - world.p_right + 1e-12)).all()


def test_intervals_narrow_with_the_images_and_cover_what_they_count() -> None:
    small, large = (estimate(make_world(0.3, 0.2, count=count)) for count in (1000, 9000))
    ratio = (small.open_rate.high - small.open_rate.low) / (large.open_rate.high - large.open_rate.low)
    assert 1.5 < ratio < 4.5  # 3 by the square root, less where classes lend each other images
    wide = estimate(make_world(0.3, 0.2, count=1000), level=0.99)
    assert wide.open_rate.high - wide.open_rate.low > small.open_rate.high - small.open_rate.low
    worlds = [make_world(0.3, 0.2, seed=seed, count=1500) for seed in range(12)]
    found = [(estimate(world, resamples=60).open_rate, world.open) for world in worlds]
    assert sum(rate.low - 0.02 <= truth <= rate.high + 0.02 for rate, truth in found) >= 10


def test_the_transition_matrix_of_a_known_world() -> None:
    world = make_world(0.3, 0.2, skill=4.0, count=12000)
    found = estimate(world, resamples=1)
    has_class = world.true >= 0
    counts = np.zeros((10, 10))
    np.add.at(counts, (world.true[has_class], world.given[has_class]), 1)
    truth = counts / counts.sum(1, keepdims=True)
    assert np.abs(found.transition - truth).mean() < 0.015
    apart = np.abs(estimate_transition(world.beliefs, world.given, world.p_right) - truth).mean()
    assert np.abs(found.transition - truth).mean() < apart  # open images are no longer spread over classes
    np.testing.assert_allclose(found.transition.sum(1), 1)
    assert (found.transition_low <= found.transition).all()
    assert (found.transition <= found.transition_high).all()


def test_the_open_rate_by_plain_loops() -> None:
    world = make_world(0.25, 0.25, count=400, num_classes=4, skill=2.0)
    beliefs, given, right, prior = world.arguments()
    count, bins = len(given), 20
    balanced = [[beliefs[i, k] / prior[k] for k in range(4)] for i in range(count)]
    balanced = [[value / sum(row) for value in row] for row in balanced]
    best = [max(row) for row in balanced]
    classes = [row.index(max(row)) for row in balanced]
    ranks, counts, wrong = [], [1 / bins] * bins, 0.0
    for i in range(count):
        low = high = total = own_low = own_high = own_total = 0.0
        for j in range(count):
            weight = right[j] ** 2
            low, high, total = (
                low + weight * (best[j] < best[i]),
                high + weight * (best[j] <= best[i]),
                total + weight,
            )
            if classes[j] == classes[i]:
                own_low += weight * (best[j] < best[i])
                own_high += weight * (best[j] <= best[i])
                own_total += weight
        low = (own_low + 5 * low / total) / (own_total + 5)
        high = (own_high + 5 * high / total) / (own_total + 5)
        # An image's own weight leaves open where within it the rank lies: it is spread evenly.
        shares = [
            max(0.0, min(high, (place + 1) / bins) - max(low, place / bins)) / (high - low)
            for place in range(bins)
        ]
        ranks.append(shares)
        counts = [before + share for before, share in zip(counts, shares, strict=True)]
        wrong += 1 - right[i]
    largest = 1.0
    for reach in range(1, 19):
        top = sum(counts[bins - reach :]) / (count + 1)
        largest = min(largest, (top + math.sqrt(top * (1 - top) / (count + 1))) / (reach / bins))
    found = tell_open(*world.arguments())
    assert 0.05 < found.open_rate < wrong / count
    assert found.open_rate == pytest.approx(1 - largest)


def test_beliefs_that_are_certain_bring_no_spurious_open_noise() -> None:
    rng = np.random.default_rng(3)
    true = rng.integers(0, 5, 3000)
    given = np.where(rng.random(3000) < 0.3, (true + rng.integers(1, 5, 3000)) % 5, true)
    logits = 1e4 * np.eye(5)[true]
    beliefs = np.exp(logits - logits.max(1, keepdims=True))
    right = (given == true).astype(np.float64)
    found = estimate_noise(beliefs, given, right, np.full(5, 0.2), np.random.default_rng(0))
    assert found.open_rate.value == pytest.approx(0, abs=0.01)
    assert found.closed_rate.value == pytest.approx(np.mean(given != true), abs=0.01)
    assert np.isfinite(found.p_open).all()


def test_without_a_wrong_label_there_is_no_noise() -> None:
    world = make_world(0.2, 0.2, count=500)
    found = estimate_noise(
        world.beliefs, world.given, np.ones(500), world.prior, np.random.default_rng(0), resamples=5
    )
    assert (found.closed_rate.value, found.open_rate.high) == (0, 0)
    np.testing.assert_array_equal(found.p_open, 0)
    np.testing.assert_allclose(found.transition, np.eye(10))


def test_without_a_label_nothing_is_estimated() -> None:
    world = make_world(0.2, 0.2, count=50)
    none = np.full(50, -1)
    found = estimate_noise(
        world.beliefs, none, np.zeros(50), world.prior, np.random.default_rng(0), resamples=5
    )
    assert (found.closed_rate.value, found.open_rate.value) == (0, 0)
    assert np.isfinite(found.p_open).all()
    np.testing.assert_array_equal(found.transition_low, 0)
    np.testing.assert_allclose(found.transition_high, 1)


def test_unlabelled_images_and_the_order_change_nothing() -> None:
    world = make_world(0.3, 0.2, count=1000)
    beliefs, given, right, prior = world.arguments()
    alone = tell_open(beliefs[:800], given[:800], right[:800], prior)
    some = given.copy()
    some[800:] = -1
    found = tell_open(beliefs, some, right, prior)
    np.testing.assert_allclose(found.p_closed[:800], alone.p_closed)
    assert found.open_rate == pytest.approx(alone.open_rate)
    order = np.random.default_rng(0).permutation(1000)
    shuffled = tell_open(beliefs[order], given[order], right[order], prior)
    whole = tell_open(beliefs, given, right, prior)
    np.testing.assert_allclose(shuffled.p_closed, whole.p_closed[order], atol=1e-9)


def test_two_classes_are_enough() -> None:
    world = make_world(0.2, 0.0, num_classes=2, skill=4.0)
    found = estimate(world, resamples=5)
    assert found.open_rate.value == pytest.approx(0, abs=0.03)
    assert found.closed_rate.value == pytest.approx(world.closed, abs=0.05)


def test_the_same_generator_gives_the_same_intervals() -> None:
    world = make_world(0.3, 0.1, count=600)
    assert estimate(world).closed_rate == estimate(world).closed_rate


def test_the_transition_matrix_with_open_images_by_plain_loops() -> None:
    rng = np.random.default_rng(1)
    beliefs = rng.dirichlet([0.5, 1.0, 2.0], size=40)
    labels = rng.integers(-1, 3, size=40)
    right = rng.random(40)
    p_open = (1 - right) * rng.random(40)
    expected = [[0.0] * 3 for _ in range(3)]
    for i in range(40):
        given = int(labels[i])
        if given < 0:
            continue
        for k in range(3):
            moved = (1 - right[i] - p_open[i]) * beliefs[i, k] / (1 - beliefs[i, given])
            expected[k][given] += right[i] if k == given else moved
    reference = [[value / sum(row) for value in row] for row in expected]
    np.testing.assert_allclose(estimate_transition(beliefs, labels, right, p_open), reference, rtol=1e-9)
    certain = estimate_transition(np.eye(3)[np.maximum(labels, 0)], labels, right)
    assert np.isfinite(certain).all()  # nothing is left for another class: no division by zero


def test_the_noise_rate_and_its_interval_by_hand() -> None:
    right = [0.9, 0.2, 0.4, 0.1, 0.6]
    found = bound_noise_rate(np.array(right), 0.3)
    spread = 1.96 * math.sqrt(sum(p * (1 - p) for p in right)) / 5
    assert found.value == 0.3
    assert found.low == pytest.approx(max(0.0, 0.3 - spread))
    assert found.high == pytest.approx(0.3 + spread)
    assert bound_noise_rate(np.zeros(0), 0.0).high == 0


def test_wilson_intervals_of_the_matrix_by_hand() -> None:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, 300)
    right = np.ones(300)
    right[labels == 0] = 0.8
    beliefs = np.tile([0.0, 0.5, 0.5], (300, 1))
    found = estimate_noise(beliefs, labels, right, np.full(3, 1 / 3), np.random.default_rng(0), resamples=2)
    share, count, z = found.transition[1, 1], 0.0, 1.959963984540054
    for label, p, stray in zip(labels, right, found.p_open, strict=True):
        count += p if label == 1 else (1 - p - stray) / 2 if label == 0 else 0.0
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    spread = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    assert found.transition_low[1, 1] == pytest.approx(centre - spread)
    assert found.transition_high[1, 1] == pytest.approx(centre + spread)


def test_bad_inputs_are_refused() -> None:
    world = make_world(0.2, 0.1, count=100)
    beliefs, given, right, prior = world.arguments()
    with pytest.raises(DataError, match=r"need labels and p_right \[100\]"):
        tell_open(beliefs, given[:-1], right, prior)
    with pytest.raises(DataError, match="p_right holds probabilities"):
        tell_open(beliefs, given, right + np.nan, prior)
    with pytest.raises(DataError, match="prior must be positive"):
        tell_open(beliefs, given, right, prior * np.arange(10))
    with pytest.raises(ConfigError, match="resamples"):
        estimate(world, resamples=0)
    with pytest.raises(ConfigError, match="level"):
        estimate(world, level=1.0)
