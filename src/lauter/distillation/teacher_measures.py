"""What the doctor measures of a teacher: features, input, nearest neighbours, agreement, order of classes."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from scipy.stats import binom
from torch import Tensor

from lauter.data.batches import read_in_order
from lauter.data.dataset import UNLABELLED, Images, Int64s
from lauter.errors import DataError
from lauter.evaluation.metrics import accuracy, balanced_agreement
from lauter.models import Network
from lauter.training.runtime import Runtime

NEIGHBOURS = 20
SHARPNESS = 0.07
"""Temperature of the neighbours' votes."""
RISK = 1e-3
"""How improbable a gain by chance must be before an order of classes is called wrong."""
CHUNK = 1024
"""Images that are compared with all others, or normalised, at a time."""


@dataclass(frozen=True)
class FeatureStatistics:
    """Features at a glance.

    Attributes:
        size: D.
        median_norm: of the images whose features are finite.
        zero_share: of the numbers that are exactly 0; about a half after a ReLU is usual.
        dead: dimensions that are the same for every image.
        broken: images with NaN or infinite features.
    """

    size: int
    median_norm: float
    zero_share: float
    dead: int
    broken: int


@dataclass(frozen=True)
class InputStatistics:
    """Normalised pixels by channel: about mean 0 and standard deviation 1 where the normalisation fits."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Agreement:
    """Share of images whose given label is predicted: of all, and the mean of the shares of each class."""

    plain: float
    balanced: float


@dataclass(frozen=True)
class ClassOrder:
    """Whether a classifier's outputs stand in the order of the data's classes.

    Attributes:
        as_it_stands: balanced agreement with the given labels.
        at_best: the same after the one-to-one reassignment of outputs that agrees most.
        moved: (class of the data, class whose place its output has) of those that gain by it.
        is_off: whether the gain is more than chance can explain.
    """

    as_it_stands: float
    at_best: float
    moved: tuple[tuple[str, str], ...]
    is_off: bool


def describe_features(features: Tensor) -> FeatureStatistics:
    """Statistics of features [M, D]; those of images whose features are not finite are counted, not used.

    Raises:
        DataError: there are no features.
    """
    if features.ndim != 2 or not features.numel():
        raise DataError(f"features must be [M, D] and not empty, not {list(features.shape)}")
    finite = features[features.isfinite().all(1)].float()
    broken = len(features) - len(finite)
    if not len(finite):
        return FeatureStatistics(features.shape[1], float("nan"), float("nan"), 0, broken)
    dead = int((finite.amax(0) == finite.amin(0)).sum())
    norm = float(torch.linalg.vector_norm(finite, dim=1).median())
    return FeatureStatistics(
        features.shape[1], norm, float((finite == 0).double().mean()), dead if len(finite) > 1 else 0, broken
    )


@torch.no_grad()
def measure_input(
    network: Network, images: Images, rows: Int64s, runtime: Runtime, image_size: int
) -> InputStatistics:
    """Mean and standard deviation by channel of images as ``network`` normalises them.

    Args:
        network: on the runtime's device.
        images: pixels.
        rows: which of them.
        runtime: where to compute.
        image_size: side of the pictures handed to the network.

    Raises:
        DataError: there are no rows.
    """
    if not len(rows):
        raise DataError("there are no images to measure the input on")
    sums = torch.zeros(2, 3, dtype=torch.float64)
    count = 0
    for batch in read_in_order(images, rows, CHUNK, image_size, runtime.device, runtime.config.workers):
        pixels = network.normalise(batch.images).transpose(0, 1).flatten(1)
        # Sums of a batch in float32 are exact enough here, and some accelerators have no float64.
        sums += torch.stack([pixels.sum(1), pixels.square().sum(1)]).cpu().double()
        count += pixels.shape[1]
    mean, square = sums / count
    std = (square - mean.square()).clamp(min=0).sqrt()
    return InputStatistics(tuple(mean.tolist()), tuple(std.tolist()))


def vote_by_neighbours(
    queries: Tensor, bank: Tensor, labels: Tensor, num_classes: int, k: int = NEIGHBOURS
) -> Tensor:
    r"""Classify by the k nearest labelled images, by cosine.

    .. math:: \hat y_q = \arg\max_c \sum_{i \in N_k(q)} e^{\cos(f_q, f_i) / 0.07} \, [y_i = c]

    Args:
        queries: [Q, D] features of the images to classify.
        bank: [M, D] features of the images that vote.
        labels: [M] their labels; unlabelled ones (-1) do not vote.
        num_classes: K.
        k: how many neighbours; all where there are fewer.

    Returns:
        [Q] classes.

    Raises:
        DataError: none is labelled.

    Source: Wu, Xiong, Yu and Lin (2018), arXiv 1805.01978, for the weighted vote; k is ours.
    """
    bank, labels = bank[labels != UNLABELLED], labels[labels != UNLABELLED]
    if not len(bank):
        raise DataError("no image has a label, so no neighbour can vote")
    bank = F.normalize(bank.float(), dim=1)
    voted = []
    for chunk in torch.split(queries, CHUNK):
        cosines, nearest = (F.normalize(chunk.float(), dim=1) @ bank.T).topk(min(k, len(bank)), dim=1)
        # Less the largest one, for range alone: factors of a whole row change no winner.
        weights = ((cosines - cosines[:, :1]) / SHARPNESS).exp()
        ballots = weights.new_zeros(len(chunk), num_classes).scatter_add_(1, labels[nearest], weights)
        voted.append(ballots.argmax(1))
    return torch.cat(voted) if voted else labels[:0]


def measure_agreement(predicted: Int64s, given: Int64s, num_classes: int) -> Agreement:
    """Agreement of predicted classes [B] with given labels [B]."""
    return Agreement(
        accuracy(predicted, given, num_classes), balanced_agreement(predicted, given, num_classes)
    )


def bound_chance(given: Int64s, num_classes: int) -> float:
    """Balanced agreement that guessing hardly exceeds: its mean 1 / K' and three standard errors.

    K' counts the classes that occur among the given labels [B]; guesses are uniform over them. It is 1 at
    most: on so few images nothing can be told from guessing.
    """
    counts = np.bincount(given, minlength=num_classes)
    counts = counts[counts > 0]
    hit = 1 / len(counts)
    variance = float((hit * (1 - hit) / counts).sum()) / len(counts) ** 2
    return min(1.0, float(hit + 3 * np.sqrt(variance)))


def match_classes(predicted: Int64s, given: Int64s, class_names: tuple[str, ...]) -> ClassOrder:
    """Look for a reassignment of a classifier's outputs that agrees better with the given labels.

    The best one-to-one assignment of outputs to classes maximises the balanced agreement. On the images that
    it is fitted to it gains something for any classifier. So each half of the images of every class is judged
    by the order fitted to the other half: of the classes that this moves, b images agree after and c before.
    Were neither better, b would be binomial with b + c trials and one half; beyond ``RISK`` the order is off.
    Ours.

    Args:
        predicted: [B] classes that the classifier says.
        given: [B] given labels.
        class_names: K names.

    Returns:
        What was found; agreement and moved classes are those of the order fitted to all images.
    """
    classes = len(class_names)
    half = _alternate(given)
    after = before = 0
    for side in (0, 1):
        order = _fit_order(_count_pairs(predicted[half == side], given[half == side], classes))
        judged, said = given[half != side], predicted[half != side]
        moved = order[judged] != judged
        after += int((said == order[judged])[moved].sum())
        before += int((said == judged)[moved].sum())
    counts = _count_pairs(predicted, given, classes)
    order, own = _fit_order(counts), np.arange(classes)
    support = counts.sum(1)
    shares = (counts / np.maximum(support, 1)[:, None])[support > 0]
    moved_classes = np.flatnonzero(counts[own, order] > counts[own, own])
    return ClassOrder(
        as_it_stands=float(shares[np.arange(len(shares)), own[support > 0]].mean()),
        at_best=float(shares[np.arange(len(shares)), order[support > 0]].mean()),
        moved=tuple((class_names[row], class_names[order[row]]) for row in moved_classes),
        is_off=bool(binom.sf(after - 1, after + before, 0.5) < RISK),
    )


def _alternate(given: Int64s) -> Int64s:
    """0, 1, 0, ... [B] within the images of each class."""
    half = np.zeros_like(given)
    for label in np.unique(given):
        rows = np.flatnonzero(given == label)
        half[rows] = np.arange(len(rows)) % 2
    return half


def _count_pairs(predicted: Int64s, given: Int64s, classes: int) -> Int64s:
    """How often each class is called which, [given, predicted]."""
    return np.bincount(given * classes + predicted, minlength=classes**2).reshape(classes, classes)


def _fit_order(counts: Int64s) -> Int64s:
    """The output [K] for each class that agrees best, classes weighing the same."""
    shares = counts / np.maximum(counts.sum(1), 1)[:, None]
    # The least of weights decides ties, so that no class is moved for nothing.
    own = 1e-9 * np.eye(len(counts))
    return np.asarray(linear_sum_assignment(shares + own, maximize=True)[1], dtype=np.int64)
