r"""Instance filtering: how probable is it that each given label is right?

The idea (ours): compare an image's belief in its own label with the beliefs that *wrong* labels of the same
class get. Wrong labels need not be known for that. Images labelled otherwise show what belief class c earns
where it does not belong, so for each class a null distribution is at hand:

.. math:: u_i = P_0\left(p_j[c] < p_i[c] \;\middle|\; \tilde y_j \ne c\right), \quad c = \tilde y_i

under which u is uniform for wrong labels, whatever the classifier's quality; right labels gather at 1. So
the noise rate is the height of the uniform part, and the rest follows by Bayes' rule. Nothing asks the
classifier to be good or calibrated: on clean data with a classifier that errs on half of the images nearly
every label is still kept, where disagreement with the classifier would throw half of them away.

Wrong labels come from somewhere: dogs are called cats, and images of no class resemble all classes a
little. So the null of class c is drawn from images like those that carry c wrongly: images are grouped by
the class they resemble most and by how much (tenths), and each group weighs as many as there are images of
it that are labelled c and look like something else.

The uniform part is estimated as in multiple testing (Storey, 2002; two-groups model: Efron, 2001), the
density of u as the closest increasing one (Grenander, 1956).

Beside it stand the rules of others, so that what a filter is worth can be measured: a two-part mixture on
belief or loss, confident learning's thresholds, and no filter at all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from lauter.data.dataset import UNLABELLED, Int64s
from lauter.errors import ConfigError, DataError
from lauter.noisy.beliefs import Floats
from lauter.noisy.confident import find_thresholds, score_confidence
from lauter.noisy.mixture import split_by_mixture

_BINS = 100
_LEVELS = np.linspace(0.15, 0.9, 31)  # where the height of the uniform part is looked for
_TOLERANCE = 1e-6  # equal beliefs must reach their own mean, however it was rounded


@dataclass(frozen=True)
class FilterConfig:
    """How labels are judged from beliefs.

    Attributes:
        kind: two-groups (beliefs compared with those of wrong labels), mixture (two Gaussians), confident
            (confident learning's thresholds) or none (every label is kept).
        signal: what a mixture is fitted to: belief (in the given label) or loss (of each image).
        scope: whether a mixture is fitted once, global, or for each class.
        keep_above: a label is kept when it is right with at least this probability.
        cap: largest share of a class that may be left out; its most credible labels then stay.
        confidence_groups: groups by confidence within the class that an image resembles most.
        pooling: images by which a class's noise rate is drawn to the overall one.
    """

    kind: Literal["two-groups", "mixture", "confident", "none"] = "two-groups"
    signal: Literal["belief", "loss"] = "belief"
    scope: Literal["global", "class"] = "global"
    keep_above: float = 0.5
    cap: float = 0.9
    confidence_groups: int = 10
    pooling: float = 1000.0

    def __post_init__(self) -> None:
        if self.kind not in _RULES:
            raise ConfigError(f"filter kind must be one of {', '.join(_RULES)}, not {self.kind!r}")
        if self.signal not in ("belief", "loss"):
            raise ConfigError(f"filter signal must be belief or loss, not {self.signal!r}")
        if self.scope not in ("global", "class"):
            raise ConfigError(f"filter scope must be global or class, not {self.scope!r}")
        if self.kind != "mixture" and (self.signal, self.scope) != ("belief", "global"):
            raise ConfigError(
                f"filter signal {self.signal!r} and scope {self.scope!r} are a mixture's; "
                f"choose kind mixture instead of {self.kind}, or leave them out"
            )
        if not 0 <= self.keep_above <= 1 or not 0 < self.cap <= 1:
            raise ConfigError(
                f"filter keep_above must be in [0, 1] and cap in (0, 1], not {self.keep_above} and {self.cap}"
            )
        if self.confidence_groups < 1 or self.pooling < 0:
            raise ConfigError(
                f"filter confidence_groups must be 1 or more and pooling 0 or more, "
                f"not {self.confidence_groups} and {self.pooling}"
            )


@dataclass(frozen=True, eq=False)
class Assessment:
    """What the beliefs say about the given labels.

    Attributes:
        p_right: [N] probability that the given label is right; 0 for unlabelled images.
        standing: [N] u: share of wrong labels of the same class that earn a lower belief.
        kept: [N] whether the label is kept.
        noise_rate: estimated share of wrong labels among the labelled images.
        class_noise_rates: [K] the same by given class.
    """

    p_right: Floats
    standing: Floats
    kept: NDArray[np.bool_]
    noise_rate: float
    class_noise_rates: Floats


@dataclass(frozen=True, eq=False)
class _Judgement:
    """What a rule says about the labelled images, before the cap; attributes as in :class:`Assessment`."""

    right: Floats
    standing: Floats
    passes: NDArray[np.bool_]
    noise_rate: float
    class_noise_rates: Floats


def assess_labels(
    beliefs: Floats, labels: Int64s, config: FilterConfig | None = None, *, losses: Floats | None = None
) -> Assessment:
    r"""Judge every given label.

    By ``config.kind``, with :math:`c = \tilde y_i`:

    - ``two-groups``: Bayes' rule on the standing u, see the head of this file.
    - ``mixture``: the posterior of the right part of two Gaussians fitted to :math:`p_i[c]` (right labels
      are the higher part) or to the losses (the lower part), over all labels or over each class's.
    - ``confident``: kept where :math:`p_i[c] \ge t_c` or no other class has :math:`p_i[k] \ge t_k`, with the
      mean of :math:`p_j[k]` over what is labelled k as :math:`t_k`. The rule knows no probability:
      ``p_right`` orders the kept labels within [0.5, 1] and the others within [0, 0.5] by the margin
      :math:`p_i[c] - \max_{k \ne c} p_i[k]`, and the noise rate is the share that fails the rule.
    - ``none``: every label is right and kept.

    Args:
        beliefs: [N, K] distributions, as free of the image's own label as can be.
        labels: [N] given labels, -1 where there is none.
        config: the rule, its thresholds and caps.
        losses: [N] loss of each image against its given label; only a mixture on losses looks at them, and
            only where there is a label.

    Returns:
        The assessment; the cap per class is already respected in ``kept``.

    Raises:
        ConfigError: the mixture is to be fitted to losses, and there are none.
        DataError: shapes do not fit, or the loss of a labelled image is not finite.

    Source: the mixture on losses after Arazo et al. (2019), arXiv 1904.11238, and Li et al. (2020),
    arXiv 2002.07394; the thresholds after Northcutt, Jiang and Chuang (2021), arXiv 1911.00068. Departures:
    the mixture may be one of beliefs; an image that passes no threshold keeps its label, and one that passes
    that of its own label too, whichever class it passes by more; the cap. Two-groups is ours.
    """
    config = config or FilterConfig()
    if beliefs.ndim != 2 or labels.shape != beliefs.shape[:1]:
        raise DataError(
            f"beliefs must be [N, K] and labels [N], not {list(beliefs.shape)} and {list(labels.shape)}"
        )
    known = np.flatnonzero(labels != UNLABELLED)
    p_right, standing = np.zeros(len(labels)), np.zeros(len(labels))
    kept = np.zeros(len(labels), dtype=bool)
    known_losses = _take_losses(losses, labels, known) if config.signal == "loss" else None
    if not len(known):
        return Assessment(p_right, standing, kept, 0.0, np.zeros(beliefs.shape[1]))
    given = labels[known]
    found = _RULES[config.kind](beliefs[known], given, config, known_losses)
    p_right[known], standing[known] = found.right, found.standing
    kept[known] = keep_with_cap(found.passes, found.right, given, config.cap)
    return Assessment(p_right, standing, kept, found.noise_rate, found.class_noise_rates)


def _judge_in_two_groups(
    beliefs: Floats, given: Int64s, config: FilterConfig, losses: Floats | None
) -> _Judgement:
    foreign = (beliefs.argmax(1) != given).astype(np.float64)
    for last in (False, True):
        standing = _rank_in_null(beliefs, given, foreign, config.confidence_groups)
        right, rates = split_groups(standing, given, beliefs.shape[1], config.pooling)
        if not last:  # an image that resembles its own class may carry its label wrongly all the same
            foreign = np.where(foreign == 1, 1.0, 1 - right)
    return _Judgement(right, standing, right >= config.keep_above, float(np.mean(1 - right)), rates)


def _judge_by_mixture(
    beliefs: Floats, given: Int64s, config: FilterConfig, losses: Floats | None
) -> _Judgement:
    values = -beliefs[np.arange(len(given)), given] if losses is None else losses
    right = split_by_mixture(values, given if config.scope == "class" else None)
    return _judge_plainly(beliefs, given, config, right, right >= config.keep_above, 1 - right)


def _judge_by_confidence(
    beliefs: Floats, given: Int64s, config: FilterConfig, losses: Floats | None
) -> _Judgement:
    probs = np.clip(beliefs, 0, 1)  # a mean of distributions may round to just above 1
    passed = probs >= find_thresholds(probs, given) - _TOLERANCE
    passes = passed[np.arange(len(given)), given] | ~passed.any(1)
    right = (score_confidence(probs, given) + passes) / 2
    return _judge_plainly(beliefs, given, config, right, passes, (~passes).astype(np.float64))


def _keep_all(beliefs: Floats, given: Int64s, config: FilterConfig, losses: Floats | None) -> _Judgement:
    everything = np.ones(len(given))
    return _judge_plainly(beliefs, given, config, everything, everything > 0, 1 - everything)


_RULES: dict[str, Callable[[Floats, Int64s, FilterConfig, Floats | None], _Judgement]] = {
    "two-groups": _judge_in_two_groups,
    "mixture": _judge_by_mixture,
    "confident": _judge_by_confidence,
    "none": _keep_all,
}


def _judge_plainly(
    beliefs: Floats,
    given: Int64s,
    config: FilterConfig,
    right: Floats,
    passes: NDArray[np.bool_],
    wrong: Floats,
) -> _Judgement:
    """A rule's verdicts with noise rates that are means of ``wrong`` [n], and standings as anywhere."""
    foreign = (beliefs.argmax(1) != given).astype(np.float64)
    standing = _rank_in_null(beliefs, given, foreign, config.confidence_groups)
    overall = float(np.mean(wrong))
    counts = np.bincount(given, minlength=beliefs.shape[1])
    sums = np.bincount(given, wrong, minlength=beliefs.shape[1])
    rates = (sums + config.pooling * overall) / np.maximum(counts + config.pooling, 1)
    return _Judgement(right, standing, passes, overall, rates)


def _take_losses(losses: Floats | None, labels: Int64s, known: Int64s) -> Floats:
    if losses is None:
        raise ConfigError(
            "filter signal 'loss' needs the loss of each image, and none was given; choose signal 'belief' "
            "where the training keeps no losses"
        )
    if losses.shape != labels.shape:
        raise DataError(
            f"losses must be one per image, {list(labels.shape)}, not of shape {list(losses.shape)}"
        )
    found = np.asarray(losses[known], dtype=np.float64)
    if not np.isfinite(found).all():
        row = int(known[np.flatnonzero(~np.isfinite(found))[0]])
        raise DataError(
            f"the loss of image {row} is {losses[row]}; every labelled image needs a finite one: "
            "the filter asks for them after the first epoch at the earliest"
        )
    return found


def split_groups(standing: Floats, given: Int64s, num_classes: int, pooling: float) -> tuple[Floats, Floats]:
    """Divide labels into right and wrong ones by their standing u.

    Args:
        standing: [N] u, uniform for wrong labels.
        given: [N] given labels, all of them known.
        num_classes: K.
        pooling: images by which a class's noise rate is drawn to the overall one.

    Returns:
        The probability of being right [N], and noise rates by class [K].
    """
    overall = _height_of_uniform_part(standing)
    counts = np.bincount(given, minlength=num_classes)
    rates = np.full(num_classes, overall)
    for label in np.flatnonzero(counts):
        rates[label] = _height_of_uniform_part(standing[given == label])
    rates = (counts * rates + pooling * overall) / np.maximum(counts + pooling, 1)
    return _posterior(standing, overall, rates[given]), rates


def _rank_in_null(beliefs: Floats, given: Int64s, foreign: Floats, confidence_groups: int) -> Floats:
    """Standing u [N]: the weighted share of the null below each image's own belief; ties count half."""
    best, confidence = beliefs.argmax(1), beliefs.max(1)
    edges = np.quantile(confidence, np.arange(1, confidence_groups) / confidence_groups)
    group = best * confidence_groups + np.searchsorted(edges, confidence)
    groups = beliefs.shape[1] * confidence_groups
    standing = np.zeros(len(given))
    for label in np.unique(given):
        own = given == label
        other = np.flatnonzero(~own)
        if not len(other):
            standing[own] = 1.0
            continue
        intruders = np.bincount(group[own], foreign[own], minlength=groups)
        weights = (intruders / np.maximum(np.bincount(group[other], minlength=groups), 1))[group[other]]
        weights += 1 / len(other)  # one image's worth of all others, for classes without intruders
        null = beliefs[other, label]
        order = np.argsort(null, kind="stable")
        below = np.concatenate([[0.0], np.cumsum(weights[order])])
        below /= below[-1]
        score, sorted_null = beliefs[own, label], null[order]
        first = np.searchsorted(sorted_null, score, side="left")
        last = np.searchsorted(sorted_null, score, side="right")
        standing[own] = (below[first] + below[last]) / 2
    return standing


def _height_of_uniform_part(standing: Floats) -> float:
    """The largest share of a uniform that fits under the distribution of u, one standard error allowed."""
    shares = np.searchsorted(np.sort(standing), _LEVELS, side="right") / len(standing)
    errors = np.sqrt(shares * (1 - shares) / len(standing))
    return float(np.clip(np.min((shares + errors) / _LEVELS), 1e-3, 1 - 1e-3))


def _posterior(standing: Floats, overall: float, rates: Floats) -> Floats:
    """Bayes' rule with the class's own noise rate and the density of right labels pooled over classes."""
    density = np.histogram(standing, np.linspace(0, 1, _BINS + 1))[0] / len(standing) * _BINS
    middles = (np.arange(_BINS) + 0.5) / _BINS
    density = IsotonicRegression(increasing=True).fit(middles, density).predict(middles)
    right_density = np.maximum(density - overall, 1e-3) / (1 - overall)
    likelihood = np.interp(standing, middles, right_density)
    return np.asarray((1 - rates) * likelihood / ((1 - rates) * likelihood + rates))


def keep_with_cap(passes: NDArray[np.bool_], right: Floats, given: Int64s, cap: float) -> NDArray[np.bool_]:
    """Keep what passes, and of each class at least the most credible 1 - cap."""
    kept = passes.copy()
    for label in np.unique(given):
        rows = np.flatnonzero(given == label)
        least = int(np.ceil((1 - cap) * len(rows)))
        if kept[rows].sum() < least:
            kept[rows[np.argsort(-right[rows], kind="stable")[:least]]] = True
    return kept
