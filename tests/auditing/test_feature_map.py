import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from lauter.auditing import feature_map
from lauter.auditing.feature_map import project_features
from lauter.errors import DataError


def make_groups(count, size, generator, num_groups=3):
    group = np.arange(count) % num_groups
    centers = 4 * np.eye(num_groups, size)
    return (centers[group] + generator.normal(0, 0.3, (count, size))).astype(np.float32), group


def share_of_own_group(positions, group):
    """Share of images whose nearest other image on the map is of their group."""
    hits = 0
    for i in range(len(positions)):
        distances = [np.sum((positions[i] - other) ** 2) for other in positions.astype(np.float64)]
        distances[i] = np.inf
        hits += group[i] == group[int(np.argmin(distances))]
    return hits / len(positions)


@pytest.fixture
def few_landmarks(monkeypatch):
    monkeypatch.setattr(feature_map, "MAX_LANDMARKS", 60)
    monkeypatch.setattr(feature_map, "CHUNK", 32)


def test_groups_stay_together_among_landmarks_and_beside_them(few_landmarks):
    features, group = make_groups(240, 20, np.random.default_rng(0))
    positions = project_features(features, np.random.default_rng(1))
    assert positions.shape == (240, 2)
    assert positions.dtype == np.float32
    assert_allclose(np.abs(positions).max(), 1, rtol=1e-6)
    assert share_of_own_group(positions, group) > 0.97


def test_the_generator_decides(few_landmarks):
    features, _ = make_groups(100, 8, np.random.default_rng(0))
    first = project_features(features, np.random.default_rng(1))
    assert_array_equal(first, project_features(features, np.random.default_rng(1)))
    assert not np.allclose(first, project_features(features, np.random.default_rng(2)))


def test_the_length_of_features_says_nothing(few_landmarks):
    features, _ = make_groups(90, 6, np.random.default_rng(0))
    scales = 2.0 ** np.random.default_rng(3).integers(-3, 4, (90, 1)).astype(np.float32)
    assert_array_equal(
        project_features(features, np.random.default_rng(1)),
        project_features(features * scales, np.random.default_rng(1)),
    )


def test_equal_images_lie_together(few_landmarks):
    features, _ = make_groups(150, 12, np.random.default_rng(0))
    landmarks = np.random.default_rng(1).permutation(150)[:60]
    same = np.setdiff1d(np.arange(90, 150), landmarks)
    features[same] = features[same[0]]
    positions = project_features(features, np.random.default_rng(1))
    assert_allclose(positions[same], np.broadcast_to(positions[same[0]], (len(same), 2)), atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (2, 4), (3, 1), (15, 1), (17, 1), (17, 3)])
def test_small_sets(shape):
    features = np.random.default_rng(0).normal(size=shape).astype(np.float16)
    positions = project_features(features, np.random.default_rng(0))
    assert positions.shape == (shape[0], 2)
    assert np.isfinite(positions).all()
    assert np.abs(positions).max(initial=0) <= 1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_features_lie_in_the_middle(value):
    assert_array_equal(project_features(np.full((40, 5), value), np.random.default_rng(0)), np.zeros((40, 2)))


@pytest.mark.parametrize("row", [0, 137])
def test_features_that_are_not_finite_are_named(few_landmarks, row):
    features, _ = make_groups(140, 4, np.random.default_rng(0))
    features[row, 2] = np.nan
    with pytest.raises(DataError, match=f"those of row {row} are not"):
        project_features(features, np.random.default_rng(0))


@pytest.mark.parametrize("shape", [(4,), (4, 0), (2, 3, 4)])
def test_what_is_no_matrix_is_refused(shape):
    with pytest.raises(DataError, match=r"features must be \[N, D\], not"):
        project_features(np.zeros(shape), np.random.default_rng(0))
