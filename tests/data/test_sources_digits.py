import numpy as np
import pytest
from sklearn.datasets import load_digits

from lauter.data import available_splits, open_dataset
from lauter.errors import DataError


def test_digits_are_split_by_class_without_overlap() -> None:
    assert available_splits("digits") == ("train", "test")
    train, test = open_dataset("digits"), open_dataset("digits", split="test")
    everything = np.bincount(load_digits().target)
    np.testing.assert_array_equal(np.bincount(test.labels), everything // 3)
    np.testing.assert_array_equal(np.bincount(train.labels) + np.bincount(test.labels), everything)
    assert not set(train.ids.tolist()) & set(test.ids.tolist())
    assert train.fingerprint() == open_dataset("digits").fingerprint()


@pytest.mark.parametrize("size", [8, 16, 32])
def test_digits_are_the_stored_ones_scaled_and_enlarged(size: int) -> None:
    dataset = open_dataset("digits", image_size=size)
    stored = load_digits()
    for row in (0, 500, len(dataset) - 1):
        origin = int(dataset.ids[row].removeprefix("digits/"))
        assert dataset.labels[row] == stored.target[origin]
        small = np.floor(stored.images[origin] * 255 / 16 + 0.5)
        pixels = dataset.images.read(row)
        assert pixels.shape == (3, size, size)
        for channel in range(3):
            np.testing.assert_array_equal(pixels[channel], np.kron(small, np.ones((size // 8, size // 8))))


def test_what_digits_do_not_have_is_refused() -> None:
    with pytest.raises(DataError, match="no split 'val'; expected 'train' or 'test'"):
        open_dataset("digits", split="val")
    with pytest.raises(DataError, match="image_size must be a multiple of 8, not 20"):
        open_dataset("digits", image_size=20)
    with pytest.raises(DataError, match="truth_column='x' conflicts with the embedded digits"):
        open_dataset("digits", truth_column="x")
    with pytest.raises(DataError, match="class_names must be '0', '1'"):
        open_dataset("digits", class_names=["a", "b"])
