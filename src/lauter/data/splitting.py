"""Stratified draws from a data set: a part of it, a hold-out, or folds."""

import numpy as np

from lauter.data.dataset import UNLABELLED, Dataset, Int64s
from lauter.errors import ConfigError, DataError
from lauter.noise.seeding import step_generator


def hold_out(dataset: Dataset, share: float, seed: int) -> tuple[Int64s, Int64s]:
    """Split rows into a training part and a hold-out, stratified by given label.

    The hold-out has the classes' shares (largest remainders decide who gets the odd image), but every class
    keeps at least one image for training, and unlabelled images all stay there.

    Args:
        dataset: labelled images.
        share: of the labelled images, for the hold-out; between 0 and 1.
        seed: which images are drawn.

    Returns:
        Rows for training and rows held out, both ascending.

    Raises:
        DataError: the share is out of its range, or so small (or the classes are) that nothing is held out.
    """
    if not 0 < share < 1:
        raise DataError(f"{dataset.name}: the share to hold out must be between 0 and 1, not {share}")
    labels = dataset.labels
    classes, counts = np.unique(labels[labels != UNLABELLED], return_counts=True)
    sizes = _apportion(round(share * int(counts.sum())), counts, lowest=counts * 0, highest=counts - 1)
    if sizes.sum() == 0:
        raise DataError(
            f"{dataset.name}: a share of {share} of {counts.sum()} labelled images in {len(classes)} classes "
            "holds out no image; raise the share"
        )
    held = _draw(labels, classes, sizes, step_generator(seed, "hold out"))
    return np.setdiff1d(np.arange(len(labels)), held), held


def take_stratified(labels: Int64s, size: int, seed: int, *, lowest: int = 1) -> Int64s:
    """Draw rows so that every class (and the unlabelled) keeps its share.

    Args:
        labels: [N] given labels.
        size: how many rows to draw.
        seed: which rows are drawn.
        lowest: images that each class keeps if it has them and ``size`` allows it.

    Returns:
        [size] rows, ascending.

    Raises:
        DataError: more rows than there are, or none.
    """
    if not 1 <= size <= len(labels):
        raise DataError(f"size must be between 1 and the {len(labels)} images there are, not {size}")
    classes, counts = np.unique(labels, return_counts=True)
    floor = np.minimum(counts, lowest)
    if floor.sum() > size:
        floor = counts * 0
    return _draw(labels, classes, _apportion(size, counts, floor, counts), step_generator(seed, "take"))


def split_folds(labels: Int64s, folds: int, generator: np.random.Generator) -> Int64s:
    """Deal images out into folds: of each label, and of all, no fold gets two images more than another.

    Args:
        labels: [M] given labels.
        folds: how many.
        generator: source of the draws.

    Returns:
        [M] the fold of each image, 0..folds-1.

    Raises:
        ConfigError: a fold would be empty, or there is only one.
    """
    if not 2 <= folds <= len(labels):
        raise ConfigError(
            f"{len(labels)} labelled images cannot be split into {folds} folds; "
            f"choose between 2 and the number of images"
        )
    shuffled = generator.permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    fold = np.empty(len(labels), dtype=np.int64)
    fold[by_label] = np.arange(len(labels)) % folds
    return fold


def _apportion(total: int, counts: Int64s, lowest: Int64s, highest: Int64s) -> Int64s:
    """Share ``total`` out in proportion to ``counts`` within bounds, as near to it as the bounds allow."""
    exact = total * counts / max(1, int(counts.sum()))
    sizes: Int64s = np.clip(np.floor(exact).astype(np.int64), lowest, highest)
    while (missing := total - int(sizes.sum())) != 0:
        step = 1 if missing > 0 else -1
        free = sizes < highest if step > 0 else sizes > lowest
        if not free.any():
            break
        # The class that is farthest from its exact share moves; ties go to the lower class index.
        gap = np.where(free, step * (exact - sizes), -np.inf)
        sizes[int(np.argmax(gap))] += step
    return sizes


def _draw(labels: Int64s, classes: Int64s, sizes: Int64s, rng: np.random.Generator) -> Int64s:
    drawn = [
        rng.permutation(np.flatnonzero(labels == label))[:size]
        for label, size in zip(classes.tolist(), sizes.tolist(), strict=True)
    ]
    return np.sort(np.concatenate(drawn)).astype(np.int64) if drawn else np.zeros(0, dtype=np.int64)
