"""The two-groups filter: what it must do on labels whose truth is known."""

import numpy as np
import pytest

from lauter.errors import ConfigError
from lauter.noisy.filtering import FilterConfig, assess_labels

Floats = np.ndarray


def make_beliefs(
    true: np.ndarray,
    num_classes: int,
    skill: float,
    rng: np.random.Generator,
    open_: np.ndarray | None = None,
) -> Floats:
    """Beliefs of a classifier of some skill that never saw the labels; open images get no signal."""
    logits = rng.normal(size=(len(true), num_classes))
    signal = np.full(len(true), skill)
    if open_ is not None:
        signal[open_] = 0
    logits[np.arange(len(true)), true] += signal
    probs = np.exp(logits)
    return probs / probs.sum(1, keepdims=True)


def flip(true: np.ndarray, rate: float, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    wrong = rng.random(len(true)) < rate
    return np.where(wrong, (true + rng.integers(1, num_classes, len(true))) % num_classes, true)


@pytest.mark.parametrize("skill", [1.0, 2.0, 4.0])
def test_clean_labels_are_kept_whatever_the_classifier_is_worth(skill: float) -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 10, 5000)
    beliefs = make_beliefs(true, 10, skill, rng)
    disagreement = np.mean(beliefs.argmax(1) != true)
    found = assess_labels(beliefs, true)
    assert np.mean(~found.kept) < 0.05
    if skill == 1.0:
        assert disagreement > 0.5  # what plain disagreement would throw away
    assert found.noise_rate < 0.2 / skill


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_the_noise_rate_is_found_without_being_told(rate: float) -> None:
    rng = np.random.default_rng(1)
    true = rng.integers(0, 10, 8000)
    given = flip(true, rate, 10, rng)
    found = assess_labels(make_beliefs(true, 10, 4.0, rng), given)
    assert found.noise_rate == pytest.approx(np.mean(given != true), abs=0.04)
    wrong = given != true
    flagged = ~found.kept
    f1 = 2 * np.sum(flagged & wrong) / (flagged.sum() + wrong.sum())
    order = np.argsort(found.p_right)
    hits = np.cumsum(wrong[order])
    best = np.max(2 * hits / (np.arange(1, len(order) + 1) + wrong.sum()))
    assert f1 > 0.97 * best


def test_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(2)
    true = rng.integers(0, 10, 20000)
    given = flip(true, 0.3, 10, rng)
    found = assess_labels(make_beliefs(true, 10, 2.5, rng), given)
    right = given == true
    edges = np.quantile(found.p_right, np.linspace(0, 1, 11))
    bins = np.clip(np.searchsorted(edges, found.p_right, side="right") - 1, 0, 9)
    error = sum(
        abs(found.p_right[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in range(10)
    )
    assert error < 0.05
    assert np.mean((found.p_right - right) ** 2) < 0.5 * 0.3 * 0.7


def test_each_class_has_its_own_noise_rate() -> None:
    rng = np.random.default_rng(3)
    true = rng.integers(0, 5, 10000)
    given = true.copy()
    of_class = np.flatnonzero(true != 0)
    moved = rng.choice(of_class, 1000, replace=False)  # a third of what is called 0 is something else
    given[moved] = 0
    found = assess_labels(make_beliefs(true, 5, 4.0, rng), given)
    share = np.mean(true[given == 0] != 0)
    assert found.class_noise_rates[0] == pytest.approx(share, abs=0.07)
    assert found.class_noise_rates[1:].max() < 0.08


def test_open_images_count_as_wrongly_labelled() -> None:
    rng = np.random.default_rng(4)
    true = rng.integers(0, 10, 6000)
    open_ = rng.random(6000) < 0.2
    given = true.copy()
    found = assess_labels(make_beliefs(true, 10, 5.0, rng, open_), given)
    assert found.noise_rate == pytest.approx(open_.mean(), abs=0.06)
    assert found.p_right[~open_].mean() - found.p_right[open_].mean() > 0.5


def test_the_cap_saves_rare_classes() -> None:
    rng = np.random.default_rng(5)
    true = rng.integers(1, 4, 2000)
    given = true.copy()
    given[:20] = 0  # not one image of class 0 is one
    beliefs = make_beliefs(true, 4, 6.0, rng)
    kept = assess_labels(beliefs, given, FilterConfig(cap=0.6)).kept
    assert kept[given == 0].sum() == 8
    assert assess_labels(beliefs, given, FilterConfig(cap=1.0)).kept[given == 0].sum() < 8


def test_unlabelled_images_are_never_kept_and_change_nothing() -> None:
    rng = np.random.default_rng(6)
    true = rng.integers(0, 4, 1000)
    beliefs = make_beliefs(true, 4, 3.0, rng)
    given = flip(true, 0.2, 4, rng)
    alone = assess_labels(beliefs[:800], given[:800])
    given[800:] = -1
    found = assess_labels(beliefs, given)
    assert not found.kept[800:].any()
    np.testing.assert_array_equal(found.p_right[800:], 0)
    np.testing.assert_array_equal(found.p_right[:800], alone.p_right)


def test_order_of_images_does_not_matter() -> None:
    rng = np.random.default_rng(7)
    true = rng.integers(0, 4, 500)
    beliefs, given = make_beliefs(true, 4, 3.0, rng), flip(true, 0.2, 4, rng)
    order = rng.permutation(500)
    found, shuffled = assess_labels(beliefs, given), assess_labels(beliefs[order], given[order])
    np.testing.assert_allclose(shuffled.p_right, found.p_right[order], atol=1e-12)


def test_classes_without_labels_are_no_obstacle() -> None:
    rng = np.random.default_rng(8)
    true = rng.integers(0, 3, 300)
    found = assess_labels(make_beliefs(true, 5, 3.0, rng), true)
    assert np.isfinite(found.p_right).all()
    assert np.isfinite(found.class_noise_rates).all()


@pytest.mark.parametrize(
    "bad", [{"keep_above": 1.5}, {"cap": 0.0}, {"confidence_groups": 0}, {"pooling": -1.0}]
)
def test_settings_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        FilterConfig(**bad)  # type: ignore[arg-type]
