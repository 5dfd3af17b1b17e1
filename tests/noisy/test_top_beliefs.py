"""Top beliefs against their dense counterparts, and against loops where they were cut."""

import numpy as np
import pytest

from lauter.errors import ConfigError, DataError
from lauter.noisy.beliefs import Floats, take_out_prior
from lauter.noisy.correction import propose_labels
from lauter.noisy.estimates import estimate_noise, estimate_transition, tell_open
from lauter.noisy.thresholds import expect_right
from lauter.noisy.top_beliefs import TopBeliefs, choose_depth, find_best, iterate_blocks, sum_beliefs

PRIOR = np.array([0.3, 0.25, 0.2, 0.15, 0.1])


def draw(count: int = 40, classes: int = 5, seed: int = 0) -> tuple[Floats, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    labels[:4] = -1
    beliefs = rng.dirichlet(np.full(classes, 0.5), count)
    return beliefs.astype(np.float32).astype(np.float64), labels


def test_the_largest_are_kept_in_order_and_the_given_one_beside_them() -> None:
    beliefs, labels = draw()
    top = TopBeliefs.from_dense(beliefs, labels, 2)
    for row in range(40):
        ranked = sorted(range(5), key=lambda k: -beliefs[row, k])
        assert top.classes[row].tolist() == ranked[:2]
        np.testing.assert_allclose(top.probs[row], [beliefs[row, k] for k in ranked[:2]])
        np.testing.assert_allclose(top.rest[row], sum(beliefs[row, k] for k in ranked[2:]), atol=1e-6)
        own = beliefs[row, labels[row]] if labels[row] >= 0 else 0.0
        np.testing.assert_allclose(top.given[row], own)
        assert top.find_stored(labels)[row] == (labels[row] in ranked[:2])
    assert (top.shape, top.depth, top.whole, len(top)) == ((40, 5), 2, False, 40)


def test_nothing_is_lost_where_all_are_kept() -> None:
    beliefs, labels = draw()
    top = TopBeliefs.from_dense(beliefs, labels, 5)
    np.testing.assert_allclose(top.dense(), beliefs, rtol=1e-6)
    np.testing.assert_allclose(top.dense(labels), beliefs, rtol=1e-6)
    np.testing.assert_array_equal(top.rest, 0)
    assert top.whole


def test_what_was_cut_is_spread_evenly_and_the_given_one_is_put_in_its_place() -> None:
    beliefs, labels = draw()
    top = TopBeliefs.from_dense(beliefs, labels, 2)
    full = top.dense(labels)
    np.testing.assert_allclose(full.sum(1), 1, atol=1e-6)
    for row in range(40):
        ranked = sorted(range(5), key=lambda k: -beliefs[row, k])
        cut = [k for k in ranked[2:] if k != labels[row]]
        for label in range(5):
            exact = label in ranked[:2] or label == labels[row]
            spread = sum(beliefs[row, k] for k in cut) / len(cut)
            np.testing.assert_allclose(
                full[row, label],
                beliefs[row, label] if exact else spread,
                atol=1e-6,
                err_msg=f"{row} {label}",
            )
    np.testing.assert_allclose(top.dense().sum(1), 1, atol=1e-6)


def test_equal_beliefs_stand_in_the_order_of_classes() -> None:
    top = TopBeliefs.from_dense(np.full((3, 4), 0.25), np.array([0, 3, -1]), 4)
    np.testing.assert_array_equal(top.classes, np.tile(np.arange(4), (3, 1)))
    np.testing.assert_allclose(top.given, [0.25, 0.25, 0])


def test_parts_joined_and_selected_are_the_whole() -> None:
    beliefs, labels = draw()
    whole = TopBeliefs.from_dense(beliefs, labels, 3)
    joined = TopBeliefs.join(
        [TopBeliefs.from_dense(beliefs[a:b], labels[a:b], 3) for a, b in ((0, 7), (7, 40))]
    )
    chosen = whole.select(np.array([5, 2]))
    for name in ("classes", "probs", "given", "rest"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
        np.testing.assert_array_equal(getattr(chosen, name), getattr(whole, name)[[5, 2]])
    assert len(TopBeliefs.from_dense(beliefs[:0], labels[:0])) == 0


def test_depth_is_whole_where_that_is_little() -> None:
    assert choose_depth(1000, 1000) == 1000
    assert choose_depth(10**7, 10) == 10
    assert choose_depth(10**6, 1000) == 32


def test_blocks_cover_every_row_once() -> None:
    rows = np.concatenate([np.arange(100_000)[block] for block in iterate_blocks(100_000, 1000)])
    np.testing.assert_array_equal(rows, np.arange(100_000))
    assert list(iterate_blocks(0, 5)) == []


@pytest.mark.parametrize("depth", [5, 3])
def test_the_prior_is_taken_out_as_of_dense_beliefs(depth: int) -> None:
    beliefs, labels = draw()
    top = TopBeliefs.from_dense(beliefs, labels, depth)
    full = top.dense()
    for row in range(40):
        weights = [full[row, k] / PRIOR[k] for k in range(5)]
        balanced = np.array(weights) / sum(weights)
        found = top.take_out_prior(PRIOR, labels)
        kept = top.classes[row]
        order = sorted(kept.tolist(), key=lambda k: -balanced[k])
        assert found.classes[row].tolist() == order
        np.testing.assert_allclose(found.probs[row], balanced[order], rtol=1e-5)
        np.testing.assert_allclose(found.rest[row], 1 - balanced[kept].sum(), atol=1e-6)
        best, belief = find_best(top, PRIOR)
        assert best[row] == order[0]
        np.testing.assert_allclose(belief[row], balanced[order[0]], rtol=1e-5)
        if labels[row] in kept:
            np.testing.assert_allclose(found.given[row], balanced[labels[row]], rtol=1e-5)


def test_the_estimates_of_whole_beliefs_are_those_of_dense_ones() -> None:
    beliefs, labels = draw(300, seed=1)
    p_right = np.random.default_rng(2).random(300) * (labels >= 0)
    top = TopBeliefs.from_dense(beliefs, labels, 5)
    np.testing.assert_array_equal(find_best(top, PRIOR)[0], find_best(beliefs, PRIOR)[0])
    np.testing.assert_array_equal(propose_labels(top, PRIOR)[0], take_out_prior(beliefs, PRIOR).argmax(1))
    one, two = (tell_open(form, labels, p_right, PRIOR) for form in (top, beliefs))
    np.testing.assert_allclose(one.p_closed, two.p_closed, atol=1e-5)
    np.testing.assert_allclose(one.open_rate, two.open_rate, atol=1e-6)
    one_, two_ = (
        estimate_noise(form, labels, p_right, PRIOR, np.random.default_rng(3), resamples=20)
        for form in (top, beliefs)
    )
    for name in ("p_open", "transition", "transition_low", "transition_high"):
        np.testing.assert_allclose(getattr(one_, name), getattr(two_, name), atol=1e-5, err_msg=name)
    np.testing.assert_allclose(one_.closed_rate.value, two_.closed_rate.value, atol=1e-6)
    trusted = np.arange(300) % 3 > 0
    np.testing.assert_allclose(
        expect_right(top, labels, p_right, PRIOR, trusted),
        expect_right(beliefs, labels, p_right, PRIOR, trusted),
        atol=1e-5,
    )


def test_the_transition_matrix_of_cut_beliefs_is_that_of_what_they_mean() -> None:
    beliefs, labels = draw(200, seed=4)
    p_right = np.random.default_rng(5).random(200) * (labels >= 0)
    top = TopBeliefs.from_dense(beliefs, labels, 2)
    found = estimate_transition(top, labels, p_right)
    np.testing.assert_allclose(found, estimate_transition(top.dense(labels), labels, p_right), atol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1)


def test_sums_by_label_leave_the_label_itself_out() -> None:
    beliefs, labels = draw(60, seed=6)
    known = labels >= 0
    moved = np.random.default_rng(7).random(60)
    top = TopBeliefs.from_dense(beliefs, labels, 5).select(known)
    expected = np.zeros((5, 5))
    for row in np.flatnonzero(known):
        given = labels[row]
        for true in set(range(5)) - {given}:
            expected[true, given] += moved[row] * beliefs[row, true] / (1 - beliefs[row, given])
    np.testing.assert_allclose(sum_beliefs(top, labels[known], moved[known]), expected, rtol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    beliefs, labels = draw()
    with pytest.raises(DataError, match=r"beliefs must be \[N, K\]"):
        TopBeliefs.from_dense(beliefs, labels[:3])
    with pytest.raises(ConfigError, match=r"depth must be in 1\.\.5"):
        TopBeliefs.from_dense(beliefs, labels, 6)
    top = TopBeliefs.from_dense(beliefs, labels, 2)
    with pytest.raises(DataError, match=r"m in 1\.\.1"):
        TopBeliefs(top.classes, top.probs, top.given, top.rest, 1)
    with pytest.raises(DataError, match=r"given and rest \[40\]"):
        TopBeliefs(top.classes, top.probs, top.given[:3], top.rest, 5)
    with pytest.raises(DataError, match=r"need labels \[40\]"):
        top.dense(labels[:3])
    with pytest.raises(DataError, match="prior must be positive"):
        top.propose(np.zeros(5))
