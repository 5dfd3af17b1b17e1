from collections.abc import Sequence

import numpy as np
import pytest

from lauter.data import Dataset, ResidentImages, hold_out, take_stratified
from lauter.data.splitting import split_folds
from lauter.errors import ConfigError, DataError


def make_dataset(labels: Sequence[int], num_classes: int = 3) -> Dataset:
    n = len(labels)
    return Dataset(
        name="made",
        images=ResidentImages(np.zeros((n, 3, 4, 4), dtype=np.uint8)),
        labels=np.array(labels, dtype=np.int64),
        class_names=tuple("abcdefgh"[:num_classes]),
        ids=np.array([str(row) for row in range(n)]),
    )


def test_the_hold_out_has_the_share_of_every_class() -> None:
    labels = np.repeat([0, 1, 2, -1], [100, 60, 40, 50])
    train, held = hold_out(make_dataset(labels.tolist()), 0.1, seed=0)
    np.testing.assert_array_equal(np.bincount(labels[held]), [10, 6, 4])
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held])), np.arange(250))
    assert (np.diff(train) > 0).all()
    assert (np.diff(held) > 0).all()


def test_the_total_is_exact_where_class_shares_are_not_whole() -> None:
    labels = [label for label in range(7) for _ in range(13)]
    for share in (0.05, 0.1, 0.33, 0.5):
        _, held = hold_out(make_dataset(labels, 7), share, seed=0)
        assert len(held) == round(share * len(labels))
        counts = np.bincount(np.array(labels)[held], minlength=7)
        assert counts.max() - counts.min() <= 1


def test_every_class_keeps_an_image_for_training() -> None:
    labels = np.array([0] * 10 + [1] * 2 + [2])
    train, held = hold_out(make_dataset(labels.tolist()), 0.99, seed=0)
    assert set(labels[train].tolist()) == {0, 1, 2}
    assert 12 not in held


def test_hold_outs_are_seeded() -> None:
    dataset = make_dataset([0, 1, 2] * 50)
    np.testing.assert_array_equal(hold_out(dataset, 0.2, 1)[1], hold_out(dataset, 0.2, 1)[1])
    assert (hold_out(dataset, 0.2, 1)[1] != hold_out(dataset, 0.2, 2)[1]).any()


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(DataError, match="must be between 0 and 1"):
        hold_out(make_dataset([0, 1, 2] * 5), share, 0)


def test_a_hold_out_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="holds out no image; raise the share"):
        hold_out(make_dataset([0, 1, 2] * 5), 0.01, 0)


def test_a_small_draw_gives_every_class_its_lowest_where_it_can() -> None:
    labels = np.repeat([0, 1, 2], [1000, 10, 2])
    drawn = take_stratified(labels, 20, seed=0, lowest=2)
    np.testing.assert_array_equal(np.bincount(labels[drawn]), [16, 2, 2])
    drawn = take_stratified(labels, 2, seed=0, lowest=2)
    np.testing.assert_array_equal(np.bincount(labels[drawn]), [2])


def test_unlabelled_images_are_a_stratum_of_their_own() -> None:
    labels = np.repeat([-1, 0, 1], [50, 25, 25])
    drawn = take_stratified(labels, 20, seed=3)
    np.testing.assert_array_equal(np.unique(labels[drawn], return_counts=True)[1], [10, 5, 5])


@pytest.mark.parametrize(("count", "folds"), [(100, 2), (57, 5), (7, 7)])
def test_folds_share_every_label_evenly(count: int, folds: int) -> None:
    labels = np.random.default_rng(count).integers(0, 4, count)
    fold = split_folds(labels, folds, np.random.default_rng(0))
    sizes = [int((fold == number).sum()) for number in range(folds)]
    assert sum(sizes) == count
    assert max(sizes) - min(sizes) <= 1
    for label in range(4):
        of_label = [int(((fold == number) & (labels == label)).sum()) for number in range(folds)]
        assert max(of_label) - min(of_label) <= 1
    assert (fold != split_folds(labels, folds, np.random.default_rng(1))).any()


@pytest.mark.parametrize("folds", [1, 6])
def test_folds_without_images_are_refused(folds: int) -> None:
    with pytest.raises(ConfigError, match=f"5 labelled images cannot be split into {folds} folds"):
        split_folds(np.zeros(5, dtype=np.int64), folds, np.random.default_rng(0))
