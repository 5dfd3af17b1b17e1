"""Beliefs from robust training: two networks, each trained on one half of the labels, judge the other half.

The noisy recipe judges labels while it learns from them, so a network comes to believe what it was taught.
Here the labels are split into two folds. A network that learns from one fold treats the other as its
hold-out: it predicts those images after every epoch and lets their neighbours among its own fold vote, and
no label of the other fold teaches, votes or sets a threshold. Self-supervised pretraining sees all images and
no label, so both networks begin with the same one. It costs one pretraining and one training, each image
being learnt from once in an epoch. Ours.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lauter.data.counters import derive_seed
from lauter.data.dataset import Int64s
from lauter.data.splitting import split_folds
from lauter.models import Network
from lauter.noisy.beliefs import Floats
from lauter.noisy.recipe import NoisyConfig, pretrain, train_robustly
from lauter.training.setup import Setup

FOLDS = 2


@dataclass(frozen=True, eq=False)
class TrainedBeliefs:
    """What two networks believe of the images whose labels they did not learn.

    Attributes:
        beliefs: [N, K] distributions under the training prior; of unlabelled images both networks' mean.
        prior: [K] class shares of what was taught.
        features: float32 [N, D] of the first network, for neighbours and maps.
        fold: [N] which fold each label is in; -1 for unlabelled images.
    """

    beliefs: Floats
    prior: Floats
    features: NDArray[np.float32]
    fold: Int64s


def believe_by_training(setup: Setup, build: Callable[[], Network], config: NoisyConfig) -> TrainedBeliefs:
    """Judge every label by a network that was robustly trained without it.

    Args:
        setup: images and given labels. All of its rows are dealt out: its own training part and hold-out are
            not looked at.
        build: makes the network, with the same weights whenever it is called.
        config: the noisy recipe.

    Returns:
        Beliefs about all images. Both trainings are stages of the setup's loop, so they resume and are
        counted as cost.

    Raises:
        ConfigError: there are fewer than two labelled images.
    """
    data = setup.data
    labelled = np.flatnonzero(data.labelled)
    generator = np.random.default_rng(derive_seed(setup.loop.seed, "audit folds"))
    fold: Int64s = np.full(len(data), -1, dtype=np.int64)
    fold[labelled] = split_folds(data.labels[labelled], FOLDS, generator)
    started = build()
    # All images are learnt from; the folds only serve those who follow the features by given labels.
    halves = replace(setup, train=np.flatnonzero(fold != 0), holdout=np.flatnonzero(fold == 0))
    pretrain(halves, started, config.pretrain)
    # A warm-up that listens to the hold-out would listen to the labels that are judged.
    warmup = replace(config.warmup, patience=0)
    recipe = replace(config, pretrain=replace(config.pretrain, method="none"), warmup=warmup)
    beliefs = np.zeros((len(data), data.num_classes))
    prior = np.zeros(data.num_classes)
    features = np.zeros((len(data), started.feature_size), dtype=np.float32)
    for number in range(FOLDS):
        held = np.flatnonzero(fold == number)
        half = replace(setup, train=np.flatnonzero(fold != number), holdout=held)
        network = copy.deepcopy(started)
        judge = train_robustly(half, network, recipe, prefix=f"fold{number}-").judge
        beliefs[held] = judge.beliefs[held]
        beliefs[fold < 0] += judge.beliefs[fold < 0] / FOLDS
        prior += judge.prior / FOLDS
        if number == 0:
            features = setup.predict(network).features.numpy()
    return TrainedBeliefs(beliefs, prior, features, fold)
