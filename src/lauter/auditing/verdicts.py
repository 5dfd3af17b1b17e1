"""Verdicts: the checked label table, one row for each image, and what it says as a whole. Rules are ours."""

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lauter.data.dataset import UNLABELLED, Dataset, Int64s
from lauter.evaluation.metrics import label_errors_by_class, score_label_errors
from lauter.noisy.correction import propose_labels
from lauter.noisy.estimates import bound_noise_rate, estimate_noise, estimate_transition
from lauter.noisy.filtering import Assessment
from lauter.noisy.judge import Judge

ASK_ABOVE = 0.35
"""A label that is not kept, but right with at least this probability, is a question for a person."""


def decide_training_verdicts(
    labels: Int64s, assessment: Assessment, corrected: NDArray[np.bool_], ask_above: float = ASK_ABOVE
) -> NDArray[np.str_]:
    """One of keep, relabel, drop, ask for each image; an unlabelled one is relabelled or asked about.

    Args:
        labels: [N] given labels.
        assessment: what the filter says.
        corrected: [N] whether the suggested label is trusted.
        ask_above: see ``ASK_ABOVE``.
    """
    verdicts = np.full(len(labels), "drop", dtype="<U10")
    verdicts[assessment.p_right >= ask_above] = "ask"
    verdicts[labels == UNLABELLED] = "ask"
    verdicts[corrected] = "relabel"
    verdicts[assessment.kept] = "keep"
    return verdicts


def make_label_table(data: Dataset, judge: Judge, holdout: Int64s) -> pd.DataFrame:
    """The checked label table.

    Columns: id, given, verdict, suggested, p_given_right, p_open, then the scores behind them: belief_given
    and belief_suggested (mean beliefs, the latter with the class prior taken out), ensemble_given,
    votes_given, standing (see ``noisy/filtering.py``) and part (train or holdout).

    p_open = (1 - p_given_right)(1 - belief_suggested) orders images by how likely they belong to no class;
    it is a score, not calibrated.
    """
    assessment = judge.assessment
    suggested, confidence = propose_labels(judge.beliefs, judge.prior)
    rows, given = np.arange(len(data)), np.maximum(data.labels, 0)
    names: NDArray[np.object_] = np.array(data.class_names, dtype=object)
    known = data.labelled
    own_names = names[given]
    own_names[~known] = None
    part = np.full(len(data), "train", dtype="<U7")
    part[holdout] = "holdout"
    own = {
        "belief_given": judge.beliefs,
        "ensemble_given": judge.ensemble.probabilities,
        "votes_given": judge.votes,
    }
    scores = {name: np.where(known, source[rows, given], np.nan) for name, source in own.items()}
    return pd.DataFrame(
        {
            "id": data.ids.astype(object),
            "given": own_names,
            "verdict": decide_training_verdicts(data.labels, assessment, judge.corrected).astype(object),
            "suggested": np.where(assessment.kept, names[given], names[suggested]),
            "p_given_right": np.where(known, assessment.p_right, np.nan),
            "p_open": (1 - assessment.p_right) * (1 - confidence),
            "belief_given": scores["belief_given"],
            "belief_suggested": confidence,
            "ensemble_given": scores["ensemble_given"],
            "votes_given": scores["votes_given"],
            "standing": np.where(known, assessment.standing, np.nan),
            "part": part.astype(object),
        }
    )


def summarise_labels(data: Dataset, judge: Judge, table: pd.DataFrame) -> dict[str, Any]:
    """What the table says as a whole, for metrics.json; no truth is read here.

    Intervals count sampling alone, see ``lauter.noisy.estimates``. Closed and open rate are told apart by how
    typical of a class an image is: an unclear image of a class counts as open there.
    """
    assessment, known = judge.assessment, data.labelled
    rate = bound_noise_rate(assessment.p_right[known], assessment.noise_rate)
    kinds = estimate_noise(
        judge.beliefs, data.labels, assessment.p_right, judge.prior, np.random.default_rng(0)
    )
    counts = {str(name): int(count) for name, count in table.loc[known, "verdict"].value_counts().items()}
    return {
        "images": len(data),
        "counts": {
            **{name: counts.get(name, 0) for name in ("keep", "relabel", "drop", "ask")},
            "unlabelled": int((~known).sum()),
        },
        "noise_rate": rate.to_dict(),
        "closed_rate": kinds.closed_rate.to_dict(),
        "open_rate": kinds.open_rate.to_dict(),
        "noise_rate_by_class": {
            name: float(value)
            for name, value in zip(data.class_names, assessment.class_noise_rates, strict=True)
        },
        "transition_matrix": estimate_transition(judge.beliefs, data.labels, assessment.p_right).tolist(),
        "faults": len(data.faults),
    }


def score_labels(data: Dataset, table: pd.DataFrame) -> dict[str, Any]:
    """Compare the table with the truth, where the data set has one: evaluation only.

    Returns:
        true_noise_rate; auroc, average_precision, precision, recall, f1, best_f1 of finding wrong labels (an
        open image's label is always wrong) and f1_by_class; correction_precision; dropped_or_relabelled.
        Empty without truth.
    """
    if data.true_labels is None:
        return {}
    known = data.labelled
    truth, given = data.true_labels[known], data.labels[known]
    rows = table[known]
    wrong = truth != given
    flagged = (rows["verdict"] != "keep").to_numpy()
    score = 1 - rows["p_given_right"].to_numpy(dtype=np.float64)
    result: dict[str, Any] = {"true_noise_rate": float(wrong.mean())}
    if 0 < wrong.sum() < len(wrong):
        result |= score_label_errors(wrong, score, flagged)
        by_class = label_errors_by_class(wrong, flagged, given, data.num_classes)
        result["f1_by_class"] = {
            name: None if math.isnan(value) else float(value)
            for name, value in zip(data.class_names, by_class["f1"], strict=True)
        }
    names = np.array(data.class_names, dtype=object)
    relabelled = (rows["verdict"] == "relabel").to_numpy()
    if relabelled.any():
        hit = (truth >= 0) & (names[np.maximum(truth, 0)] == rows["suggested"].to_numpy())
        result["correction_precision"] = float(hit[relabelled].mean())
    result["dropped_or_relabelled"] = float(rows["verdict"].isin(["drop", "relabel"]).mean())
    return result
