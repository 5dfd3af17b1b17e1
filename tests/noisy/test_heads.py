"""Cross-fitted heads against a fit written out, and what a head must not see."""

import numpy as np
import pytest
import torch

from lauter.errors import ConfigError, DataError
from lauter.noisy import axes as axes_room
from lauter.noisy import heads as room
from lauter.noisy.axes import Axes, find_axes
from lauter.noisy.heads import draw_folds, fit_heads


def draw(count: int = 240, size: int = 4, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    centres = 1.5 * rng.normal(size=(classes, size))
    features = centres[labels] + rng.normal(size=(count, size)) * np.linspace(0.5, 2, size) + 5
    wrong = rng.random(count) < 0.2
    return features.astype(np.float32), np.where(wrong, rng.integers(0, classes, count), labels)


def fit_plainly(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray, classes: int, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """The minimum of the head's objective by 3,000 steps of gradient descent, image by image; log prior."""
    total = weights.sum()
    shares = np.array(
        [sum(w for y, w in zip(labels, weights, strict=True) if y == k) + 0.5 for k in range(classes)]
    )
    log_prior = np.log(shares / shares.sum())
    rows = np.hstack([features, np.ones((len(features), 1))])
    head = np.zeros((rows.shape[1], classes))
    one_hot = np.eye(classes)[labels]
    for _ in range(3000):
        logits = rows @ head + log_prior
        probs = np.exp(logits - logits.max(1, keepdims=True))
        probs /= probs.sum(1, keepdims=True)
        slope = rows.T @ (weights[:, None] * (probs - one_hot)) / total + strength / total * head
        head -= 0.5 * slope
    return head, log_prior


def test_heads_are_those_of_a_plain_descent() -> None:
    features, labels = draw()
    folds = np.arange(240) % 3
    weights = np.random.default_rng(1).random((3, 240))
    axes = find_axes(features, folds)
    heads = fit_heads(
        axes, labels, 3, weights=weights, weighted=True, strength=5.0, generator=np.random.default_rng(0)
    )
    standard = (features.astype(np.float64) - features.mean(0)) / features.std(0)
    probs = heads.predict(np.arange(240))
    for fold in range(3):
        out = folds != fold
        head, log_prior = fit_plainly(standard[out], labels[out], weights[fold, out], 3, 5.0)
        rows = np.hstack([standard[~out], np.ones(((~out).sum(), 1))])
        expected = np.exp(rows @ head + log_prior)
        np.testing.assert_allclose(probs[~out], expected / expected.sum(1, keepdims=True), atol=0.01)


def test_axes_turn_standardised_features_without_stretching_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(axes_room, "_BLOCK", 50)
    features, _ = draw(size=6)
    features[:, 5] = 7  # constant: gives no axis
    features[:, 4] = features[:, 0] + features[:, 1]
    axes = find_axes(features, np.arange(240) % 2)
    values = axes.values[torch.from_numpy(axes.places)].numpy().astype(np.float64)
    standard = (features.astype(np.float64) - features.mean(0))[:, :5] / features.std(0)[:5]
    assert values.shape == (240, 5)
    np.testing.assert_allclose(values[:, :4] @ values[:, :4].T, standard @ standard.T, atol=1e-3)
    np.testing.assert_array_equal(values[:, 4], 1)
    np.testing.assert_allclose(values[:, :4].T @ values[:, :4] / 240, np.diag(axes.variances[:4]), atol=1e-3)


def test_features_that_hardly_vary_stay_small() -> None:
    features, _ = draw(size=3)
    features[:, 0] = features[0, 0] + 1e-3 * np.random.default_rng(2).normal(size=240)
    axes = find_axes(features, np.arange(240) % 2)
    assert len(axes.variances) == 4
    assert float(axes.variances.min()) < 1e-2


def test_many_features_are_held_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = draw()
    folds = np.arange(240) % 3

    def predict() -> np.ndarray:
        axes = find_axes(features, folds)
        heads = fit_heads(axes, labels, 3, strength=5.0, generator=np.random.default_rng(0))
        return heads.predict(np.arange(240))

    whole = predict()
    monkeypatch.setattr(axes_room, "_FLOAT32_ENTRIES", 10)
    np.testing.assert_allclose(predict(), whole, atol=5e-3)


def test_no_prediction_depends_on_its_own_label() -> None:
    features, labels = draw()
    folds = np.arange(240) % 4
    weights = np.random.default_rng(3).random((4, 240))
    changed = labels.copy()
    changed[folds == 1] = (labels[folds == 1] + 1) % 3
    found = []
    for given in (labels, changed):
        axes = find_axes(features, folds)
        heads = fit_heads(
            axes, given, 3, weights=weights, weighted=True, strength=5.0, generator=np.random.default_rng(0)
        )
        found.append((heads.predict(np.arange(240)), heads.weights[1]))
    # The joint fit takes its steps for all heads together, so only the minimum is the same.
    np.testing.assert_allclose(found[0][0][folds == 1], found[1][0][folds == 1], atol=0.02)
    assert np.abs(found[0][0] - found[1][0])[folds != 1].max() > 0.1


def test_unlabelled_images_teach_nothing_and_are_predicted() -> None:
    features, labels = draw()
    labels[::5] = -1
    folds = np.arange(240) % 3
    heads = fit_heads(find_axes(features, folds), labels, 3, strength=5.0, generator=np.random.default_rng(0))
    probs = heads.predict(np.arange(240))
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-5)
    seen = labels >= 0
    zero = np.where(seen, 1.0, 0.0) * np.ones((3, 1))
    again = fit_heads(
        find_axes(features, folds),
        np.maximum(labels, 0),
        3,
        weights=zero,
        weighted=True,
        strength=5.0,
        generator=np.random.default_rng(0),
    )
    np.testing.assert_allclose(again.predict(np.arange(240)), probs, atol=1e-4)


def test_where_features_say_nothing_the_prior_speaks() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    folds = draw_folds(labels, 5, np.random.default_rng(0))
    axes = find_axes(np.full((100, 3), 4.0, np.float32), folds)
    probs = fit_heads(axes, labels, 3, strength=1.0, generator=np.random.default_rng(0)).predict(
        np.arange(100)
    )
    np.testing.assert_allclose(probs, np.tile([0.6, 0.3, 0.1], (100, 1)), atol=0.01)


def test_a_class_of_one_image_is_believed_as_its_prior_says() -> None:
    features, labels = draw(classes=3)
    labels[7] = 3
    folds = draw_folds(labels, 5, np.random.default_rng(0))
    heads = fit_heads(find_axes(features, folds), labels, 4, generator=np.random.default_rng(0))
    probs = heads.predict(np.arange(240))
    assert np.isfinite(probs).all()
    assert 0 < probs[7, 3] < 0.05


def test_strength_and_weights_are_chosen_by_what_is_left_out() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, 400)
    signal = np.where(labels == 1, 2.0, -2.0)[:, None] + rng.normal(size=(400, 1))
    noise = rng.normal(size=(400, 60))
    folds = np.arange(400) % 4

    def choose(features: np.ndarray, given: np.ndarray, weights: np.ndarray | None = None) -> room.Heads:
        axes = find_axes(features.astype(np.float32), folds)
        return fit_heads(axes, given, 2, weights=weights, generator=np.random.default_rng(0))

    assert choose(signal, labels).strength < choose(noise, labels).strength
    wrong = rng.random(400) < 0.35
    given = np.where(wrong, 1 - labels, labels)
    knowing = np.tile(np.where(wrong, 0.01, 1.0), (4, 1))
    misled = np.tile(np.where(wrong, 1.0, 0.01), (4, 1))
    assert choose(np.hstack([signal, noise]), given, knowing).weighted
    assert not choose(np.hstack([signal, noise]), given, misled).weighted


