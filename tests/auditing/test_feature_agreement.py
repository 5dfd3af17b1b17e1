"""Cosines of centred features, read in parts from whatever precision they are kept in."""

import numpy as np
import pytest

from lauter.auditing import feature_agreement
from lauter.auditing.feature_agreement import CentredFeatures


def reference_cosine(features: np.ndarray, first: int, second: int) -> float:
    known = [row.astype(np.float64) for row in features if np.isfinite(row).all()]
    mean = sum(known) / len(known)
    a, b = features[first].astype(np.float64) - mean, features[second].astype(np.float64) - mean
    return float(a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b)))


@pytest.mark.parametrize("kept_in", [np.float16, np.float32, np.float64])
def test_cosines_are_those_of_the_centred_features(kept_in, monkeypatch):
    monkeypatch.setattr(feature_agreement, "_PART", 7)  # several parts of rows and of pairs
    generator = np.random.default_rng(0)
    features = (generator.standard_normal((50, 6)) + 3).astype(kept_in)
    features[[4, 30]] = np.nan
    centred = CentredFeatures(features)
    first, second = generator.integers(0, 50, 40), generator.integers(0, 50, 40)
    got = centred.compare(first, second)
    lost = np.isin(first, [4, 30]) | np.isin(second, [4, 30])
    assert np.isnan(got[lost]).all()
    expected = [reference_cosine(features, a, b) for a, b in zip(first[~lost], second[~lost], strict=True)]
    np.testing.assert_allclose(got[~lost], expected, atol=2e-6)
    np.testing.assert_array_equal(np.flatnonzero(~centred.known), [4, 30])


def test_rows_without_features_are_not_known():
    centred = CentredFeatures(np.eye(3, dtype=np.float32))
    got = centred.compare(np.array([0, 0, 5]), np.array([1, 3, 4]))
    np.testing.assert_allclose(got[0], -0.5, atol=1e-6)
    assert np.isnan(got[1:]).all()


def test_without_any_finite_row_nothing_is_known():
    centred = CentredFeatures(np.full((4, 2), np.nan, dtype=np.float32))
    assert not centred.known.any()
    assert np.isnan(centred.compare(np.array([0]), np.array([1]))).all()
