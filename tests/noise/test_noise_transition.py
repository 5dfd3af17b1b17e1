import numpy as np
import pytest

from lauter.errors import DataError
from lauter.noise import check_transition_matrix, flip_pairs, noise_kinds, transition_matrix


def count_by_loops(true: list[int], given: list[int], num_classes: int) -> np.ndarray:
    matrix = np.zeros((num_classes, num_classes))
    for i in range(num_classes):
        pairs = [g for t, g in zip(true, given, strict=True) if t == i and g != -1]
        for j in range(num_classes):
            matrix[i, j] = sum(g == j for g in pairs) / len(pairs) if pairs else float(i == j)
    return matrix


def test_the_matrix_counts_given_labels_per_true_class() -> None:
    rng = np.random.default_rng(0)
    true, given = rng.integers(-1, 4, size=500), rng.integers(-1, 4, size=500)
    matrix = transition_matrix(true, given, 4)
    np.testing.assert_allclose(matrix, count_by_loops(true.tolist(), given.tolist(), 4), rtol=1e-12)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-12)


def test_rows_are_true_and_columns_given() -> None:
    labels = np.repeat([0, 1, 2], 100)
    matrix = transition_matrix(labels, flip_pairs(labels, 1.0, 3, np.random.default_rng(0)), 3)
    np.testing.assert_array_equal(matrix, [[0, 1, 0], [0, 0, 1], [1, 0, 0]])


def test_a_class_without_images_keeps_its_label() -> None:
    np.testing.assert_array_equal(transition_matrix([0, 0, -1], [0, 1, 1], 2), [[0.5, 0.5], [0, 1]])


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[0.5, 0.5]], r"must be square, not of shape \(1, 2\)"),
        ([[1.0, 0.0], [0.5, 0.4]], r"row 1 of the transition matrix sums to 0\.9"),
        ([[1.5, -0.5], [0.0, 1.0]], "holds probabilities"),
        ([[float("nan"), 1.0], [0.0, 1.0]], "holds probabilities"),
    ],
)
def test_what_is_no_transition_matrix_is_refused(matrix: list[list[float]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_transition_matrix(matrix)


def test_labels_out_of_range_and_other_lengths_are_refused() -> None:
    with pytest.raises(DataError, match=r"labels must be in -1\.\.1, found 0\.\.2"):
        transition_matrix([0, 2], [0, 1], 2)
    with pytest.raises(DataError, match="2 true labels stand beside 1 given labels"):
        transition_matrix([0, 1], [0], 2)


def test_kinds_tell_clean_closed_and_open_apart() -> None:
    kinds = noise_kinds([0, 1, -1, 2], [0, 2, 0, 2])
    assert kinds.tolist() == ["clean", "closed", "open", "clean"]
