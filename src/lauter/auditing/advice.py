"""Whether to act on an audit at all: 'leave it alone' is an answer. Rules are ours."""

import numpy as np
from numpy.typing import NDArray

from lauter.auditing.judgement import Advice
from lauter.data.dataset import UNLABELLED, Int64s
from lauter.evaluation.intervals import Interval

LEAST_NOISE = 0.005
"""Where the interval of the noise rate reaches below this, the data may as well be clean."""
LEAST_SURE = 0.005
"""Share of the labels that relabelling and dropping must reach, so that a training would notice."""


def give_advice(labels: Int64s, verdicts: NDArray[np.str_], noise_rate: Interval) -> Advice:
    """Say whether correcting and dropping is expected to help.

    It is not where the estimated noise cannot be told from none, or where so few verdicts are sure that what
    is left to do is a person's work.

    Args:
        labels: [N] given labels, -1 where there is none.
        verdicts: [N] of ``VERDICTS``.
        noise_rate: with its interval.

    Returns:
        The advice, with the figures that decided.

    Example:
        >>> give_advice(np.zeros(50, dtype=np.int64), np.full(50, "keep"), Interval(0.01, 0.0, 0.02)).clean
        False
    """
    known = labels != UNLABELLED
    count = int(known.sum())
    if not count:
        return Advice(False, "No image has a label, so there is nothing to clean.")
    said = verdicts[known]
    sure = int(((said == "relabel") | (said == "drop")).sum())
    asked = int((said == "ask").sum())
    noise = (
        f"An estimated {noise_rate.value:.1%} of {count:,} labels are wrong "
        f"(interval {noise_rate.low:.1%} to {noise_rate.high:.1%})"
    )
    if noise_rate.low < LEAST_NOISE:
        return Advice(False, f"{noise}, which cannot be told from no noise at all: leave the labels alone.")
    if sure < LEAST_SURE * count:
        return Advice(
            False,
            f"{noise}, but only {sure:,} can be called wrong at the stated precision: leave the rest alone, "
            f"or look at the {asked:,} that are in question.",
        )
    return Advice(
        True,
        f"{noise}, and {sure:,} can be corrected or dropped at the stated precision; "
        f"{asked:,} more are a question for a person.",
    )


def refuse_advice(agreement: float) -> Advice:
    """The advice where nothing tells bad labels from bad beliefs.

    Args:
        agreement: share of the surest images that are believed as they are labelled.
    """
    return Advice(
        False,
        f"Even the images that it is surest of agree with only {agreement:.0%} of their labels, so bad "
        "labels and poor features look alike here: leave the labels alone, take the order of the review as "
        "a guess, and try better features (a pretrained backbone, more images, a longer training).",
        telling=False,
    )
