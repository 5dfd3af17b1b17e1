import numpy as np
import pytest

from lauter.errors import ConfigError, DataError
from lauter.noise import (
    flip_by_instance,
    flip_by_map,
    flip_by_matrix,
    flip_pairs,
    flip_symmetric,
    step_generator,
)


def draw_labels(count: int = 2000, num_classes: int = 7) -> np.ndarray:
    return np.random.default_rng(3).integers(0, num_classes, size=count)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3333, 0.9, 1.0])
def test_symmetric_noise_moves_the_exact_share_and_never_to_the_true_class(rate: float) -> None:
    labels = draw_labels()
    given = flip_symmetric(labels, rate, 7, np.random.default_rng(0))
    assert (given != labels).sum() == round(rate * len(labels))
    assert given.min() >= 0
    assert given.max() <= 6


def test_symmetric_noise_reaches_all_other_classes_equally() -> None:
    count, num_classes = 30_000, 4
    labels = np.full(count, 2)
    given = flip_symmetric(labels, 1.0, num_classes, np.random.default_rng(0))
    share = np.bincount(given, minlength=num_classes) / count
    bound = 5 * np.sqrt((1 / 3) * (2 / 3) / count)
    assert share[2] == 0
    np.testing.assert_allclose(share[[0, 1, 3]], 1 / 3, rtol=0, atol=bound)


def test_symmetric_noise_of_two_classes_swaps_them() -> None:
    labels = np.array([0, 1, 0, 1])
    np.testing.assert_array_equal(flip_symmetric(labels, 1.0, 2, np.random.default_rng(0)), [1, 0, 1, 0])


def test_flips_leave_their_input_alone() -> None:
    labels = draw_labels()
    before = labels.copy()
    flip_symmetric(labels, 0.5, 7, np.random.default_rng(0))
    flip_pairs(labels, 0.5, 7, np.random.default_rng(0))
    flip_by_matrix(labels, np.full((7, 7), 1 / 7), np.random.default_rng(0))
    np.testing.assert_array_equal(labels, before)


def test_pair_flips_go_to_the_next_class() -> None:
    labels = draw_labels()
    given = flip_pairs(labels, 0.25, 7, np.random.default_rng(1))
    moved = given != labels
    assert moved.sum() == 500
    np.testing.assert_array_equal(given[moved], [(label + 1) % 7 for label in labels[moved].tolist()])


def test_a_map_moves_only_mapped_classes_and_the_share_is_of_all_labels() -> None:
    labels = draw_labels()
    mapping = {0: 3, 5: 6}
    given = flip_by_map(labels, 0.1, mapping, 7, np.random.default_rng(1))
    moved = np.flatnonzero(given != labels)
    assert len(moved) == 200
    assert {int(labels[row]) for row in moved} == {0, 5}
    assert all(given[row] == mapping[int(labels[row])] for row in moved)


def test_a_map_with_too_few_images_is_refused() -> None:
    with pytest.raises(DataError, match=r"a rate of 0\.5 of 4 labels is 2, but only 1 can move"):
        flip_by_map([0, 1, 2, 2], 0.5, {0: 1}, 3, np.random.default_rng(0))


def test_a_map_to_an_unknown_class_is_refused() -> None:
    with pytest.raises(DataError, match=r"moves class 0 to 3; expected classes in 0\.\.2"):
        flip_by_map([0, 1, 2], 0.1, {0: 3}, 3, np.random.default_rng(0))


def test_a_matrix_gives_its_probabilities_within_a_binomial_bound() -> None:
    matrix = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [0.05, 0.45, 0.5]])
    labels = np.repeat([0, 1, 2], 10_000)
    given = flip_by_matrix(labels, matrix, np.random.default_rng(5))
    for true in range(3):
        for label in range(3):
            p = matrix[true, label]
            realised = (given[labels == true] == label).mean()
            assert abs(realised - p) <= 5 * np.sqrt(p * (1 - p) / 10_000), (true, label, realised)


def test_the_identity_matrix_changes_nothing() -> None:
    labels = draw_labels()
    np.testing.assert_array_equal(flip_by_matrix(labels, np.eye(7), np.random.default_rng(0)), labels)


