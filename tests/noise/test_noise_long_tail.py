import math

import numpy as np
import pytest

from lauter.errors import DataError
from lauter.noise import count_long_tail, long_tail_index


def list_sizes(num_classes: int, ratio: float, head: int) -> list[int]:
    return [
        math.floor(head * ratio ** (-rank / (num_classes - 1)) + 0.5)  # halves up
        for rank in range(num_classes)
    ]


@pytest.mark.parametrize(
    ("num_classes", "ratio", "head"), [(10, 10, 2500), (10, 50, 5000), (100, 20, 500), (2, 1, 3)]
)
def test_sizes_follow_the_formula(num_classes: int, ratio: float, head: int) -> None:
    sizes = count_long_tail(num_classes, ratio, head)
    np.testing.assert_array_equal(sizes, list_sizes(num_classes, ratio, head))
    assert sizes[0] == head
    assert sizes[-1] == math.floor(head / ratio + 0.5)


def test_ten_classes_from_2500_at_ratio_10_are_10218_images() -> None:
    assert count_long_tail(10, 10, 2500).sum() == 10_218


def test_classes_get_their_sizes_and_the_head_is_drawn() -> None:
    labels = np.repeat(np.arange(5), 100)
    heads = set()
    for seed in range(20):
        index = long_tail_index(labels, 10, np.random.default_rng(seed))
        counts = np.bincount(labels[index], minlength=5)
        assert sorted(counts.tolist(), reverse=True) == list_sizes(5, 10, 100)
        assert (np.diff(index) > 0).all()
        heads.add(int(counts.argmax()))
    assert heads == {0, 1, 2, 3, 4}


def test_the_head_size_can_be_chosen() -> None:
    labels = np.repeat(np.arange(4), 50)
    index = long_tail_index(labels, 4, np.random.default_rng(0), head_size=20)
    assert sorted(np.bincount(labels[index]).tolist(), reverse=True) == list_sizes(4, 4, 20)


def test_without_a_head_size_the_largest_that_all_classes_allow_is_taken() -> None:
    labels = np.repeat([0, 1, 2], [40, 90, 25])
    for seed in range(10):
        index = long_tail_index(labels, 3, np.random.default_rng(seed))
        counts = np.bincount(labels[index], minlength=3)
        order = np.random.default_rng(seed).permutation(3)
        available = np.bincount(labels)[order]
        fitting = [h for h in range(1, 400) if all(np.array(list_sizes(3, 3, h)) <= available)]
        np.testing.assert_array_equal(counts[order], list_sizes(3, 3, max(fitting)))


def test_ratio_one_balances() -> None:
    labels = np.repeat([0, 1, 2], [40, 90, 25])
    index = long_tail_index(labels, 1, np.random.default_rng(0))
    np.testing.assert_array_equal(np.bincount(labels[index]), [25, 25, 25])


def test_the_same_seed_chooses_the_same_images_and_another_seed_others() -> None:
    labels = np.repeat(np.arange(5), 100)
    first, again, other = (long_tail_index(labels, 2, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert set(first.tolist()) != set(other.tolist())


def test_a_class_with_too_few_images_is_named_and_can_be_clipped() -> None:
    labels = np.repeat([0, 1], [50, 3])
    with pytest.raises(DataError, match=r"class 1 has 3 images, but its place .* needs (40|20)"):
        long_tail_index(labels, 2, np.random.default_rng(0), head_size=40)
    index = long_tail_index(labels, 2, np.random.default_rng(0), head_size=40, clip=True)
    assert np.bincount(labels[index])[1] == 3


def test_an_absent_class_is_named() -> None:
    with pytest.raises(DataError, match="class 2 has 0 images"):
        long_tail_index([0, 0, 1, 1], 1, np.random.default_rng(0), head_size=2, num_classes=3)


@pytest.mark.parametrize(("num_classes", "ratio", "head"), [(1, 2, 5), (3, 0.5, 5), (3, 2, 0)])
def test_arguments_out_of_range_are_refused(num_classes: int, ratio: float, head: int) -> None:
    with pytest.raises(DataError, match="a long tail needs 2 classes or more"):
        count_long_tail(num_classes, ratio, head)


def test_an_empty_tail_is_refused() -> None:
    with pytest.raises(DataError, match="leaves the smallest class empty; raise head_size"):
        count_long_tail(3, 100, 50)
