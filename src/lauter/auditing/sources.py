"""Sources of beliefs: what is asked of them, what they weigh, and the mean of them."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lauter.data.dataset import UNLABELLED, Int64s
from lauter.noisy.beliefs import Floats
from lauter.noisy.likelihood import score_under_noise, share_labels
from lauter.noisy.neighbours import Report
from lauter.noisy.top_beliefs import TopBeliefs, choose_depth, iterate_blocks

_SHARES = tuple(tenths / 10 for tenths in range(11))  # of the votes, likewise
_SCORED_ENTRIES = 2**23  # beliefs by which settings are compared
_SCORED_ROWS = 20_000  # images, likewise


class Source(Protocol):
    """Anything that says what images are."""

    def predict(self, rows: Int64s) -> NDArray[Any]:
        """Probabilities [B, K] for the images ``rows``."""
        ...


@dataclass(frozen=True, eq=False)
class Given:
    """Predictions of another model, as a source.

    Attributes:
        probabilities: [N, K].
    """

    probabilities: NDArray[Any]

    def predict(self, rows: Int64s) -> Floats:
        """Probabilities [B, K] for the images ``rows``."""
        taken = np.asarray(self.probabilities[rows], dtype=np.float64)
        return np.asarray(taken / taken.sum(1, keepdims=True))


def join_sources(
    sources: dict[str, Source],
    shares: dict[str, float],
    labels: Int64s,
    num_classes: int,
    report: Report | None = None,
) -> dict[str, TopBeliefs]:
    """Beliefs of every source, by its name, and their weighted mean as ``beliefs``."""
    count = len(labels)
    depth = choose_depth(count, num_classes)
    parts: dict[str, list[TopBeliefs]] = {name: [] for name in (*sources, "beliefs")}
    for block in iterate_blocks(count, num_classes):
        rows = np.arange(block.start, block.stop)
        total = np.zeros((len(rows), num_classes))
        for name, source in sources.items():
            said = source.predict(rows)
            total += shares[name] * said
            parts[name].append(TopBeliefs.from_dense(said, labels[block], depth))
        parts["beliefs"].append(TopBeliefs.from_dense(total, labels[block], depth))
        if report is not None:
            report("beliefs", block.stop / count)
    return {name: TopBeliefs.join(blocks) for name, blocks in parts.items()}


def draw_scored(labels: Int64s, num_classes: int, generator: np.random.Generator) -> Int64s:
    """Labelled images by which settings are compared."""
    known = np.flatnonzero(labels != UNLABELLED)
    most = max(100, min(_SCORED_ROWS, _SCORED_ENTRIES // num_classes))
    return known if len(known) <= most else np.sort(generator.choice(known, most, replace=False))


def find_own(source: Source, labels: Int64s, rows: Int64s) -> Floats:
    """What a source believes of the given labels of some images."""
    return np.asarray(source.predict(rows)[np.arange(len(rows)), labels[rows]], dtype=np.float64)


def weigh_sources(
    sources: dict[str, Source], labels: Int64s, shown: Int64s, num_classes: int, choose: bool
) -> dict[str, float]:
    """The weights of the sources under which the given labels, some being wrong, are most likely."""
    if len(sources) == 1 or not choose:
        return dict.fromkeys(sources, 1 / len(sources))
    votes, others = (find_own(source, labels, shown) for source in sources.values())
    given = share_labels(labels, num_classes)[labels[shown]]
    scores = [score_under_noise(share * votes + (1 - share) * others, given)[0] for share in _SHARES]
    share = _SHARES[int(np.argmax(scores))]
    return dict(zip(sources, (share, 1 - share), strict=True))
