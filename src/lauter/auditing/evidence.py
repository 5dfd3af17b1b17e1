r"""Evidence: what is believed of every image, by sources that did not see its own label.

Two sources stand on the features, and the beliefs are their weighted mean:

- the votes of the nearest other images, each voter weighing as much as its own neighbours vote for its label;
- linear heads, each fitted to all folds of the images but one, which say what the images of that one are.

Neither lets an image's label touch what is believed of the image: no image votes for itself, no head is
fitted to the fold that it speaks of, and how much voters and images weigh there is found without the labels
of that fold. What all labels together decide are a few numbers: how many neighbours vote, how strong the
heads' penalty is, how much each source counts, the class shares. These are chosen so that the given labels,
some of them being wrong, are most likely (``noisy/likelihood.py``).

Instead of features there may be predictions of any other model. They are taken as they are, and must be
out-of-fold: predictions of a model that was fitted to the labels themselves agree with them, wrong or not.
"""

import time
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lauter.auditing.sources import Given, Source, draw_scored, join_sources, weigh_sources
from lauter.auditing.voting import Votes, count_votes
from lauter.data.dataset import UNLABELLED, Int64s
from lauter.errors import ConfigError, DataError
from lauter.noisy.axes import find_axes
from lauter.noisy.beliefs import Floats, estimate_prior
from lauter.noisy.heads import Heads, draw_folds, fit_heads
from lauter.noisy.neighbours import Report, search_neighbours
from lauter.noisy.top_beliefs import TopBeliefs, find_best, iterate_blocks

FOLDS = 5
"""Folds of the heads, where a step of their fit costs little; else 2."""

_CHEAP_STEP = 3e11  # operations of one step of the fit
_BLOCK = 16_384  # rows of features looked at together
_SUM_TOLERANCE = 1e-2


@dataclass(frozen=True)
class EvidenceConfig:
    """Where beliefs come from.

    Attributes:
        sources: both (their weighted mean), votes (of the neighbours) or head (the linear heads).
        neighbours: how many vote at most; never more than a tenth of the images.
        rounds: how often voters are weighed by what their own neighbours say of their labels, at most; 0 lets
            all weigh the same. Of more than some 33 million beliefs, images times classes, one round is all.
        folds: into how many parts images are divided for the heads; 0 takes 5, or 2 where a step of the fit
            would take long.
        strength: of the heads' penalty, in units of images; 0 chooses it.
        choose: whether the number of neighbours and of rounds, whether images teach the heads as much as
            their neighbours vote for their labels, and the weights of the sources are chosen. Else these are
            ``neighbours``, ``rounds``, no, and equal.
        recall: share of the true neighbours to be found where there are too many images to compare all.
    """

    sources: Literal["both", "votes", "head"] = "both"
    neighbours: int = 50
    rounds: int = 2
    folds: int = 0
    strength: float = 0.0
    choose: bool = True
    recall: float = 0.95

    def __post_init__(self) -> None:
        if self.sources not in ("both", "votes", "head"):
            raise ConfigError(f"evidence sources must be both, votes or head, not {self.sources!r}")
        if self.neighbours < 1 or self.rounds < 0:
            raise ConfigError(
                f"evidence needs neighbours of 1 or more and rounds of 0 or more, "
                f"not {self.neighbours} and {self.rounds}"
            )
        if self.folds < 0 or self.folds == 1:
            raise ConfigError(f"evidence folds must be 2 or more, or 0 to choose, not {self.folds}")
        if not self.strength >= 0:
            raise ConfigError(f"evidence strength must be 0 (chosen) or more, not {self.strength}")
        if not 0 < self.recall <= 1:
            raise ConfigError(f"evidence recall must be in (0, 1], not {self.recall}")