def test_the_same_generator_state_gives_the_same_labels_and_another_other_ones() -> None:
    labels = draw_labels()
    first, again, other = (flip_symmetric(labels, 0.5, 7, np.random.default_rng(seed)) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_that_is_no_share_is_refused(rate: float) -> None:
    with pytest.raises(DataError, match=r"noise rate must be a share in 0\.\.1"):
        flip_symmetric([0, 1], rate, 2, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 3], r"labels must be in 0\.\.2, found 0\.\.3"),
        ([0, -1], "unlabelled images cannot be corrupted"),
        ([0.5, 1.0], r"labels must be integers \[N\], not float64"),
        ([[0, 1]], "must be integers"),
    ],
)
def test_bad_labels_are_refused(labels: list[object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        flip_symmetric(labels, 0.5, 3, np.random.default_rng(0))


def test_one_class_cannot_be_flipped() -> None:
    with pytest.raises(DataError, match="among 2 classes or more, not 1"):
        flip_symmetric([0, 0], 0.5, 1, np.random.default_rng(0))


def test_steps_draw_from_generators_of_their_own() -> None:
    draws = {
        (seed, step): tuple(step_generator(seed, step).integers(1 << 40, size=3).tolist())
        for seed in (0, 1)
        for step in ("a", "b")
    }
    assert len(set(draws.values())) == 4
    assert tuple(step_generator(0, "a").integers(1 << 40, size=3).tolist()) == draws[0, "a"]


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed must be 0 or above, not -1"):
        step_generator(-1, "a")


def draw_probabilities(labels: np.ndarray, num_classes: int = 7) -> np.ndarray:
    rows = np.random.default_rng(11).gamma(0.5, size=(len(labels), num_classes))
    rows[np.arange(len(labels)), labels] += 1
    return rows / rows.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3333, 0.9, 1.0])
def test_instance_noise_moves_the_exact_share_and_never_to_the_true_class(rate: float) -> None:
    labels = draw_labels()
    given = flip_by_instance(labels, rate, draw_probabilities(labels), np.random.default_rng(0))
    assert (given != labels).sum() == round(rate * len(labels))
    assert given.min() >= 0
    assert given.max() <= 6


def test_instance_noise_is_that_of_one_weighted_draw_after_the_other() -> None:
    """Which two of four images move: against the probabilities of successive draws, summed up by hand."""
    labels, count = np.zeros(4, dtype=np.int64), 4000
    wrong = [0.9, 0.5, 0.3, 0.1]
    probabilities = np.array([[1 - w, w] for w in wrong])
    rng = np.random.default_rng(0)
    pairs = [
        tuple(np.flatnonzero(flip_by_instance(labels, 0.5, probabilities, rng)).tolist())
        for _ in range(count)
    ]
    total = sum(wrong)
    for one in range(4):
        for two in range(one + 1, 4):
            first, second = wrong[one] / total, wrong[two] / total
            p = first * wrong[two] / (total - wrong[one]) + second * wrong[one] / (total - wrong[two])
            share = pairs.count((one, two)) / count
            assert abs(share - p) <= 5 * np.sqrt(p * (1 - p) / count), (one, two, share, p)


def test_instance_noise_draws_the_new_label_from_the_other_classes() -> None:
    count = 20_000
    labels = np.full(count, 1)
    row = np.array([0.2, 0.5, 0.0, 0.3])
    given = flip_by_instance(labels, 1.0, np.tile(row, (count, 1)), np.random.default_rng(0))
    share = np.bincount(given, minlength=4) / count
    assert share[1] == 0
    assert share[2] == 0
    np.testing.assert_allclose(share[[0, 3]], [0.4, 0.6], rtol=0, atol=5 * np.sqrt(0.24 / count))


def test_images_that_cannot_be_mistaken_stay() -> None:
    labels = np.array([0, 1, 2, 0])
    probabilities = np.eye(3)[labels]
    probabilities[1] = [0.5, 0.25, 0.25]
    given = flip_by_instance(labels, 0.25, probabilities, np.random.default_rng(0))
    np.testing.assert_array_equal(np.flatnonzero(given != labels), [1])
    with pytest.raises(DataError, match=r"a rate of 0\.5 of 4 labels is 2, but only 1 can move"):
        flip_by_instance(labels, 0.5, probabilities, np.random.default_rng(0))


def test_instance_noise_takes_probabilities_of_any_scale_and_leaves_them_alone() -> None:
    labels = draw_labels()
    probabilities = draw_probabilities(labels)
    before = probabilities.copy()
    given = flip_by_instance(labels, 0.4, probabilities, np.random.default_rng(0))
    np.testing.assert_array_equal(probabilities, before)
    scaled = flip_by_instance(labels, 0.4, probabilities * 64, np.random.default_rng(0))
    np.testing.assert_array_equal(given, scaled)


def test_a_vanishing_probability_moves_last() -> None:
    probabilities = np.array([[1.0, 5e-324], [1.0, 0.1], [1.0, 5e-324]])
    for seed in range(5):
        given = flip_by_instance([0, 0, 0], 1 / 3, probabilities, np.random.default_rng(seed))
        np.testing.assert_array_equal(given, [0, 1, 0])


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        ([[0.5, 0.5]], r"\[N, K\] for 2 labels, not of shape \(1, 2\)"),
        ([0.5, 0.5], r"not of shape \(2,\)"),
        ([[0.5, 0.5], [0.5, -0.1]], "0 or above"),
        ([[0.5, 0.5], [0.5, float("nan")]], "0 or above"),
        ([[0.5, 0.5], [0.0, 0.0]], "above 0 for a class of each image"),
        ([[1.0], [1.0]], "among 2 classes or more, not 1"),
    ],
)
def test_bad_probabilities_are_refused(probabilities: list[object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        flip_by_instance([0, 0], 0.5, probabilities, np.random.default_rng(0))
