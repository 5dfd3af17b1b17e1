"""Dataset: what a checked label table leaves in it goes along with the rows, and tells data sets apart."""

import dataclasses

import numpy as np
import pytest

from lauter.data import Dataset, ResidentImages
from lauter.data.dataset import concatenate
from lauter.errors import DataError


def make_data(count: int = 9) -> Dataset:
    rows = np.arange(count)
    return Dataset(
        "rows",
        ResidentImages(np.zeros((count, 3, 8, 8), dtype=np.uint8)),
        rows % 3,
        ("a", "b", "c"),
        np.array([f"{row}.png" for row in rows]),
        original_labels=(rows + 1) % 3,
        trusted=rows % 2 == 0,
    )


def test_rows_keep_what_was_decided_about_them() -> None:
    data = make_data()
    part = data.subset(np.array([8, 3]))
    np.testing.assert_array_equal(part.original_labels, [0, 1])
    np.testing.assert_array_equal(part.trusted, [True, False])
    np.testing.assert_array_equal(data.with_labels(np.zeros(9)).trusted, data.trusted)
    plain = dataclasses.replace(data, original_labels=None, trusted=None).subset(np.array([8, 3]))
    assert plain.original_labels is None
    assert plain.trusted is None


def test_other_images_are_not_what_was_decided_about() -> None:
    first, second = make_data(), make_data().as_open(("a", "b", "c"))
    assert second.original_labels is None
    assert second.trusted is None
    joined = concatenate(first, dataclasses.replace(second, true_labels=None))
    assert len(joined) == 18
    assert joined.trusted is None
    assert joined.original_labels is None


def test_trusted_labels_make_other_data() -> None:
    data = make_data()
    doubted = dataclasses.replace(data, trusted=None)
    other = dataclasses.replace(data, trusted=~data.trusted)  # type: ignore[operator]
    prints = {entry.fingerprint() for entry in (data, doubted, other)}
    assert len(prints) == 3
    assert dataclasses.replace(data, original_labels=None).fingerprint() == data.fingerprint()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trusted": np.ones(8, dtype=bool)}, "rows: 8 trusted for 9 images"),
        ({"original_labels": np.zeros(3, dtype=np.int64)}, "rows: 3 original_labels for 9 images"),
        ({"original_labels": np.full(9, 3)}, r"original labels must be in -1..2, found 3..3"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        dataclasses.replace(make_data(), **changes)
