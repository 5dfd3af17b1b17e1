"""What an audit says about the given labels of a data set: arrays, no pictures, no files."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lauter.data.dataset import Int64s
from lauter.evaluation.intervals import Interval
from lauter.noisy.beliefs import Floats

VERDICTS = ("keep", "relabel", "drop", "ask")


@dataclass(frozen=True, eq=False)
class Cuts:
    """What to expect where the c most doubtful labels are called wrong, for growing c.

    Attributes:
        flagged: [C] how many labels are called wrong, ascending.
        threshold: [C] the largest p_given_right among them.
        precision: [C] expected share of wrong labels among them.
        recall: [C] expected share of all wrong labels that is among them.
        chosen: position of the cut that the verdicts use.
    """

    flagged: Int64s
    threshold: Floats
    precision: Floats
    recall: Floats
    chosen: int


@dataclass(frozen=True, eq=False)
class ReviewPlan:
    """What a person should look at, and what that is expected to bring.

    Attributes:
        order: [M] rows in the order of looking, the most doubtful label first.
        expected_found: [M] expected number of bad labels among the images up to each.
    """

    order: Int64s
    expected_found: Floats


@dataclass(frozen=True)
class Advice:
    """Whether to act on the verdicts at all.

    Attributes:
        clean: whether correcting and dropping is expected to help.
        reason: one or two sentences for people, with the figures that decided.
        telling: whether the beliefs tell bad labels from good ones at all. Where they do not, expected counts
            and precisions mean nothing, and are not shown.
    """

    clean: bool
    reason: str
    telling: bool = True


@dataclass(frozen=True, eq=False)
class Judgement:
    """What an audit says about N images with K classes.

    Attributes:
        verdicts: [N] one of ``VERDICTS``; an unlabelled image is relabelled or asked about.
        suggested: [N] the class that fits best; the given one where the label is kept.
        p_given_right: [N] calibrated probability that the given label is right; NaN where there is none.
        p_suggested_right: [N] probability that the suggested label is right.
        p_open: [N] probability that the image belongs to none of the classes.
        noise_rate: share of wrong labels among the labelled images, with its 90% interval.
        closed_rate: share of images of another class than their label says, likewise.
        open_rate: share of images of no class, likewise.
        noise_rate_by_class: [K] share of wrong labels by given class.
        transition: [K, K] transition matrix [true, given] of images that have a class; rows sum to 1.
        transition_low: [K, K] lower ends of its entries.
        transition_high: [K, K] upper ends.
        cuts: expected precision and recall at each cut.
        review: what a person should look at first.
        advice: whether to act on the verdicts at all.
    """

    verdicts: NDArray[np.str_]
    suggested: Int64s
    p_given_right: Floats
    p_suggested_right: Floats
    p_open: Floats
    noise_rate: Interval
    closed_rate: Interval
    open_rate: Interval
    noise_rate_by_class: Floats
    transition: Floats
    transition_low: Floats
    transition_high: Floats
    cuts: Cuts
    review: ReviewPlan
    advice: Advice
