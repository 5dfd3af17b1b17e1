"""Beliefs: for each image a distribution over classes, from sources that its own label cannot sway much.

Two sources and their mean: what the network said over the epochs (an image that is learnt late or by heart
keeps a low ensemble), and what the labels of the nearest neighbours say (its own label has no vote).
All formulas here are ours.
"""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from lauter.data.dataset import UNLABELLED, Int64s
from lauter.errors import ConfigError

Floats = NDArray[np.float64]
EXACT_LIMIT = 200_000
"""Up to so many images neighbours are searched exactly; beyond, in an inverted file."""


def find_neighbours(features: NDArray[np.float32], k: int) -> Int64s:
    """The k nearest other images by cosine of centred features.

    Args:
        features: [N, D].
        k: how many; at most N - 1.

    Returns:
        [N, k] rows, nearest first, never the image itself.
    """
    count = len(features)
    if not 1 <= k < count:
        raise ConfigError(f"{count} images have no {k} neighbours each; choose k between 1 and {count - 1}")
    vectors = np.ascontiguousarray(features - features.mean(0), dtype=np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    index = _make_index(vectors)
    index.add(vectors)
    found = np.asarray(index.search(vectors, k + 1)[1], dtype=np.int64)
    others = found != np.arange(count)[:, None]
    others[others.all(1), -1] = False  # a twin took the image's own place: leave out the farthest
    return np.asarray(found[others].reshape(count, k))


def _make_index(vectors: NDArray[np.float32]) -> Any:
    count, size = vectors.shape
    exact = faiss.IndexFlatIP(size)
    if count <= EXACT_LIMIT:
        return exact
    cells = int(4 * np.sqrt(count))
    index = faiss.IndexIVFFlat(exact, size, cells, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[:: max(1, count // (64 * cells))])
    index.nprobe = max(8, cells // 64)
    return index


def vote(
    neighbours: Int64s, labels: Int64s, weights: Floats, prior: Floats, *, smoothing: float = 0.01
) -> Floats:
    r"""What the neighbours' labels say: a weighted share per class, drawn a little to the prior.

    .. math:: p_{ik} \propto \sum_{j \in N(i)} w_j [\tilde y_j = k] + s \, |N(i)| \, \pi_k

    Args:
        neighbours: [N, k] rows.
        labels: [N] given labels; unlabelled neighbours do not vote.
        weights: [N] how far each image's label is believed.
        prior: [K] class shares.
        smoothing: s, the weight of the prior in units of one full round of votes.

    Returns:
        [N, K], rows sum to 1.
    """
    classes = len(prior)
    ballots = np.where(labels == UNLABELLED, 0.0, weights)[neighbours]
    voted = np.where(labels == UNLABELLED, 0, labels)[neighbours]
    rows = np.arange(len(neighbours))[:, None] * classes
    counts = np.bincount((rows + voted).ravel(), ballots.ravel(), minlength=len(neighbours) * classes)
    shares = counts.reshape(-1, classes) + smoothing * neighbours.shape[1] * prior
    return np.asarray(shares / shares.sum(1, keepdims=True))


def estimate_prior(labels: Int64s, weights: Floats, num_classes: int) -> Floats:
    """Class shares [K] of weighted labels, each class counted half an image more, so that none is 0."""
    known = labels != UNLABELLED
    counts = np.bincount(labels[known], weights[known], minlength=num_classes) + 0.5
    return np.asarray(counts / counts.sum())


def take_out_prior(beliefs: Floats, prior: Floats) -> Floats:
    r"""Beliefs as they would be if all classes were equally frequent.

    .. math:: \bar p_{ik} = \frac{p_{ik} / \pi_k}{\sum_l p_{il} / \pi_l}

    So frequent classes do not swallow rare ones where classes are compared.

    Args:
        beliefs: [N, K] under the training prior.
        prior: [K] class shares, positive.

    Returns:
        [N, K], rows sum to 1.

    Example:
        >>> take_out_prior(np.array([[0.6, 0.4]]), np.array([0.75, 0.25]))
        array([[0.33333333, 0.66666667]])
    """
    balanced = beliefs / prior
    return np.asarray(balanced / balanced.sum(1, keepdims=True))


class EpochEnsemble:
    r"""Running mean of a network's predicted probabilities over epochs.

    .. math:: q_i \leftarrow m_i q_i + (1 - m_i) p_i, \qquad m_i = \min(m, 1 - 1 / n_i)

    where n_i counts the predictions of image i, so that the first ones are averaged plainly.

    Args:
        size: N.
        num_classes: K.
        momentum: m.
    """

    def __init__(self, size: int, num_classes: int, momentum: float) -> None:
        if not 0 <= momentum < 1:
            raise ConfigError(f"ensemble momentum must be in [0, 1), not {momentum}")
        self.momentum = momentum
        self.probabilities: Floats = np.full((size, num_classes), 1 / num_classes)
        self.seen: Int64s = np.zeros(size, dtype=np.int64)

    def update(self, index: Int64s, probabilities: Floats) -> None:
        """Take in new predictions [B, K] for the rows ``index``."""
        self.seen[index] += 1
        keep = np.minimum(self.momentum, 1 - 1 / self.seen[index])[:, None]
        self.probabilities[index] = keep * self.probabilities[index] + (1 - keep) * probabilities