def test_other_images_are_predicted_by_the_mean_of_all_heads() -> None:
    features, labels = draw()
    folds = np.arange(240) % 3
    heads = fit_heads(find_axes(features, folds), labels, 3, strength=5.0, generator=np.random.default_rng(0))
    mean = np.zeros((240, 3))
    for fold in range(3):
        turned = (features.astype(np.float64) - heads.axes.mean) @ heads.axes.turn.numpy()
        logits = (
            np.hstack([turned, np.ones((240, 1))]) @ heads.weights[fold].numpy()
            + heads.log_priors[fold].numpy()
        )
        probs = np.exp(logits)
        mean += probs / probs.sum(1, keepdims=True) / 3
    np.testing.assert_allclose(heads.predict_new(features), mean, atol=1e-4)


def test_folds_share_out_every_label_evenly() -> None:
    labels = np.repeat([-1, 0, 1, 2], [7, 53, 21, 2])
    folds = draw_folds(labels, 5, np.random.default_rng(0))
    for label in (-1, 0, 1, 2):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert np.bincount(folds).max() - np.bincount(folds).min() <= 1
    other = draw_folds(labels, 5, np.random.default_rng(1))
    assert (other != folds).any()


def test_what_cannot_be_fitted_is_refused() -> None:
    features, labels = draw()
    axes: Axes = find_axes(features, np.arange(240) % 2)
    generator = np.random.default_rng(0)
    with pytest.raises(DataError, match=r"need labels \[240\]"):
        fit_heads(axes, labels[:5], 3, generator=generator)
    with pytest.raises(ConfigError, match="strength must be 0"):
        fit_heads(axes, labels, 3, strength=-1.0, generator=generator)
    with pytest.raises(DataError, match="no labelled image is left to fit the head of fold 0"):
        fit_heads(axes, np.where(np.arange(240) == 2, 1, -1), 3, generator=generator)
    with pytest.raises(DataError, match=r"need folds \[240\]"):
        find_axes(features, np.zeros(3, np.int64))
    with pytest.raises(ConfigError, match="folds must be 2 or more"):
        draw_folds(labels, 1, generator)
