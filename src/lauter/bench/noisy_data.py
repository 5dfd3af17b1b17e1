"""The data sets of the noisy measurements: CIFAR-10 with labels of which some are wrong, and its test set."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lauter.data import Dataset, corrupt, open_dataset
from lauter.data.counters import derive_seed
from lauter.data.dataset import concatenate
from lauter.errors import ConfigError
from lauter.noise import NoiseRecipe, find_candidates
from lauter.noise.open_set import CIFAR100_LIKE_CIFAR10

TEST_SIZE, OPEN_TEST_SIZE = 5_000, 1_000
"""Test images of the table of rivals: classes balanced, and images of none of the classes."""


@dataclass(frozen=True)
class NoisyData:
    """One data set of a measurement.

    Attributes:
        train: noisy, with its truth (evaluation only).
        test: clean.
        noisy_twin: name of the data set with the same images, whose self-supervised weights may be used.
    """

    train: Dataset
    test: Dataset
    noisy_twin: str = ""


Open = Callable[[Path, Path, int], NoisyData]
"""Opens a data set from the folders of CIFAR-10 and CIFAR-100 and a seed."""


def open_ncifar(recipe: str | NoiseRecipe, head_size: int) -> Open:
    """An nCIFAR-10 recipe with so many images in its largest class, beside the whole clean test set."""

    def open_recipe(cifar10: Path, cifar100: Path, seed: int) -> NoisyData:
        clean = open_dataset(cifar10, split="train", label_column="label")
        name = recipe if isinstance(recipe, str) else recipe.name
        human, foreign = None, None
        if name.endswith("-human"):
            human = open_dataset(cifar10, split="train", label_column="label_worst").labels
        if name != CLEAN.name:
            foreign = open_dataset(cifar100, split="train", label_column="label")
        noisy = corrupt(
            clean, recipe, seed=seed, head_size=head_size, open_source=foreign, human_labels=human
        )
        return NoisyData(noisy, open_dataset(cifar10, split="test", label_column="label"))

    return open_recipe


def open_cifar10n_worst(cifar10: Path, cifar100: Path, seed: int) -> NoisyData:
    """10,000 images of CIFAR-10 under the labels of CIFAR-10N 'worst'."""
    noisy = open_dataset(
        cifar10, split="train", label_column="label_worst", truth_column="label", size=10_000, seed=seed
    )
    return NoisyData(noisy, open_dataset(cifar10, split="test", label_column="label"))


def with_true_labels(open_noisy: Open, name: str) -> Open:
    """The same images under their true labels; open ones have none and are unlabelled."""

    def open_clean(cifar10: Path, cifar100: Path, seed: int) -> NoisyData:
        data = open_noisy(cifar10, cifar100, seed)
        truth = data.train.true_labels
        if truth is None:
            raise ConfigError(f"{data.train.name} has no true labels to train on")
        clean = dataclasses.replace(data.train, name=f"{data.train.name}-clean").with_labels(truth)
        return NoisyData(clean, data.test, noisy_twin=name)

    return open_clean


def with_open_test(open_noisy: Open) -> Open:
    """The same training images; half of the test set, and behind it test images of CIFAR-100."""

    def open_both(cifar10: Path, cifar100: Path, seed: int) -> NoisyData:
        data = open_noisy(cifar10, cifar100, seed)
        known = open_dataset(cifar10, split="test", label_column="label", size=TEST_SIZE, seed=0)
        foreign = open_dataset(cifar100, split="test", label_column="label", min_per_class=0)
        rows, _ = find_candidates(
            foreign.labels, foreign.class_names, known.class_names, CIFAR100_LIKE_CIFAR10
        )
        drawn = np.random.default_rng(derive_seed(0, "open test")).permutation(rows)[:OPEN_TEST_SIZE]
        open_images = foreign.subset(np.sort(drawn)).as_open(known.class_names)
        test = concatenate(known.with_truth(known.labels), open_images)
        return dataclasses.replace(data, test=test)

    return open_both


CLEAN = NoiseRecipe("clean", ratio=10)
"""The long tail of ncifar10 without any noise."""

WAY_DATA: dict[str, Open] = {
    "ncifar10": open_ncifar("ncifar10", 2500),
    "cifar10n-worst": open_cifar10n_worst,
    "ncifar10-clean": with_true_labels(open_ncifar("ncifar10", 2500), "ncifar10"),
    "cifar10n-worst-clean": with_true_labels(open_cifar10n_worst, "cifar10n-worst"),
}
"""The whole way is measured on these, with the whole test set."""

RIVAL_DATA: dict[str, Open] = {
    "ncifar10": with_open_test(open_ncifar("ncifar10", 1500)),
    "ncifar10-human": with_open_test(open_ncifar("ncifar10-human", 1500)),
    "ncifar10-hard": with_open_test(open_ncifar("ncifar10-hard", 1500)),
    "ncifar10-2500": with_open_test(open_ncifar("ncifar10", 2500)),
    "cifar10n-worst": with_open_test(open_cifar10n_worst),
    "clean": with_open_test(open_ncifar(CLEAN, 1500)),
}
"""The noisy recipe and its rivals are measured on these."""
