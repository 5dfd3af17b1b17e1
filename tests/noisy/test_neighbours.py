"""Neighbours at scale against a plain search."""

import numpy as np
import pytest

from lauter.errors import ConfigError
from lauter.noisy import neighbours as room
from lauter.noisy.neighbours import average_rows, search_neighbours


def search_plainly(features: np.ndarray, k: int) -> list[list[int]]:
    centred = features.astype(np.float64) - features.astype(np.float64).mean(0)
    found = []
    for row in range(len(features)):
        cosines = []
        for other in range(len(features)):
            norms = np.sqrt((centred[row] ** 2).sum() * (centred[other] ** 2).sum())
            cosines.append(-np.inf if other == row else (centred[row] * centred[other]).sum() / norms)
        found.append(np.argsort(cosines)[::-1][:k].tolist())
    return found


@pytest.fixture
def celled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "EXACT_LIMIT", 100)
    monkeypatch.setattr(room, "_BLOCK", 512)


def draw_clusters(count: int, size: int, clusters: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(clusters, size))
    return (centres[rng.integers(0, clusters, count)] + 0.4 * rng.normal(size=(count, size))).astype(
        np.float32
    )


def test_neighbours_are_those_of_a_plain_search() -> None:
    features = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32) + 3
    found = search_neighbours(features, 7, np.random.default_rng(1))
    np.testing.assert_array_equal(found.rows, search_plainly(features, 7))
    assert found.recall == 1
    assert (np.diff(found.cosines.astype(np.float64), axis=1) <= 0).all()


def test_float16_features_are_searched_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_QUERIES", 16)
    features = np.random.default_rng(2).normal(size=(50, 4)).astype(np.float16)
    found = search_neighbours(features, 3, np.random.default_rng(1))
    np.testing.assert_array_equal(found.rows, search_plainly(features, 3))


@pytest.mark.usefixtures("celled")
def test_cells_find_what_they_say_they_find() -> None:
    features = draw_clusters(3000, 8, 30, 3)
    exact = search_neighbours(features, 10, np.random.default_rng(0), recall=1.0)
    room_exact = [set(row) for row in _search_all(features, 10)]
    for wanted, found in (
        (1.0, exact),
        (0.8, search_neighbours(features, 10, np.random.default_rng(0), recall=0.8)),
    ):
        shared = np.mean([len(set(a) & b) / 10 for a, b in zip(found.rows, room_exact, strict=True)])
        assert found.recall >= wanted
        assert shared == pytest.approx(found.recall, abs=0.04)
        assert (found.rows != np.arange(3000)[:, None]).all()
        assert len({tuple(sorted(set(row))) for row in found.rows.tolist()}) > 2000
        assert all(len(set(row)) == 10 for row in found.rows.tolist())


def _search_all(features: np.ndarray, k: int) -> np.ndarray:
    centred = features - features.mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    cosines = centred @ centred.T
    np.fill_diagonal(cosines, -np.inf)
    return np.argsort(-cosines, axis=1)[:, :k]


@pytest.mark.usefixtures("celled")
def test_twins_by_the_hundred_do_not_cost_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    features = draw_clusters(2000, 6, 20, 4)
    features[:1200] = features[0]
    largest = 0

    def watch(found, own, queries, vectors, names):  # type: ignore[no-untyped-def]
        nonlocal largest
        largest = max(largest, len(queries))
        return fill(found, own, queries, vectors, names)

    fill = room._fill
    monkeypatch.setattr(room, "_fill", watch)
    found = search_neighbours(features, 5, np.random.default_rng(0), recall=0.5)
    assert largest <= 6 * 45
    assert (found.rows != np.arange(2000)[:, None]).all()
    assert (found.rows[:1200] < 1200).all()


@pytest.mark.parametrize("exactly", [True, False])
def test_constant_features_have_neighbours_too(exactly: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "EXACT_LIMIT", 1000 if exactly else 100)
    found = search_neighbours(np.full((300, 3), 2.5, np.float32), 4, np.random.default_rng(0))
    assert (found.rows != np.arange(300)[:, None]).all()
    assert ((found.rows >= 0) & (found.rows < 300)).all()
    np.testing.assert_array_equal(found.cosines, 0)


@pytest.mark.usefixtures("celled")
def test_the_search_tells_how_far_it_is_and_is_drawn_by_the_generator_alone() -> None:
    features, told = draw_clusters(600, 4, 6, 5), []
    found = [
        search_neighbours(
            features, 5, np.random.default_rng(3), report=lambda part, done: told.append((part, done))
        )
        for _ in range(2)
    ]
    np.testing.assert_array_equal(found[0].rows, found[1].rows)
    assert {part for part, _ in told} == {"neighbours"}
    assert max(done for _, done in told) == 1


def test_the_mean_is_that_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_BLOCK", 7)
    features = np.random.default_rng(6).normal(size=(40, 3)).astype(np.float16)
    np.testing.assert_allclose(average_rows(features), features.astype(np.float64).mean(0), rtol=1e-5)


def test_numbers_out_of_range_are_refused() -> None:
    features = np.zeros((9, 2), np.float32)
    with pytest.raises(ConfigError, match="have no 9 neighbours"):
        search_neighbours(features, 9, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="recall must be in"):
        search_neighbours(features, 2, np.random.default_rng(0), recall=0.0)
