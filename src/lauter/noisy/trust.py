"""Trust: a label that a person decided is right, whatever the beliefs say of it. The rule is ours."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lauter.data.dataset import UNLABELLED, Int64s
from lauter.errors import DataError
from lauter.noisy.filtering import Assessment


def trust_labels(assessment: Assessment, labels: Int64s, trusted: NDArray[np.bool_] | None) -> Assessment:
    r"""Take trusted labels as right, and their doubt out of the noise rates.

    .. math:: r_i' = 1 \;(i \in T), \qquad
              \rho' = \max\Big(0, \rho - \frac{1}{n} \sum_{i \in T} (1 - r_i)\Big)

    with the n labelled images, the trusted ones T among them, and the probabilities of being right r; the
    noise rates by class likewise, with the images of each class. Standings stay what they were: they say what
    the beliefs say.

    Args:
        assessment: what the filter says of the given labels.
        labels: [N] given labels, -1 where there is none; that a person left an image without a label is no
            label to trust.
        trusted: [N] mask, or None where nobody decided anything.

    Returns:
        The assessment with ``p_right`` 1 and ``kept`` true where the label is trusted.

    Raises:
        DataError: the mask is of another length than the labels.
    """
    if trusted is None:
        return assessment
    if trusted.shape != labels.shape:
        raise DataError(
            f"trusted must say yes or no of each of the {len(labels)} images, "
            f"not be of shape {list(trusted.shape)}"
        )
    known = labels != UNLABELLED
    rows = trusted & known
    doubt = np.where(rows, 1 - assessment.p_right, 0.0)
    classes = len(assessment.class_noise_rates)
    counts = np.bincount(labels[known], minlength=classes)
    by_class = np.bincount(labels[rows], doubt[rows], minlength=classes) / np.maximum(counts, 1)
    return replace(
        assessment,
        p_right=np.where(rows, 1.0, assessment.p_right),
        kept=assessment.kept | rows,
        noise_rate=max(0.0, assessment.noise_rate - float(doubt.sum()) / max(1, int(known.sum()))),
        class_noise_rates=np.maximum(assessment.class_noise_rates - by_class, 0.0),
    )
