"""The demo: the whole way on scikit-learn's digits, with noise whose truth is known."""

import dataclasses

import numpy as np

from lauter.config import FitConfig, load_preset
from lauter.data import Dataset, corrupt, open_dataset
from lauter.data.dataset import concatenate
from lauter.noise import NoiseRecipe

KNOWN = 8
"""Digits 0 to 7 are classes; 8 and 9 are images of no class."""
RECIPE = NoiseRecipe("digits-demo", ratio=4, closed_kind="symmetric", closed_rate=0.25, open_rate=0.15)


def make_demo_data(seed: int = 0) -> tuple[Dataset, Dataset]:
    """Digits with a long tail, closed noise and open noise, and a clean test set with open images.

    Args:
        seed: of the corruption.
    """
    known, foreign = _part("train")
    test_known, test_foreign = _part("test")
    noisy = corrupt(known, RECIPE, seed=seed, open_source=foreign)
    noisy = dataclasses.replace(noisy, name="digits with noise", source={"demo": "digits", "seed": seed})
    test = concatenate(test_known.with_truth(test_known.labels), test_foreign.as_open(known.class_names))
    return noisy, dataclasses.replace(test, source={"demo": "digits test"})


def demo_config(seed: int = 0) -> FitConfig:
    """Settings of the demo: small networks, two minutes on two cores."""
    config = load_preset("standard")
    return dataclasses.replace(
        config,
        student="resnet8",
        teacher="resnet14",
        augment="digits",
        seed=seed,
        holdout=0.15,
        pretrain=dataclasses.replace(config.pretrain, epochs=60, batch_size=128),
        robust=dataclasses.replace(config.robust, epochs=40, batch_size=64),
        distill=dataclasses.replace(config.distill, epochs=60, batch_size=64),
        supervised=dataclasses.replace(config.supervised, epochs=60, batch_size=64),
        # Networks this small gain nothing from more threads, and lose much on a busy machine.
        runtime=dataclasses.replace(config.runtime, threads=1),
    )


def _part(split: str) -> tuple[Dataset, Dataset]:
    """A split's images of the known classes, and those of the others."""
    digits = open_dataset("digits", split=split)
    is_known = digits.labels < KNOWN
    known, foreign = digits.subset(is_known), digits.subset(~is_known)
    names = digits.class_names
    return (
        dataclasses.replace(known, class_names=names[:KNOWN]),
        dataclasses.replace(foreign, class_names=names[KNOWN:], labels=np.asarray(foreign.labels - KNOWN)),
    )
