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
"""

from dataclasses import dataclass

import numpy as np
from sklearn.isotonic import IsotonicRegression

from lauter.data.dataset import UNLABELLED, Int64s
from lauter.errors import ConfigError
from lauter.noisy.beliefs import Floats

_BINS = 100
_LEVELS = np.linspace(0.15, 0.9, 31)  # where the height of the uniform part is looked for


@dataclass(frozen=True)
class FilterConfig:
    """How labels are judged from beliefs.

    Attributes:
        keep_above: a label is kept when it is right with at least this probability.
        cap: largest share of a class that may be left out; its most credible labels then stay.
        confidence_groups: groups by confidence within the class that an image resembles most.
        pooling: images by which a class's noise rate is drawn to the overall one.
    """

    keep_above: float = 0.5
    cap: float = 0.9
    confidence_groups: int = 10
    pooling: float = 30.0

    def __post_init__(self) -> None:
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
    kept: np.typing.NDArray[np.bool_]
    noise_rate: float
    class_noise_rates: Floats


def assess_labels(beliefs: Floats, labels: Int64s, config: FilterConfig | None = None) -> Assessment:
    """Judge every given label.

    Args:
        beliefs: [N, K] distributions, as free of the image's own label as can be.
        labels: [N] given labels, -1 where there is none.
        config: thresholds and caps.

    Returns:
        The assessment; the cap per class is already respected in ``kept``.
    """
    config = config or FilterConfig()
    num_classes = beliefs.shape[1]
    known = np.flatnonzero(labels != UNLABELLED)
    given, known_beliefs = labels[known], beliefs[known]
    foreign = (known_beliefs.argmax(1) != given).astype(np.float64)
    for last in (False, True):
        standing = _rank_in_null(known_beliefs, given, foreign, config.confidence_groups)
        right, rates = _split_groups(standing, given, num_classes, config.pooling)
        if not last:  # an image that resembles its own class may carry its label wrongly all the same
            foreign = np.where(foreign == 1, 1.0, 1 - right)
    p_right, all_standing = np.zeros(len(labels)), np.zeros(len(labels))
    p_right[known], all_standing[known] = right, standing
    kept = np.zeros(len(labels), dtype=bool)
    kept[known] = _keep_with_cap(right, given, num_classes, config)
    return Assessment(p_right, all_standing, kept, float(np.mean(1 - right)) if len(right) else 0.0, rates)


def _split_groups(standing: Floats, given: Int64s, num_classes: int, pooling: float) -> tuple[Floats, Floats]:
    """Probability of being right [N] and noise rates by class [K]."""
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


def _keep_with_cap(
    right: Floats, given: Int64s, num_classes: int, config: FilterConfig
) -> np.typing.NDArray[np.bool_]:
    kept = right >= config.keep_above
    for label in range(num_classes):
        rows = np.flatnonzero(given == label)
        least = int(np.ceil((1 - config.cap) * len(rows)))
        if kept[rows].sum() < least:
            kept[rows[np.argsort(-right[rows], kind="stable")[:least]]] = True
    return np.asarray(kept)