@dataclass(frozen=True)
class NeighbourSummary:
    """How neighbours were found.

    Attributes:
        count: how many vote for each image.
        recall: share of the true neighbours among those found; 1 where all pairs were compared.
    """

    count: int
    recall: float


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is believed of N images about K classes, out of fold.

    Attributes:
        beliefs: under the training prior.
        prior: [K] class shares, every label weighing as much as it is trusted.
        votes: what the neighbours say; None where they were not asked.
        predictions: what the heads, or the given probabilities, say; None where there are none.
        nearness: [N] mean cosine between an image and its neighbours; None where they were not searched.
        neighbours: how they were found, likewise.
        heads: the fitted heads, for other images; None where there are none.
        seconds: wall-clock by part.
        shares: weight of each source in the beliefs, by its name: votes, predictions.
    """

    beliefs: TopBeliefs
    prior: Floats
    votes: TopBeliefs | None
    predictions: TopBeliefs | None
    nearness: Floats | None
    neighbours: NeighbourSummary | None
    heads: Heads | None
    seconds: dict[str, float]
    shares: dict[str, float] = field(default_factory=dict)

    def find_agreement(self) -> NDArray[np.bool_]:
        """[N] whether votes and predictions name the same class; true everywhere with one source alone."""
        if self.votes is None or self.predictions is None:
            return np.ones(len(self.beliefs), dtype=bool)
        by_votes, _ = find_best(self.votes, self.prior)
        return np.asarray(find_best(self.predictions, self.prior)[0] == by_votes)


def gather_evidence(
    features: NDArray[Any] | None,
    labels: Int64s,
    num_classes: int,
    config: EvidenceConfig | None = None,
    generator: np.random.Generator | None = None,
    *,
    probabilities: NDArray[Any] | None = None,
    report: Report | None = None,
) -> Evidence:
    """Find out what is believed of every image, its own label aside.

    Args:
        features: [N, D] float16 or float32, of any network that did not see the labels; may be mapped from
            disk, and is then read in blocks. None where there are probabilities alone.
        labels: [N] given labels, -1 where there is none. Images without one are believed something too, but
            neither vote nor teach.
        num_classes: K.
        config: where the beliefs come from.
        generator: draws folds, and samples where there are many images; by default that of seed 0.
        probabilities: [N, K] out-of-fold predictions of another model, under the training prior: they take
            the place of the heads. With features beside them neighbours vote as well; without, they are the
            beliefs.
        report: called as it goes on, with the names neighbours, axes, heads and beliefs.

    Returns:
        The evidence. Of many images and classes the beliefs are the largest ones.

    Raises:
        DataError: shapes do not fit, features or probabilities are not finite (the first such row is named),
            probabilities are not distributions, or there are not two labelled images.
        ConfigError: there is neither of the two, or what is given cannot be a source that is asked for.

    Source: ours; neighbours' votes and a linear head on frozen features are common to the field.
    """
    config = config or EvidenceConfig()
    generator = generator or np.random.default_rng(0)
    check_labels(labels, num_classes)
    asked = _choose_sources(config, features, probabilities)
    if features is not None:
        check_features(features, len(labels))
    if probabilities is not None:
        check_probabilities(probabilities, len(labels), num_classes)
    clock = _Clock()
    folds = _draw_folds(config, features, labels, num_classes, generator)
    shown = draw_scored(labels, num_classes, generator)
    sources: dict[str, Source] = {}
    near, trust, heads = None, None, None
    if features is not None and asked != "head":
        most = max(1, min(config.neighbours, len(labels) // 10))
        near = search_neighbours(features, most, generator, recall=config.recall, report=report)
        clock.stop("neighbours")
        votes, trust = count_votes(
            Votes.start(near.rows, labels, folds, num_classes), shown, config.rounds, config.choose
        )
        sources["votes"] = votes
        clock.stop("votes")
    if probabilities is not None:
        sources["predictions"] = Given(probabilities)
    elif features is not None and asked != "votes":
        axes = find_axes(features, folds, report)
        clock.stop("axes")
        sources["predictions"] = heads = fit_heads(
            axes,
            labels,
            num_classes,
            weights=trust if config.choose else None,
            strength=config.strength,
            generator=generator,
            report=report,
        )
        clock.stop("heads")
    shares = weigh_sources(sources, labels, shown, num_classes, config.choose)
    said = join_sources(sources, shares, labels, num_classes, report)
    clock.stop("beliefs")
    believed = np.ones(len(labels)) if trust is None else trust.mean(0, dtype=np.float64)
    return Evidence(
        beliefs=said["beliefs"],
        prior=estimate_prior(labels, believed, num_classes),
        votes=said.get("votes"),
        predictions=said.get("predictions"),
        nearness=None if near is None else near.cosines.mean(1, dtype=np.float64),
        neighbours=None if near is None else NeighbourSummary(votes.rows.shape[1], near.recall),
        heads=heads,
        seconds=clock.seconds,
        shares=shares,
    )


def check_labels(labels: Int64s, num_classes: int) -> None:
    """Check that there are labels to judge and to learn from.

    Raises:
        DataError: they are no integers [N] in -1..K-1, or fewer than two images have one.
    """
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels must be integers [N], not {labels.dtype} {list(labels.shape)}")
    if num_classes < 2:
        raise DataError(f"an audit needs two classes or more, not {num_classes}")
    if len(labels) and (labels.min() < UNLABELLED or labels.max() >= num_classes):
        raise DataError(
            f"labels must be in -1..{num_classes - 1} for {num_classes} classes, "
            f"found {labels.min()}..{labels.max()}"
        )
    if (known := int((labels != UNLABELLED).sum())) < 2:
        raise DataError(
            f"an audit compares labelled images with each other; there must be 2 or more, not {known}"
        )


def check_features(features: NDArray[Any], count: int) -> None:
    """Check features in blocks.

    Raises:
        DataError: they are not floats [N, D], or not finite; names the first row that is not.
    """
    if features.ndim != 2 or len(features) != count or not features.shape[1]:
        raise DataError(f"features must be [N, D] for {count} labels, not {list(features.shape)}")
    if features.dtype not in (np.float16, np.float32, np.float64):
        raise DataError(f"features must be floating point numbers, not {features.dtype}")
    for start in range(0, count, _BLOCK):
        broken = np.flatnonzero(~np.isfinite(features[start : start + _BLOCK]).all(1))
        if len(broken):
            raise DataError(
                f"the features of image {start + broken[0]} are not finite; leave it out, or compute them "
                "again in float32"
            )


def check_probabilities(probabilities: NDArray[Any], count: int, num_classes: int) -> None:
    """Check probabilities in blocks.

    Raises:
        DataError: they are not [N, K], not finite, negative, or do not sum to 1; names the first such row.
    """
    if probabilities.shape != (count, num_classes):
        raise DataError(
            f"probabilities must be [N, K] for {count} labels and {num_classes} classes, "
            f"not {list(probabilities.shape)}"
        )
    for block in iterate_blocks(count, num_classes):
        taken = np.asarray(probabilities[block], dtype=np.float64)
        sums = taken.sum(1)
        fine = np.isfinite(taken).all(1) & (taken >= 0).all(1) & (abs(sums - 1) <= _SUM_TOLERANCE)
        if not fine.all():
            row = int(np.flatnonzero(~fine)[0])
            raise DataError(
                f"the probabilities of image {block.start + row} are no distribution (their sum is "
                f"{sums[row]:g}, the least {taken[row].min():g}); hand over softmax outputs, not logits"
            )


def _choose_sources(
    config: EvidenceConfig, features: NDArray[Any] | None, probabilities: NDArray[Any] | None
) -> str:
    """Which sources there will be: both, votes or head."""
    if features is None and probabilities is None:
        raise ConfigError("evidence needs features or probabilities, and there are neither")
    if features is None and config.sources == "votes":
        raise ConfigError(
            "neighbours can vote only where there are features; give features, or choose another source"
        )
    return "head" if features is None else config.sources


def _draw_folds(
    config: EvidenceConfig,
    features: NDArray[Any] | None,
    labels: Int64s,
    num_classes: int,
    generator: np.random.Generator,
) -> Int64s:
    """Folds of all images, as many as there may be."""
    count = config.folds
    if not count:
        step = 0.0 if features is None else 4.0 * features.size * num_classes * (FOLDS - 1)
        count = FOLDS if step <= _CHEAP_STEP else 2
    known = int((labels != UNLABELLED).sum())
    return draw_folds(labels, max(2, min(count, known)), generator)


class _Clock:
    """Wall-clock of parts that follow each other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.monotonic()

    def stop(self, part: str) -> None:
        """What has passed since the last part belongs to this one."""
        now = time.monotonic()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._began
        self._began = now
