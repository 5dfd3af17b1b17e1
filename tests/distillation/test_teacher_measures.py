"""Measures of a teacher beside plain loops, and how often chance would fool them."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch

from lauter.distillation.teacher_measures import (
    bound_chance,
    describe_features,
    match_classes,
    vote_by_neighbours,
)
from lauter.errors import DataError


def test_neighbours_vote_as_in_the_formula() -> None:
    rng = np.random.default_rng(0)
    queries, bank = rng.normal(size=(12, 4)), rng.normal(size=(40, 4))
    labels = rng.integers(-1, 3, 40)
    for k in (1, 5, 100):
        found = vote_by_neighbours(
            torch.from_numpy(queries), torch.from_numpy(bank), torch.from_numpy(labels), 3, k
        )
        for query, answer in zip(queries, found.tolist(), strict=True):
            cosines = []
            for row, label in zip(bank, labels, strict=True):
                if label >= 0:
                    norm = math.sqrt(sum(x * x for x in row)) * math.sqrt(sum(x * x for x in query))
                    cosines.append((sum(a * b for a, b in zip(query, row, strict=True)) / norm, int(label)))
            votes = [0.0, 0.0, 0.0]
            for value, label in sorted(cosines, reverse=True)[:k]:
                votes[label] += math.exp(value / 0.07)
            assert answer == votes.index(max(votes))
    with pytest.raises(DataError, match="no neighbour can vote"):
        vote_by_neighbours(torch.ones(1, 2), torch.ones(2, 2), torch.tensor([-1, -1]), 3)
    empty = vote_by_neighbours(torch.ones(0, 2), torch.ones(2, 2), torch.tensor([0, 1]), 3)
    assert empty.shape == (0,)


def test_the_best_order_of_classes_is_the_best_of_all() -> None:
    rng = np.random.default_rng(1)
    given, said = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    said = np.where(rng.random(200) < 0.6, np.array([2, 0, 1, 3])[given], said)
    found = match_classes(said, given, ("a", "b", "c", "d"))

    def balance(order: tuple[int, ...]) -> float:
        shares = []
        for label in range(4):
            hits = [said[row] == order[label] for row in range(200) if given[row] == label]
            shares.append(sum(hits) / len(hits))
        return sum(shares) / 4

    best = max(permutations(range(4)), key=balance)
    assert best == (2, 0, 1, 3)
    assert found.at_best == pytest.approx(balance(best))
    assert found.as_it_stands == pytest.approx(balance((0, 1, 2, 3)))
    assert found.moved == (("a", "c"), ("b", "a"), ("c", "b"))
    assert found.is_off


@pytest.mark.parametrize(("classes", "images"), [(2, 40), (10, 180), (100, 500), (100, 10_000)])
def test_no_order_is_called_off_by_chance(classes: int, images: int) -> None:
    names = tuple(map(str, range(classes)))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        given = rng.integers(0, classes, images)
        guessed = match_classes(rng.integers(0, classes, images), given, names)
        assert guessed.at_best >= guessed.as_it_stands
        assert not guessed.is_off
    constant = match_classes(np.zeros_like(given), given, names)
    assert not constant.is_off
    perfect = match_classes(given, given, names)
    assert (perfect.at_best, perfect.moved, perfect.is_off) == (1.0, (), False)
    turned = match_classes((given + 1) % classes, given, names)
    assert (turned.at_best, turned.as_it_stands, turned.is_off) == (1.0, 0.0, True)


def test_one_exchanged_pair_among_ten_is_seen() -> None:
    given = np.repeat(np.arange(10), 15)
    order = np.array([0, 1, 2, 5, 4, 3, 6, 7, 8, 9])
    found = match_classes(order[given], given, tuple("abcdefghij"))
    assert found.moved == (("d", "f"), ("f", "d"))
    assert found.is_off
    # Noise that calls most of one class another is no other order: nothing takes its place.
    said = np.where(given == 3, 5, given)
    assert not match_classes(said, given, tuple("abcdefghij")).is_off


def test_guessing_hardly_exceeds_its_bound() -> None:
    rng = np.random.default_rng(0)
    given = np.repeat([0, 1, 3], [50, 20, 5])
    bound = bound_chance(given, 4)
    scores = []
    for _ in range(2000):
        guess = rng.choice([0, 1, 3], 75)
        scores.append(np.mean([(guess[given == label] == label).mean() for label in (0, 1, 3)]))
    assert bound == pytest.approx(np.mean(scores) + 3 * np.std(scores), rel=0.02)
    assert np.mean(np.array(scores) > bound) < 0.01


def test_feature_statistics_by_hand() -> None:
    features = torch.tensor([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [torch.nan, 0.0, 0.0]])
    found = describe_features(features)
    assert (found.size, found.median_norm, found.dead, found.broken) == (3, 1.0, 1, 1)
    assert found.zero_share == pytest.approx(6 / 9)
    nothing = describe_features(torch.full((2, 3), torch.inf))
    assert (nothing.broken, nothing.dead) == (2, 0)
    assert math.isnan(nothing.median_norm)
    with pytest.raises(DataError, match=r"must be \[M, D\] and not empty, not \[0, 3\]"):
        describe_features(torch.ones(0, 3))


def test_on_very_few_images_nothing_can_be_told_from_guessing() -> None:
    assert bound_chance(np.array([0, 1, 2]), 3) == 1.0
