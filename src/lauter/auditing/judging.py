"""Judging: from out-of-fold beliefs and given labels to verdicts, noise rates, cuts and advice.

No truth is read and no model is fitted to an image's own label here: that the beliefs are out-of-fold is what
everything leans on.
"""

from dataclasses import dataclass

import numpy as np

from lauter.auditing.advice import give_advice, refuse_advice
from lauter.auditing.calibration import calibrate_labels
from lauter.auditing.cuts import (
    choose_cut,
    choose_cut_at,
    list_cuts,
    order_by_doubt,
    plan_review,
    raise_doubt,
)
from lauter.auditing.judgement import Judgement
from lauter.auditing.noise_rates import BLUR, admit_ignorance, rate_noise
from lauter.auditing.sharpness import TELLING, agree_where_surest
from lauter.auditing.verdict_rules import decide_verdicts
from lauter.data.dataset import UNLABELLED, Int64s
from lauter.errors import ConfigError, DataError
from lauter.noisy.beliefs import estimate_prior
from lauter.noisy.top_beliefs import Beliefs, TopBeliefs


@dataclass(frozen=True)
class JudgingConfig:
    """What an audit may get wrong, and how much it may do.

    Attributes:
        precision: the error budget: expected share of right decisions among the labels that are relabelled,
            and among those that are dropped; what is less sure is asked.
        cap: largest share of a class's labels that may be relabelled and dropped, so that rare ones survive.
        level: coverage of the intervals.
        budget: images that a person is willing to look at; the review plan is at least that long.
        keep_above: keep labels that are right with at least this probability; by default the cut with the
            largest expected F1.
    """

    precision: float = 0.95
    cap: float = 0.9
    level: float = 0.9
    budget: int = 200
    keep_above: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.precision <= 1:
            raise ConfigError(
                f"precision must be in (0, 1], not {self.precision}; 0.95 lets one decision in 20 be wrong"
            )
        if not 0 <= self.cap <= 1:
            raise ConfigError(
                f"cap must be a share in 0..1, not {self.cap}; 0.9 spares a tenth of each class"
            )
        if not 0 < self.level < 1:
            raise ConfigError(f"level must be between 0 and 1, not {self.level}; 0.9 is usual")
        if self.budget < 0:
            raise ConfigError(f"budget must be 0 images or more, not {self.budget}")
        if self.keep_above is not None and not 0 <= self.keep_above <= 1:
            raise ConfigError(
                f"keep_above must be a probability in 0..1, not {self.keep_above}; leave it out for automatic"
            )


def judge_labels(
    beliefs: Beliefs, labels: Int64s, config: JudgingConfig | None, generator: np.random.Generator
) -> Judgement:
    """Judge every given label.

    Args:
        beliefs: [N, K] out-of-fold distributions under the training prior, or the largest of them.
        labels: [N] given labels, -1 where there is none.
        config: error budget, caps, levels.
        generator: draws the resamples of the intervals.

    Returns:
        The judgement. Labels with a verdict other than keep count as called wrong. Where even the images
        that the beliefs are surest of agree with their labels less than half of the time, bad labels cannot
        be told from bad beliefs: then nothing is relabelled or dropped, intervals of noise rates begin at 0,
        and the advice says so.

    Raises:
        DataError: shapes or ranges do not fit, or a belief is not finite; the first such row is named.

    Source: ours.
    """
    config = config or JudgingConfig()
    given = _check(beliefs, labels)
    top = beliefs if isinstance(beliefs, TopBeliefs) else TopBeliefs.from_dense(beliefs, given)
    known = np.flatnonzero(given != UNLABELLED)
    found = calibrate_labels(top, given)
    doubt = found.doubt[known]
    if config.keep_above is None:
        chosen = choose_cut(raise_doubt(doubt, 3 * BLUR * found.errors))
    else:
        chosen = choose_cut_at(doubt, config.keep_above)
    flagged = np.zeros(len(given), dtype=bool)
    flagged[known[order_by_doubt(doubt)[:chosen]]] = True
    verdicts = decide_verdicts(
        given, flagged, found.p_right, found.p_other, config.precision, config.cap, found.errors
    )
    agreement = agree_where_surest(top.select(known), given[known])
    telling = agreement >= TELLING or not len(known)
    if not telling:
        verdicts[verdicts != "keep"] = "ask"
    kept = verdicts == "keep"
    prior = estimate_prior(given, found.p_right, top.num_classes)
    rates = rate_noise(top, given, found, prior, config.level, generator)
    if not telling:
        rates = admit_ignorance(rates, agreement)
    return Judgement(
        verdicts=verdicts,
        suggested=np.where(kept, given, found.other),
        p_given_right=np.where(given != UNLABELLED, found.p_right, np.nan),
        p_suggested_right=np.where(kept, found.p_right, found.p_other),
        p_open=rates.p_open,
        noise_rate=rates.noise_rate,
        closed_rate=rates.closed_rate,
        open_rate=rates.open_rate,
        noise_rate_by_class=rates.by_class,
        transition=rates.transition,
        transition_low=rates.transition_low,
        transition_high=rates.transition_high,
        cuts=list_cuts(doubt, chosen),
        review=plan_review(doubt, known, max(config.budget, chosen)),
        advice=give_advice(given, verdicts, rates.noise_rate) if telling else refuse_advice(agreement),
    )


def _check(beliefs: Beliefs, labels: Int64s) -> Int64s:
    """The labels as int64, or an error that says what does not fit."""
    shape = beliefs.shape
    if len(shape) != 2 or labels.shape != shape[:1]:
        raise DataError(f"beliefs must be [N, K] and labels [N], not {list(shape)} and {list(labels.shape)}")
    if not len(labels):
        raise DataError("there are no images to judge; expected one or more")
    if shape[1] < 2:
        raise DataError(f"labels can be judged among 2 classes or more, not {shape[1]}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels must be integers, not {labels.dtype}")
    if labels.min() < UNLABELLED or labels.max() >= shape[1]:
        raise DataError(
            f"labels must be in -1..{shape[1] - 1} for {shape[1]} classes, "
            f"found {labels.min()}..{labels.max()}"
        )
    probs = beliefs.probs if isinstance(beliefs, TopBeliefs) else beliefs
    bad = ~np.isfinite(probs).all(1) | (probs < 0).any(1)
    if bad.any():
        raise DataError(
            f"beliefs of image {int(bad.argmax())} are not probabilities (NaN, infinite or negative); "
            "every image needs finite ones"
        )
    return labels.astype(np.int64)
