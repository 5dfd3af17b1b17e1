"""The two-groups filter: what it must do on labels whose truth is known."""

import dataclasses

import numpy as np
import pytest

from lauter.errors import ConfigError, DataError
from lauter.noisy.filtering import Assessment, FilterConfig, assess_labels

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


RULES = {
    "two-groups": FilterConfig(),
    "mixture": FilterConfig("mixture"),
    "mixture by class": FilterConfig("mixture", scope="class"),
    "mixture on losses": FilterConfig("mixture", "loss"),
    "confident": FilterConfig("confident"),
    "none": FilterConfig("none"),
}


def judge(name: str, beliefs: Floats, given: np.ndarray, **changes: float) -> Assessment:
    """By one of RULES; losses are those of the beliefs, and missing where there is no label."""
    own = beliefs[np.arange(len(given)), np.maximum(given, 0)]
    losses = np.where(given >= 0, -np.log(own), np.nan)
    return assess_labels(beliefs, given, dataclasses.replace(RULES[name], **changes), losses=losses)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name in RULES if name != "none"])
def test_every_rule_finds_wrong_labels(name: str) -> None:
    rng = np.random.default_rng(10)
    true = rng.integers(0, 10, 4000)
    given = flip(true, 0.3, 10, rng)
    found = judge(name, make_beliefs(true, 10, 5.0, rng), given)
    right = given == true
    assert np.mean(found.kept == right) > 0.93
    assert found.p_right[right].mean() > found.p_right[~right].mean() + 0.4
    assert found.noise_rate == pytest.approx(0.3, abs=0.05)
    np.testing.assert_allclose(found.class_noise_rates, 0.3, atol=0.15)
    assert ((found.p_right >= 0) & (found.p_right <= 1)).all()
    assert ((found.standing >= 0) & (found.standing <= 1)).all()


@pytest.mark.parametrize("name", RULES)
def test_every_rule_respects_the_cap_and_missing_labels(name: str) -> None:
    rng = np.random.default_rng(11)
    true = rng.integers(1, 4, 2000)
    beliefs = make_beliefs(true, 4, 6.0, rng)
    given = flip(true, 0.2, 4, rng)
    given[:20] = 0  # not one image of class 0 is one
    alone = judge(name, beliefs[:1500], given[:1500], cap=0.6)
    for label in range(4):
        assert alone.kept[given[:1500] == label].mean() >= 0.4
    given[1500:] = -1
    found = judge(name, beliefs, given, cap=0.6)
    assert not found.kept[1500:].any()
    np.testing.assert_array_equal(found.p_right[1500:], 0)
    np.testing.assert_array_equal(found.p_right[:1500], alone.p_right)
    np.testing.assert_array_equal(found.kept[:1500], alone.kept)
    nothing = judge(name, beliefs, np.full(2000, -1))
    assert (nothing.noise_rate, nothing.kept.any(), nothing.p_right.any()) == (0, False, False)


def test_no_filter_keeps_every_label() -> None:
    rng = np.random.default_rng(12)
    true = rng.integers(0, 4, 500)
    found = judge("none", make_beliefs(true, 4, 2.0, rng), flip(true, 0.4, 4, rng))
    assert found.kept.all()
    np.testing.assert_array_equal(found.p_right, 1)
    np.testing.assert_array_equal(found.class_noise_rates, 0)


def test_confident_thresholds_by_plain_loops() -> None:
    rng = np.random.default_rng(13)
    true = rng.integers(0, 5, 300)
    given, beliefs = flip(true, 0.3, 5, rng), make_beliefs(true, 5, 2.0, rng)
    given[:30] = -1
    thresholds = []
    for label in range(5):
        own = [beliefs[i, label] for i in range(300) if given[i] == label]
        thresholds.append(sum(own) / len(own))
    found = assess_labels(beliefs, given, FilterConfig("confident", cap=1.0, pooling=0.0))
    failed = [0] * 5
    for i in range(30, 300):
        own = beliefs[i, given[i]]
        others = [k for k in range(5) if k != given[i]]
        kept = own >= thresholds[given[i]] or all(beliefs[i, k] < thresholds[k] for k in others)
        assert found.kept[i] == kept
        margin = (own - max(beliefs[i, k] for k in others) + 1) / 2
        assert found.p_right[i] == pytest.approx(0.5 * kept + margin / 2)
        failed[given[i]] += not kept
    assert found.noise_rate == pytest.approx(sum(failed) / 270)
    rates = [failed[k] / np.sum(given == k) for k in range(5)]
    np.testing.assert_allclose(found.class_noise_rates, rates)


def test_a_mixture_by_class_heeds_that_classes_are_believed_differently() -> None:
    rng = np.random.default_rng(14)
    given = np.repeat([0, 1], 1000)
    right = rng.random(2000) < 0.7
    # Right labels of class 1 are believed as little as wrong ones of class 0.
    own = np.where(given == 0, np.where(right, 0.9, 0.5), np.where(right, 0.5, 0.1))
    own = np.clip(own + 0.04 * rng.normal(size=2000), 0.01, 0.99)
    beliefs = np.where(np.arange(2) == given[:, None], own[:, None], 1 - own[:, None])
    together, apart = (judge(name, beliefs, given) for name in ("mixture", "mixture by class"))
    assert np.mean(apart.kept == right) > 0.99
    assert np.mean(together.kept == right) < 0.9


def test_a_mixture_on_losses_looks_at_losses_alone() -> None:
    rng = np.random.default_rng(15)
    true = rng.integers(0, 4, 1000)
    beliefs, given = make_beliefs(true, 4, 3.0, rng), flip(true, 0.3, 4, rng)
    low = rng.random(1000) < 0.6
    losses = np.where(low, 0.1, 3.0) + 0.05 * rng.normal(size=1000)
    found = assess_labels(beliefs, given, FilterConfig("mixture", "loss", cap=1.0), losses=losses)
    np.testing.assert_array_equal(found.kept, low)


def test_losses_that_are_missing_or_broken_are_refused() -> None:
    beliefs, given = np.full((4, 2), 0.5), np.array([0, 1, -1, 1])
    config = FilterConfig("mixture", "loss")
    with pytest.raises(ConfigError, match="needs the loss of each image"):
        assess_labels(beliefs, given, config)
    with pytest.raises(DataError, match="losses must be one per image"):
        assess_labels(beliefs, given, config, losses=np.zeros(3))
    with pytest.raises(DataError, match="the loss of image 3 is nan"):
        assess_labels(beliefs, given, config, losses=np.array([0.1, 0.2, np.nan, np.nan]))
    with pytest.raises(DataError, match=r"beliefs must be \[N, K\]"):
        assess_labels(beliefs, given[:2])


@pytest.mark.parametrize(
    "bad",
    [{"kind": "oracle"}, {"signal": "margin"}, {"scope": "batch"}, {"signal": "loss"}, {"scope": "class"}],
)
def test_rules_that_do_not_exist_or_contradict_are_refused(bad: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        FilterConfig(**bad)  # type: ignore[arg-type]
