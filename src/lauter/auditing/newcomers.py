r"""Newcomers: labelled examples that were not in an audit, judged by what the audit found of the others.

A newcomer cannot have swayed anything, so all audited examples speak of it: the nearest of them vote, each as
much as its own label is probably right, and so do the linear heads. How probably its label is right is read
off the audited examples, by the margin of what is believed

.. math:: s_i = \log p_i[\tilde y_i] - \log \max_{k \ne \tilde y_i} p_i[k]

of which :math:`P(\text{right} \mid s)` is the closest increasing function, for each given class drawn to the
one of all classes. How probably the best other class is right where the label is not is read off in the same
way, by the belief in it, and so are the bounds of the verdicts: what was sure enough in the audit is sure
enough now. So each newcomer is judged by itself, whichever others come along with it.

All of it is ours; the closest increasing function is isotonic regression.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from lauter.auditing.evidence import Evidence, check_features, check_probabilities
from lauter.auditing.judgement import Judgement
from lauter.data.dataset import UNLABELLED, Int64s
from lauter.errors import ConfigError, DataError
from lauter.noisy.beliefs import Floats, vote
from lauter.noisy.heads import Heads
from lauter.noisy.top_beliefs import TopBeliefs

POOLING = 50.0
"""Examples by which a class's curve is drawn to that of all classes."""

_FEWEST = 10  # examples that are not kept, from which it is read off how probably a suggestion is right
_BLOCK = 2048  # newcomers that are compared with all audited examples together
_TINY = 1e-6  # beliefs below are all the same


@dataclass(frozen=True, eq=False)
class Curve:
    """An increasing function, constant beyond its ends.

    Attributes:
        at: [M] where it is known, ascending.
        values: [M].
    """

    at: Floats
    values: Floats

    def __call__(self, at: Floats) -> Floats:
        """Its values between the known places, linearly."""
        return np.asarray(np.interp(at, self.at, self.values))


@dataclass(frozen=True, eq=False)
class Voters:
    """Audited examples as neighbours of newcomers.

    Attributes:
        mean: [D] of their features.
        directions: float32 [N, D] from the mean, of length 1.
        labels: [N] given labels.
        trust: [N] how much each label counts.
        count: how many vote.
    """

    mean: NDArray[np.float32]
    directions: NDArray[np.float32]
    labels: Int64s
    trust: Floats
    count: int


