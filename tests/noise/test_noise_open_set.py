import numpy as np
import pytest

from lauter.errors import DataError
from lauter.noise import choose_open, find_candidates
from lauter.noise.open_set import CIFAR10_LIKE_CIFAR100, CIFAR100_LIKE_CIFAR10


def test_the_exact_share_is_replaced_among_eligible_rows_each_by_another_image() -> None:
    eligible = np.arange(200) % 2 == 0
    candidates = np.arange(1000, 1100)
    rows, foreign = choose_open(eligible, 0.25, candidates, np.random.default_rng(0))
    assert len(rows) == len(foreign) == 50
    assert (rows % 2 == 0).all()
    assert len(set(rows.tolist())) == 50
    assert len(set(foreign.tolist())) == 50
    assert set(foreign.tolist()) <= set(candidates.tolist())


def test_too_few_images_or_candidates_are_refused() -> None:
    with pytest.raises(DataError, match=r"is 5, but only 4 images may be replaced"):
        choose_open(np.arange(10) < 4, 0.5, np.arange(50), np.random.default_rng(0))
    with pytest.raises(DataError, match=r"is 5, but only 3 foreign images are there"):
        choose_open(np.ones(10, dtype=bool), 0.5, np.arange(3), np.random.default_rng(0))
    with pytest.raises(DataError, match="open rate must be a share"):
        choose_open(np.ones(10, dtype=bool), 1.5, np.arange(30), np.random.default_rng(0))


def test_overlapping_classes_and_unlabelled_images_are_no_candidates() -> None:
    labels = [0, 1, 2, 3, -1, 3]
    rows, left_out = find_candidates(
        labels, ["Pickup_Truck", "cat", "bus", "rose"], ["pickup truck", "x"], ["bus"]
    )
    np.testing.assert_array_equal(rows, [1, 3, 5])
    assert left_out == ("Pickup_Truck", "bus")


def test_a_source_of_our_own_classes_is_refused() -> None:
    with pytest.raises(DataError, match="no image of the open source is left: 2 of its 2 classes"):
        find_candidates([0, 1], ["a", "b"], ["A", "B"])


def test_left_out_classes_are_classes_of_cifar(shared_data) -> None:  # type: ignore[no-untyped-def]
    from lauter.data import open_dataset

    names10 = open_dataset(shared_data("cifar10"), split="test", size=200).class_names
    names100 = open_dataset(shared_data("cifar100"), split="test", size=200).class_names
    assert set(CIFAR100_LIKE_CIFAR10) <= set(names100)
    assert set(CIFAR10_LIKE_CIFAR100) <= set(names10)
