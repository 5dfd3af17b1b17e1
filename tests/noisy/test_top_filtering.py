"""The two-groups filter on top beliefs: equal to the dense one where nothing was cut."""

import numpy as np
import pytest

from lauter.errors import ConfigError, DataError
from lauter.noisy import top_filtering as room
from lauter.noisy.filtering import FilterConfig, assess_labels
from lauter.noisy.top_beliefs import TopBeliefs
from lauter.noisy.top_filtering import assess_top


def draw(count: int, classes: int, rate: float, skill: float, seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, count)
    given = np.where(rng.random(count) < rate, (true + rng.integers(1, classes, count)) % classes, true)
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), true] += skill
    probs = np.exp(logits)
    return (probs / probs.sum(1, keepdims=True)).astype(np.float32).astype(np.float64), given, true


@pytest.fixture
def never_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "DENSE_ENTRIES", 0)


@pytest.mark.usefixtures("never_dense")
def test_whole_beliefs_are_judged_as_dense_ones() -> None:
    beliefs, given, _ = draw(3000, 8, 0.3, 3.0, 0)
    given[:50] = -1
    given[given == 7] = 6  # a class without a label
    found = assess_top(TopBeliefs.from_dense(beliefs, given, 8), given)
    expected = assess_labels(beliefs, given)
    np.testing.assert_allclose(found.standing, expected.standing, atol=1e-9)
    np.testing.assert_allclose(found.p_right, expected.p_right, atol=1e-9)
    np.testing.assert_allclose(found.class_noise_rates, expected.class_noise_rates, atol=1e-9)
    np.testing.assert_array_equal(found.kept, expected.kept)
    np.testing.assert_allclose(found.noise_rate, expected.noise_rate)


@pytest.mark.usefixtures("never_dense")
def test_ties_are_judged_as_those_of_dense_beliefs() -> None:
    rng = np.random.default_rng(1)
    beliefs = rng.integers(1, 4, (400, 4)).astype(np.float64)
    beliefs /= beliefs.sum(1, keepdims=True)
    beliefs = beliefs.astype(np.float32).astype(np.float64)
    given = rng.integers(0, 4, 400)
    found = assess_top(TopBeliefs.from_dense(beliefs, given, 4), given)
    np.testing.assert_allclose(found.standing, assess_labels(beliefs, given).standing, atol=1e-9)


@pytest.mark.usefixtures("never_dense")
def test_few_of_many_beliefs_are_enough() -> None:
    beliefs, given, true = draw(6000, 60, 0.3, 6.0, 2)
    found = assess_top(TopBeliefs.from_dense(beliefs, given, 6), given)
    expected = assess_labels(beliefs, given)
    assert found.noise_rate == pytest.approx(expected.noise_rate, abs=0.02)
    assert np.mean(found.kept == expected.kept) > 0.97
    assert np.mean(found.kept == (given == true)) > 0.93


@pytest.mark.usefixtures("never_dense")
def test_wrong_labels_that_were_cut_stand_evenly_at_the_bottom() -> None:
    beliefs, given, true = draw(6000, 60, 0.4, 6.0, 3)
    top = TopBeliefs.from_dense(beliefs, given, 6)
    standing = assess_top(top, given).standing
    cut = ~top.find_stored(given)
    np.testing.assert_array_equal(given[cut] != true[cut], True)
    wrong = standing[given != true]
    shares = [np.mean(wrong < level) for level in (0.25, 0.5, 0.75)]
    np.testing.assert_allclose(shares, (0.25, 0.5, 0.75), atol=0.05)
    # Those of a class stand in the order of their beliefs in it.
    own = np.flatnonzero(cut & (given == 0))
    order = np.argsort(top.given[own], kind="stable")
    assert (np.diff(standing[own][order]) > 0).all()


def test_dense_beliefs_and_few_top_ones_go_the_dense_way() -> None:
    beliefs, given, _ = draw(500, 5, 0.2, 3.0, 4)
    expected = assess_labels(beliefs, given, FilterConfig("mixture"))
    for form in (beliefs, TopBeliefs.from_dense(beliefs, given)):
        np.testing.assert_allclose(
            assess_top(form, given, FilterConfig("mixture")).p_right, expected.p_right, atol=1e-5
        )


@pytest.mark.usefixtures("never_dense")
def test_one_class_alone_no_label_at_all_and_bad_input() -> None:
    beliefs, given, _ = draw(100, 4, 0.2, 3.0, 5)
    top = TopBeliefs.from_dense(beliefs, np.zeros(100, np.int64), 4)
    np.testing.assert_array_equal(assess_top(top, np.zeros(100, np.int64)).standing, 1)
    nothing = assess_top(top, np.full(100, -1))
    assert (nothing.noise_rate, nothing.kept.any(), nothing.p_right.any()) == (0, False, False)
    with pytest.raises(ConfigError, match="choose two-groups"):
        assess_top(top, given, FilterConfig("confident"))
    with pytest.raises(DataError, match=r"need labels \[100\]"):
        assess_top(top, given[:5])
