"""Votes of neighbours: how many vote, and how much each counts, without a label's say in its own case."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lauter.auditing.sources import find_own
from lauter.data.dataset import UNLABELLED, Int64s
from lauter.noisy.beliefs import Floats, estimate_prior, vote
from lauter.noisy.likelihood import score_under_noise, share_labels
from lauter.noisy.top_beliefs import DENSE_ENTRIES, iterate_blocks

_COUNTS = (5, 10, 20, 35, 50, 75, 100)  # numbers of neighbours that are compared


@dataclass(frozen=True, eq=False)
class Votes:
    """What neighbours say, as a source.

    Attributes:
        rows: [N, k] neighbours, never the image itself.
        labels: [N] given labels, -1 where there is none.
        folds: [N] fold of each image.
        trust: [F, N] how much each image's vote counts for images of each fold.
        num_classes: K.
    """

    rows: NDArray[np.int32]
    labels: Int64s
    folds: Int64s
    trust: Floats
    num_classes: int

    @classmethod
    def start(cls, rows: NDArray[np.int32], labels: Int64s, folds: Int64s, num_classes: int) -> "Votes":
        """Votes that all weigh the same; unlabelled images have none."""
        voters = (labels != UNLABELLED).astype(np.float64)
        return cls(rows, labels, folds, np.tile(voters, (int(folds.max()) + 1, 1)), num_classes)

    def nearest(self, count: int) -> "Votes":
        """The same with so many of the nearest neighbours."""
        return replace(self, rows=self.rows[:, :count])

    def predict(self, rows: Int64s) -> Floats:
        """Probabilities [B, K] for the images ``rows``."""
        said = np.empty((len(rows), self.num_classes))
        for fold, trust in enumerate(self.trust):
            own = self.folds[rows] == fold
            said[own] = self._ask(self.rows[rows[own]], fold, trust)
        return said

    def weigh(self) -> "Votes":
        r"""Weigh every voter by what its own neighbours say of its label.

        .. math:: w_j = \frac{v_j[\tilde y_j]}{\max_k v_j[k]}

        with v the votes of j's neighbours, weighing what they do so far. For images of a fold all of it is
        done without the labels of that fold, so that no label comes back to its image through its neighbours'
        neighbours.
        """
        trust = np.zeros_like(self.trust)
        for fold, (outside, before) in enumerate(zip(self._hide_folds(), self.trust, strict=True)):
            hidden = replace(self, labels=outside)
            for block in iterate_blocks(len(self.labels), self.num_classes + self.rows.shape[1]):
                said, given = hidden._ask(self.rows[block], fold, before), self.labels[block]
                own = said[np.arange(len(said)), np.maximum(given, 0)]
                trust[fold, block] = np.where(given == UNLABELLED, 0, own / said.max(1))
        return replace(self, trust=trust)

    def _ask(self, rows: NDArray[np.int32], fold: int, trust: Floats) -> Floats:
        outside = np.where(self.folds == fold, UNLABELLED, self.labels)
        prior = estimate_prior(outside, trust, self.num_classes)
        return vote(rows.astype(np.int64), self.labels, trust, prior)

    def _hide_folds(self) -> Iterator[Int64s]:
        """The labels as they are for images of each fold: without those of that fold."""
        for fold in range(len(self.trust)):
            yield np.where(self.folds == fold, UNLABELLED, self.labels)


def count_votes(votes: Votes, shown: Int64s, rounds: int, choose: bool) -> tuple[Votes, Floats]:
    """Votes in the chosen number and after the chosen rounds; and how much images may teach by them."""
    if len(votes.labels) * votes.num_classes > DENSE_ENTRIES:
        rounds = min(rounds, 1)  # a round over a million images and a thousand classes takes half a minute
    if not choose:
        for _ in range(rounds):
            votes = votes.weigh()
        return votes, votes.trust
    tried = [votes.nearest(count) for count in _COUNTS if count < votes.rows.shape[1]]
    votes, best = _choose_best([votes, *tried], shown)
    trust, latest = votes.trust, votes
    for number in range(rounds):
        latest = latest.weigh()
        trust = latest.trust if number == 0 else trust
        (score,) = _score_all([latest], shown)
        if score <= best:
            break
        votes, best, trust = latest, score, latest.trust
    return votes, trust


def _choose_best(tried: Sequence[Votes], shown: Int64s) -> tuple[Votes, float]:
    scores = _score_all(tried, shown)
    best = int(np.argmax(scores))
    return tried[best], scores[best]


def _score_all(tried: Sequence[Votes], shown: Int64s) -> list[float]:
    """How likely the given labels are under votes, some labels being wrong."""
    given = tried[0].labels
    shares = share_labels(given, tried[0].num_classes)[given[shown]]
    return [score_under_noise(find_own(votes, given, shown), shares)[0] for votes in tried]
