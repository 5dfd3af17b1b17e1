r"""Calibrated probabilities: how probably each given label is right, and which other class fits best.

The noise model (``noise_model.py``) knows which classes are taken for which, and pays for it where the
classifier's own confusions look like such a habit: then images that are merely hard are doubted. The plain
belief in the given label knows no habits and makes no such mistake. So two thirds of each doubt are the
model's, and one is what the model doubts on average of labels that are believed as much:

.. math:: r_i = \frac{2}{3} r^{model}_i + \frac{1}{3} \hat E[r^{model} \mid p_{i \tilde y_i}]

with the closest increasing function as the second part. Both parts promise as many right labels as the model,
so what it says of the whole data set stays. Where the matrix had to be taken out of the beliefs, labels do go
to look-alikes, the plain belief in them misleads, and the model decides alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from lauter.auditing.noise_model import Fit, NoiseModel, fit_noise_model, judge_by_model
from lauter.auditing.sharpness import estimate_calm_noise, rank_confidence
from lauter.data.dataset import UNLABELLED, Int64s
from lauter.noisy.beliefs import Floats
from lauter.noisy.top_beliefs import TopBeliefs


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the model says of N images.

    Attributes:
        p_right: [N] probability that the given label is right; 0 where there is none.
        other: [N] the class that fits best, the given one aside.
        p_other: [N] probability that it is the true class.
        fit: the noise model; None without a labelled image.
        disagreement: share of the labelled images that are believed of another class than their label says.
        labelled: [N] whether there is a given label.
    """

    p_right: Floats
    other: Int64s
    p_other: Floats
    fit: Fit | None
    disagreement: float
    labelled: NDArray[np.bool_]

    @property
    def errors(self) -> float:
        """Share of images that the classifier behind the beliefs errs on: what disagrees beyond the noise."""
        known = self.p_right[self.labelled]
        rate = float(np.mean(1 - known)) if len(known) else 0.0
        return max(self.disagreement - rate, 0.0) / max(1 - rate, 1e-12)

    @property
    def doubt(self) -> Floats:
        """[N] probability that the given label is wrong, or that there is none."""
        return np.asarray(1 - self.p_right)


def calibrate_labels(beliefs: TopBeliefs, labels: Int64s) -> Calibration:
    """Fit the noise model to the labelled images and say how probably each label is right.

    Args:
        beliefs: out-of-fold, under the training prior.
        labels: [N] given labels, -1 where there is none.

    Returns:
        The calibration. Of an unlabelled image the best class is ``other``, and ``p_other`` its sharpened
        belief, less the share of strays among images of that confidence.

    Source: ours; see the head of this file.
    """
    known = np.flatnonzero(labels != UNLABELLED)
    p_right = np.zeros(len(labels))
    other, p_other = beliefs.classes[:, 0].astype(np.int64), np.zeros(len(labels))
    if not len(known):
        return Calibration(p_right, other, p_other, None, 0.0, labels != UNLABELLED)
    whole = len(known) == len(labels)
    judged, given = (beliefs, labels) if whole else (beliefs.select(known), labels[known])
    disagrees = judged.classes[:, 0] != given
    fit = fit_noise_model(judged, given, estimate_calm_noise(rank_confidence(judged), disagrees))
    found = judge_by_model(fit.beliefs, given, fit.model)
    right = found.right
    if not fit.unmixed:
        curve = IsotonicRegression(y_min=0, y_max=1, increasing=True)
        plain = curve.fit_transform(judged.given.astype(np.float64), right)
        right = np.clip((2 * right + plain) / 3, 0, 1)
    p_right[known] = right
    other[known] = found.other
    # What the two views differ by is taken from, or given to, all classes alike.
    p_other[known] = found.p_other * np.minimum((1 - right) / np.maximum(1 - found.right, 1e-12), 1)
    if not whole:
        bare = np.flatnonzero(labels == UNLABELLED)
        p_other[bare] = _believe_best(beliefs.select(bare), fit.model)
    return Calibration(
        p_right, other, np.minimum(p_other, 1 - p_right), fit, float(disagrees.mean()), labels != UNLABELLED
    )


def _believe_best(beliefs: TopBeliefs, model: NoiseModel) -> Floats:
    """[M] the model's probability of the best class, whatever the label."""
    logs = np.log(np.maximum(beliefs.probs, 1e-12), dtype=np.float64)
    powers = np.exp(model.sharpness * (logs - logs[:, :1]))
    cut = beliefs.num_classes - beliefs.depth
    rest = np.log(np.maximum(beliefs.spread_rest(), 1e-12)) - logs[:, 0]
    total = powers.sum(1) + cut * np.exp(model.sharpness * rest)
    strays = model.strays[np.searchsorted(model.edges, beliefs.probs[:, 0])]
    return np.asarray((1 - strays) / total)
