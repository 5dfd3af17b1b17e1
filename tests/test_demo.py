"""The demo's data: noise as it says, a clean test set, and digits that are of no class."""

import numpy as np
import pytest

from lauter.data.dataset import OPEN, UNLABELLED
from lauter.demo import KNOWN, RECIPE, demo_config, make_demo_data


def test_the_noise_is_what_the_recipe_says() -> None:
    noisy, test = make_demo_data(seed=0)
    truth = noisy.true_labels
    assert truth is not None
    assert noisy.class_names == test.class_names == tuple("01234567")
    is_open = truth == OPEN
    assert is_open.mean() == pytest.approx(RECIPE.open_rate, abs=0.03)
    wrong = (truth != noisy.labels) & ~is_open
    assert wrong.mean() == pytest.approx(RECIPE.closed_rate, abs=0.03)
    assert (noisy.labels != UNLABELLED).all()
    counts = np.bincount(np.where(is_open, noisy.labels, truth), minlength=KNOWN)
    assert counts.max() / counts.min() == pytest.approx(RECIPE.ratio, rel=0.35)


def test_the_test_set_is_clean_with_open_images_behind() -> None:
    noisy, test = make_demo_data(seed=0)
    assert test.true_labels is not None
    is_open = test.true_labels == OPEN
    assert is_open.sum() > 50
    np.testing.assert_array_equal(test.labels[~is_open], test.true_labels[~is_open])
    assert not set(noisy.ids) & set(test.ids)
    assert all(str(name).startswith("open/") for name in test.ids[is_open])


def test_the_seed_decides_the_noise() -> None:
    first, again, other = (make_demo_data(seed)[0] for seed in (1, 1, 2))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


def test_the_settings_are_small_and_for_digits() -> None:
    config = demo_config(seed=4)
    assert (config.augment, config.seed, config.baseline) == ("digits", 4, True)
