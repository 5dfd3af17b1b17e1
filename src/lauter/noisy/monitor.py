"""How good features become while no label teaches them: what the neighbours of hold-out images say."""

import faiss
import numpy as np
from numpy.typing import NDArray

from lauter.data.counters import derive_seed
from lauter.data.dataset import Int64s
from lauter.data.splitting import take_stratified
from lauter.errors import ConfigError, DataError
from lauter.evaluation.metrics import balanced_agreement
from lauter.models import Network, count_flops
from lauter.noisy.beliefs import estimate_prior, vote
from lauter.noisy.correction import propose_labels
from lauter.training.setup import Setup
from lauter.training.stage import Stage

SAMPLE = 5_000
"""At most so many training images vote, and at most so many hold-out images are voted on."""
NEIGHBOURS = 20


class NeighbourMonitor:
    r"""Agreement of the nearest training images with the given labels of the hold-out, every few epochs.

    .. math:: \hat y_q = \arg\max_c \frac{1}{\pi_c} \sum_{i \in N_k(q)} [\tilde y_i = c]

    with the k nearest of the labelled training images by cosine of centred features, and :math:`\pi` their
    class shares, so that rare classes are not outvoted. Its agreement with the given labels is averaged over
    the classes. The hold-out is as noisy as the rest: good features come near one minus the noise rate, not
    near 1.

    It is a number for people: it decides nothing, draws nothing, and leaves the network as it was. What it
    looks at is a stratified part where there are more than ``SAMPLE`` images; each is one forward pass, and
    counted as such.

    Source: the vote of neighbours as a measure of features, Wu et al. (2018), arXiv 1805.01978. Departures:
    given labels, votes of equal weight, class shares taken out.

    Args:
        setup: images, given labels, hold-out.
        network: whose features are looked at.
        every: epochs from one look to the next.

    Raises:
        ConfigError: ``every`` is below 1.
        DataError: the training images or the hold-out have no label at all.
    """

    def __init__(self, setup: Setup, network: Network, every: int) -> None:
        if every < 1:
            raise ConfigError(f"a monitor looks every 1 epoch or more, not every {every}")
        self.setup = setup
        self.network = network
        self.every = every
        self.flops = count_flops(network)
        self.voters = self._choose("training part", setup.train)
        self.asked = self._choose("hold-out", setup.holdout)

    def _choose(self, part: str, rows: Int64s) -> Int64s:
        """The labelled ones of some rows, or a stratified part of them."""
        data = self.setup.data
        labelled = np.asarray(rows[data.labelled[rows]])
        if not len(labelled):
            raise DataError(
                f"features are followed by given labels, and the {part} has none among its {len(rows)} "
                "images; set monitor_every to 0"
            )
        if len(labelled) <= SAMPLE:
            return labelled
        seed = derive_seed(self.setup.loop.seed, "monitor", part)
        return np.asarray(labelled[take_stratified(data.labels[labelled], SAMPLE, seed)])

    def follow(self, stage: Stage, epoch: int) -> dict[str, float]:
        """Look at the features after an epoch, where it is time to.

        Args:
            stage: whose account the passes are put to.
            epoch: which has ended, 0-based.

        Returns:
            ``agreement_with_given``, or nothing after the other epochs.
        """
        if (epoch + 1) % self.every:
            return {}
        rows = np.concatenate([self.voters, self.asked])
        features = self.setup.predict(self.network, rows).features.numpy()
        stage.count(len(rows), self.flops)
        data, bank = self.setup.data, len(self.voters)
        labels = data.labels[self.voters]
        nearest = find_nearest(features[bank:], features[:bank], min(NEIGHBOURS, bank))
        equal = np.ones(bank)
        prior = estimate_prior(labels, equal, data.num_classes)
        voted, _ = propose_labels(vote(nearest, labels, equal, prior), prior)
        return {"agreement_with_given": balanced_agreement(voted, data.labels[self.asked], data.num_classes)}


def find_nearest(queries: NDArray[np.float32], bank: NDArray[np.float32], k: int) -> Int64s:
    """The k rows of a bank that are nearest to each query, by cosine of features centred on the bank's mean.

    Args:
        queries: [Q, D].
        bank: [M, D].
        k: how many; at most M.

    Returns:
        [Q, k] rows of the bank, nearest first.

    Raises:
        ConfigError: the bank has no k rows.
    """
    if not 1 <= k <= len(bank):
        raise ConfigError(f"a bank of {len(bank)} images has no {k} nearest; choose k up to {len(bank)}")
    centre = bank.mean(0)
    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(_scale(bank - centre))
    return np.asarray(index.search(_scale(queries - centre), k)[1], dtype=np.int64)


def _scale(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors at unit length; zero stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)