@dataclass(frozen=True, eq=False)
class Reference:
    """What an audit leaves for newcomers.

    Attributes:
        num_classes: K.
        prior: [K] class shares of the audited labels.
        voters: None where the neighbours were not asked.
        heads: None where there are none.
        by_probabilities: whether another model's probabilities are a source.
        shares: what votes and predictions weigh in the beliefs.
        right: [K] probability that a label is right by the margin, for each given class.
        suggested_right: probability that the best other class is right by the belief in it, where the label
            is not kept; None where the audit had too few such examples.
        flag_below: labels with this probability of being right, or less, are not kept.
        relabel_above: suggestions with this probability, or more, take the label's place.
        drop_above: labels that are wrong with this probability, or more, are dropped where none does.
    """

    num_classes: int
    prior: Floats
    voters: Voters | None
    heads: Heads | None
    by_probabilities: bool
    shares: Mapping[str, float]
    right: tuple[Curve, ...]
    suggested_right: Curve | None
    flag_below: float
    relabel_above: float
    drop_above: float

    def believe(self, features: NDArray[Any] | None, probabilities: NDArray[Any] | None = None) -> Floats:
        """What is believed of newcomers under the prior of the audit.

        Args:
            features: [B, D] as the audited ones; None where the audit had none.
            probabilities: [B, K], where the audit had probabilities of another model.

        Returns:
            [B, K], rows sum to 1.

        Raises:
            DataError: they have another form than the audited ones, or are not finite.
            ConfigError: the audit had features or probabilities, and there are none, or the other way round.
        """
        sources: list[tuple[float, Floats]] = []
        _require(features, self.voters is not None or self.heads is not None, "features")
        _require(probabilities, self.by_probabilities, "probabilities")
        if features is not None:
            check_features(features, len(features))
            size = self._feature_size()
            if features.shape[1] != size:
                raise DataError(f"the audit was of {size} features, these are {features.shape[1]}")
        if self.voters is not None and features is not None:
            sources.append((self.shares["votes"], _ask_voters(self.voters, features, self.prior)))
        if self.heads is not None and features is not None:
            said = self.heads.predict_new(features).astype(np.float64)
            sources.append((self.shares["predictions"], said / said.sum(1, keepdims=True)))
        if probabilities is not None:
            check_probabilities(probabilities, len(probabilities), self.num_classes)
            said = np.asarray(probabilities, dtype=np.float64)
            sources.append((self.shares["predictions"], said / said.sum(1, keepdims=True)))
        beliefs = sum(share * said for share, said in sources)
        return np.asarray(beliefs / sum(share for share, _ in sources))

    def judge(self, beliefs: Floats, labels: Int64s) -> "Verdicts":
        """Judge the labels of newcomers, each by itself.

        Args:
            beliefs: [B, K] of :meth:`believe`.
            labels: [B] their given labels, -1 where there is none.
        """
        known = labels != UNLABELLED
        top = TopBeliefs.from_dense(beliefs, labels, self.num_classes)
        other, confidence = pick_others(top, labels)
        margins = measure_margins(top, labels)
        p_right = np.full(len(labels), np.nan)
        for label in np.unique(labels[known]).tolist():
            rows = labels == label
            p_right[rows] = self.right[label](margins[rows])
        kept = known & (p_right > self.flag_below)
        p_other = np.zeros(len(labels))
        if self.suggested_right is not None:
            p_other = np.minimum(self.suggested_right(confidence), np.where(known, 1 - p_right, 1.0))
        verdicts = np.full(len(labels), "ask", dtype="<U10")
        verdicts[known & (1 - p_right >= self.drop_above)] = "drop"
        verdicts[p_other >= self.relabel_above] = "relabel"
        verdicts[kept] = "keep"
        suggested = np.where(kept, labels, other)
        return Verdicts(verdicts, suggested, p_right, np.where(kept, p_right, p_other))

    def _feature_size(self) -> int:
        if self.voters is not None:
            return len(self.voters.mean)
        return len(self.heads.axes.mean) if self.heads is not None else 0


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What is said of B newcomers.

    Attributes:
        verdicts: [B] keep, relabel, drop or ask.
        suggested: [B] the class that fits best; the given one where the label is kept.
        p_given_right: [B] probability that the given label is right; NaN where there is none.
        p_suggested_right: [B] probability that the suggested label is right.
    """

    verdicts: NDArray[np.str_]
    suggested: Int64s
    p_given_right: Floats
    p_suggested_right: Floats


def make_reference(
    features: NDArray[Any] | None,
    labels: Int64s,
    evidence: Evidence,
    judgement: Judgement,
    precision: float,
) -> Reference:
    """Keep of an audit what newcomers are judged by.

    Args:
        features: [N, D] of the audited examples, or None.
        labels: [N] their given labels, -1 where there is none.
        evidence: what is believed of them.
        judgement: what was found.
        precision: that the judgement was made with: the bound of verdicts that it did not give.
    """
    known = labels != UNLABELLED
    voters = None
    if evidence.votes is not None and evidence.neighbours is not None and features is not None:
        mean = np.asarray(features, dtype=np.float32).mean(0, dtype=np.float64).astype(np.float32)
        trust = np.where(known, np.nan_to_num(judgement.p_given_right), 0.0)
        voters = Voters(mean, _direct(features, mean), labels, trust, evidence.neighbours.count)
    _, confidence = pick_others(evidence.beliefs, labels)
    unkept = judgement.verdicts != "keep"
    suggested_right = None
    if unkept.sum() >= _FEWEST:
        suggested_right = _fit_curve(confidence[unkept], judgement.p_suggested_right[unkept])
    flagged = judgement.p_given_right[known & unkept]
    relabelled = judgement.p_suggested_right[known & (judgement.verdicts == "relabel")]
    dropped = judgement.p_given_right[known & (judgement.verdicts == "drop")]
    return Reference(
        evidence.beliefs.num_classes,
        evidence.prior,
        voters,
        evidence.heads,
        evidence.heads is None and evidence.predictions is not None,
        evidence.shares,
        _fit_class_curves(
            measure_margins(evidence.beliefs, labels)[known],
            judgement.p_given_right[known],
            labels[known],
            evidence.beliefs.num_classes,
        ),
        suggested_right,
        float(flagged.max()) if len(flagged) else -np.inf,
        float(relabelled.min()) if len(relabelled) else precision,
        1 - float(dropped.max()) if len(dropped) else precision,
    )


def pick_others(beliefs: TopBeliefs, labels: Int64s) -> tuple[Int64s, Floats]:
    """The class [N] that is believed most, the given one aside, and the belief in it [N]."""
    first = beliefs.classes[:, 0] != labels
    classes = np.where(first, beliefs.classes[:, 0], beliefs.classes[:, 1])
    return classes.astype(np.int64), np.where(first, beliefs.probs[:, 0], beliefs.probs[:, 1]).astype(
        np.float64
    )


def measure_margins(beliefs: TopBeliefs, labels: Int64s) -> Floats:
    """The margins s [N] of given labels over the best other class; 0 where there is no label."""
    _, others = pick_others(beliefs, labels)
    margins = np.log(np.maximum(beliefs.given, _TINY)) - np.log(np.maximum(others, _TINY))
    return np.where(labels == UNLABELLED, 0.0, margins)


def _fit_class_curves(margins: Floats, right: Floats, labels: Int64s, num_classes: int) -> tuple[Curve, ...]:
    """One curve for each class: the more examples it has, the more its own."""
    overall = _fit_curve(margins, right)
    curves = []
    for label in range(num_classes):
        own = labels == label
        if not own.any():
            curves.append(overall)
            continue
        curve = _fit_curve(margins[own], right[own])
        at = np.union1d(overall.at, curve.at)
        share = own.sum() / (own.sum() + POOLING)
        curves.append(Curve(at, share * curve(at) + (1 - share) * overall(at)))
    return tuple(curves)


def _fit_curve(at: Floats, values: Floats) -> Curve:
    fitted = IsotonicRegression(y_min=0, y_max=1).fit(at, values)
    return Curve(
        np.asarray(fitted.X_thresholds_, dtype=np.float64), np.asarray(fitted.y_thresholds_, dtype=np.float64)
    )


def _ask_voters(voters: Voters, features: NDArray[Any], prior: Floats) -> Floats:
    said = np.empty((len(features), len(prior)))
    for start in range(0, len(features), _BLOCK):
        block = slice(start, start + _BLOCK)
        cosines = _direct(features[block], voters.mean) @ voters.directions.T
        # Which of the nearest is the nearest does not matter: they vote alike.
        nearest = np.argpartition(-cosines, voters.count - 1, axis=1)[:, : voters.count]
        said[block] = vote(nearest.astype(np.int64), voters.labels, voters.trust, prior)
    return said


def _direct(features: NDArray[Any], mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features as directions from the mean; what is the mean itself has none and stays 0."""
    directions = np.asarray(features, dtype=np.float32) - mean
    directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
    return np.asarray(directions, dtype=np.float32)


def _require(value: NDArray[Any] | None, asked: bool, name: str) -> None:
    if value is None and asked:
        raise ConfigError(f"the audit was of {name}; give those of the new examples, too")
    if value is not None and not asked:
        raise ConfigError(f"the audit had no {name}; leave those of the new examples out")
