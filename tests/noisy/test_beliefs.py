import numpy as np
import pytest

from lauter.errors import ConfigError
from lauter.noisy import beliefs as room
from lauter.noisy.beliefs import EpochEnsemble, estimate_prior, find_neighbours, take_out_prior, vote


def test_neighbours_are_those_of_a_plain_search() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 5)).astype(np.float32) + 3
    found = find_neighbours(features, 7)
    centred = features.astype(np.float64) - features.mean(0)
    for row in range(60):
        cosines = []
        for other in range(60):
            norm = np.sqrt((centred[row] ** 2).sum() * (centred[other] ** 2).sum())
            cosines.append(-np.inf if other == row else (centred[row] * centred[other]).sum() / norm)
        assert set(found[row]) == set(np.argsort(cosines)[-7:])
        assert found[row][0] == np.argmax(cosines)


def test_an_image_is_never_its_own_neighbour_even_among_twins() -> None:
    features = np.repeat(np.random.default_rng(1).normal(size=(4, 3)), 5, axis=0).astype(np.float32)
    found = find_neighbours(features, 6)
    assert (found != np.arange(20)[:, None]).all()
    assert found.shape == (20, 6)


def test_many_images_are_searched_in_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(3000, 8)).astype(np.float32)
    exact = find_neighbours(features, 5)
    monkeypatch.setattr(room, "EXACT_LIMIT", 1000)
    approximate = find_neighbours(features, 5)
    shared = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(exact, approximate, strict=True)])
    assert shared > 0.5
    assert (approximate != np.arange(3000)[:, None]).all()


def test_more_neighbours_than_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="have no 9 neighbours"):
        find_neighbours(np.zeros((9, 2), np.float32), 9)


def test_vote_is_the_weighted_share_written_out() -> None:
    rng = np.random.default_rng(3)
    neighbours = rng.integers(0, 30, (30, 6))
    labels = rng.integers(-1, 4, 30)
    weights, prior = rng.random(30), np.array([0.1, 0.2, 0.3, 0.4])
    found = vote(neighbours, labels, weights, prior, smoothing=0.05)
    for row in range(30):
        shares = [0.05 * 6 * p for p in prior]
        for other in neighbours[row]:
            if labels[other] >= 0:
                shares[labels[other]] += weights[other]
        np.testing.assert_allclose(found[row], np.array(shares) / sum(shares))


def test_without_voters_the_prior_speaks() -> None:
    prior = np.array([0.25, 0.75])
    found = vote(np.array([[1], [0]]), np.array([-1, -1]), np.ones(2), prior)
    np.testing.assert_allclose(found, np.tile(prior, (2, 1)))


def test_prior_counts_weighted_labels_and_is_never_zero() -> None:
    prior = estimate_prior(np.array([0, 0, 1, -1]), np.array([1.0, 0.5, 1.0, 9.0]), 3)
    np.testing.assert_allclose(prior, np.array([2.0, 1.5, 0.5]) / 4)


def test_ensemble_is_a_plain_mean_at_first_and_forgets_later() -> None:
    ensemble = EpochEnsemble(2, 2, momentum=0.75)
    values = [0.1, 0.5, 0.9, 0.2, 0.4, 0.8]
    expected = 0.0
    for count, value in enumerate(values, start=1):
        ensemble.update(np.array([0]), np.array([[value, 1 - value]]))
        keep = min(0.75, 1 - 1 / count)
        expected = keep * expected + (1 - keep) * value
        assert ensemble.probabilities[0, 0] == pytest.approx(expected)
        if count <= 4:
            assert expected == pytest.approx(np.mean(values[:count]))
    np.testing.assert_array_equal(ensemble.probabilities[1], [0.5, 0.5])  # never seen: knows nothing


def test_ensemble_momentum_is_checked() -> None:
    with pytest.raises(ConfigError, match="momentum"):
        EpochEnsemble(1, 2, 1.0)


def test_the_prior_is_taken_out_row_by_row() -> None:
    rng = np.random.default_rng(4)
    beliefs, prior = rng.dirichlet(np.ones(4), size=20), np.array([0.4, 0.3, 0.2, 0.1])
    found = take_out_prior(beliefs, prior)
    for row in range(20):
        weights = [beliefs[row, k] / prior[k] for k in range(4)]
        np.testing.assert_allclose(found[row], np.array(weights) / sum(weights))
    np.testing.assert_allclose(take_out_prior(beliefs, np.full(4, 0.25)), beliefs)
    np.testing.assert_allclose(take_out_prior(np.tile(prior, (2, 1)), prior), 0.25)
