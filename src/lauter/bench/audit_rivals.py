"""Judges of labels side by side: each sees the same out-of-fold beliefs and given labels, and no truth."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lauter.auditing.judging import JudgingConfig, judge_labels
from lauter.data.counters import derive_seed
from lauter.data.dataset import Int64s
from lauter.errors import ConfigError
from lauter.evaluation.intervals import Interval
from lauter.noisy.beliefs import Floats
from lauter.noisy.confident import (
    Bools,
    calibrate_joint,
    count_confident_joint,
    find_confident_errors,
    score_confidence,
)
from lauter.noisy.filtering import assess_labels
from lauter.noisy.rivals.confident import require_cleanlab
from lauter.noisy.top_beliefs import TopBeliefs

ORACLE = "oracle rate"
"""Calls as many labels wrong as there truly are, those with the smallest margins: only the truth knows how
many, so it is no method, but shows what a perfect threshold on a plain ranking is worth."""


@dataclass(frozen=True, eq=False)
class Case:
    """What every judge sees.

    Attributes:
        labels: [N] given labels; there is none without one.
        beliefs: out-of-fold, of every image.
        probabilities: [N, K] the same in full, rows sum to 1, for those who know no other form.
        features: [N, D] that the beliefs were made of; None where networks gave them.
        seed: of draws.
    """

    labels: Int64s
    beliefs: TopBeliefs
    probabilities: Floats
    features: NDArray[np.float32] | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Findings:
    """What a judge says of N labels.

    Attributes:
        doubt: [N] higher means more likely wrong.
        flagged: [N] whether its automatic threshold calls the label wrong.
        p_right: [N] its probability that the label is right; None where it promises none.
        suggested: [N] the class it would put in a label's place; None where it proposes none.
        relabelled: [N] where it would do so by itself; None for wherever it flags.
        rates: estimated shares of noise, closed and open labels, by these names; a judge that states no
            interval gives a bare number.
        review: rows in the order that a person should look at them; by ``doubt`` where None.
        advises: whether it says that acting on its findings helps; None where it says nothing of it.
    """

    doubt: Floats
    flagged: Bools
    p_right: Floats | None = None
    suggested: Int64s | None = None
    relabelled: Bools | None = None
    rates: Mapping[str, Interval | float] = field(default_factory=dict)
    review: Int64s | None = None
    advises: bool | None = None


def make_case(
    labels: Int64s, beliefs: TopBeliefs, features: NDArray[np.float32] | None = None, seed: int = 0
) -> Case:
    """What every judge sees, from beliefs that may have been cut to the largest."""
    dense = beliefs.dense(labels)
    return Case(labels, beliefs, np.asarray(dense / dense.sum(1, keepdims=True)), features, seed)


def judge_by_audit(case: Case) -> Findings:
    """The audit with its defaults; every verdict but keep counts as flagged."""
    generator = np.random.default_rng(derive_seed(case.seed, "judging"))
    found = judge_labels(case.beliefs, case.labels, JudgingConfig(), generator)
    return Findings(
        doubt=1 - found.p_given_right,
        flagged=found.verdicts != "keep",
        p_right=found.p_given_right,
        suggested=found.suggested,
        relabelled=found.verdicts == "relabel",
        rates={"noise": found.noise_rate, "closed": found.closed_rate, "open": found.open_rate},
        review=found.review.order,
        advises=found.advice.clean,
    )


def judge_by_filter(case: Case) -> Findings:
    """The filter of robust training alone: doubt is the probability of being wrong, cut at one half."""
    assessment = assess_labels(case.probabilities, case.labels)
    return Findings(
        doubt=1 - assessment.p_right,
        flagged=~assessment.kept,
        p_right=assessment.p_right,
        rates={"noise": assessment.noise_rate},
    )


def judge_by_confident_learning(case: Case) -> Findings:
    """Confident learning as written here: it stands for cleanlab where that is not installed."""
    doubt = 1 - score_confidence(case.probabilities, case.labels, "self_confidence")
    joint = count_confident_joint(case.probabilities, case.labels)
    counts = np.bincount(case.labels, minlength=case.beliefs.num_classes)
    rate = 1 - float(np.trace(calibrate_joint(joint, counts)))
    return Findings(
        doubt, find_confident_errors(case.probabilities, case.labels), rates={"noise": max(rate, 0.0)}
    )


def judge_by_disagreement(case: Case) -> Findings:
    """A label is called wrong where the belief is largest in another; doubt is the margin that decides so."""
    best = case.probabilities.argmax(1)
    flagged = np.asarray(best != case.labels)
    doubt = 1 - score_confidence(case.probabilities, case.labels)
    return Findings(doubt, flagged, suggested=best, rates={"noise": float(flagged.mean())})


def judge_at_true_rate(case: Case, wrong_count: int) -> Findings:
    """The ``wrong_count`` labels with the smallest margins; see ``ORACLE``.

    Args:
        case: what every judge sees.
        wrong_count: how many labels are truly wrong, which no judge knows.
    """
    found = judge_by_disagreement(case)
    flagged = np.zeros(len(case.labels), dtype=bool)
    flagged[np.argsort(-found.doubt, kind="stable")[:wrong_count]] = True
    return Findings(found.doubt, flagged)


def judge_by_cleanlab(filter_by: str, score: str) -> Callable[[Case], Findings]:
    """The library cleanlab: ``find_label_issues`` by one of its rules, ranked by one of its scores."""

    def judge(case: Case) -> Findings:
        require_cleanlab()
        from cleanlab.count import estimate_joint
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores

        labels, probabilities = case.labels, case.probabilities
        issues = find_label_issues(labels, probabilities, filter_by=filter_by, n_jobs=1)
        quality = np.asarray(get_label_quality_scores(labels, probabilities, method=score), dtype=np.float64)
        rate = 1 - float(np.trace(estimate_joint(labels, probabilities)))
        return Findings(1 - quality, np.asarray(issues, dtype=bool), rates={"noise": max(rate, 0.0)})

    return judge


def judge_by_datalab(given: str) -> Callable[[Case], Findings]:
    """The library cleanlab: Datalab with its defaults, label issues alone, from beliefs or from features.

    From features it votes among 10 neighbours by itself. Given both it takes the beliefs, as if alone.

    Args:
        given: pred_probs or features.
    """

    def judge(case: Case) -> Findings:
        require_cleanlab()
        from cleanlab import Datalab

        if given == "features" and case.features is None:
            raise ConfigError("datalab-features needs features, and this evidence has none; leave it out")
        inputs: NDArray[Any] | None = case.probabilities if given == "pred_probs" else case.features
        lab = Datalab(_make_label_column(case), label_name="label", verbosity=0)
        in_one_process = {"clean_learning_kwargs": {"find_label_issues_kwargs": {"n_jobs": 1}}}
        with warnings.catch_warnings():
            # Of deprecated ways to call pandas and of small classes: nothing to be done about them here.
            warnings.simplefilter("ignore")
            lab.find_issues(**{given: inputs}, issue_types={"label": in_one_process})
        issues = lab.get_issues("label")
        quality = issues["label_score"].to_numpy(dtype=np.float64)
        return Findings(
            doubt=1 - quality,
            flagged=issues["is_label_issue"].to_numpy(dtype=bool),
            suggested=issues["predicted_label"].to_numpy().astype(np.int64),
        )

    return judge


def _make_label_column(case: Case) -> Any:
    """Labels as Datalab reads them: named classes, so that one without an image keeps its column."""
    from datasets import ClassLabel, Dataset, Features

    names = [f"{label:06d}" for label in range(case.beliefs.num_classes)]
    column = Features({"label": ClassLabel(names=names)})
    return Dataset.from_dict({"label": case.labels.tolist()}, features=column)


CLEANLAB: dict[str, Callable[[Case], Findings]] = {
    "cleanlab-noise-rate": judge_by_cleanlab("prune_by_noise_rate", "self_confidence"),
    "cleanlab-class": judge_by_cleanlab("prune_by_class", "self_confidence"),
    "cleanlab-both": judge_by_cleanlab("both", "self_confidence"),
    "cleanlab-confident": judge_by_cleanlab("confident_learning", "confidence_weighted_entropy"),
    "cleanlab-disagreement": judge_by_cleanlab("predicted_neq_given", "normalized_margin"),
    "cleanlab-margin": judge_by_cleanlab("low_normalized_margin", "normalized_margin"),
    "cleanlab-self-confidence": judge_by_cleanlab("low_self_confidence", "self_confidence"),
    "datalab": judge_by_datalab("pred_probs"),
    "datalab-features": judge_by_datalab("features"),
}
"""Every rule of cleanlab (the first is its default), each of its three scores with one rule at least."""

FROM_FEATURES = ("datalab-features",)
"""Judges that make something of their own of the features, and so need evidence that has some."""

JUDGES: dict[str, Callable[[Case], Findings]] = {
    "lauter": judge_by_audit,
    "filter": judge_by_filter,
    "confident": judge_by_confident_learning,
    "disagreement": judge_by_disagreement,
    **CLEANLAB,
}
"""Judges of labels, by name."""
