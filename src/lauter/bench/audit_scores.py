"""Findings against the truth: ranking, automatic threshold, calibration, estimated rates, what to look at."""

import math

import numpy as np

from lauter.bench.audit_rivals import Findings
from lauter.data.dataset import OPEN, Int64s
from lauter.errors import ConfigError
from lauter.evaluation.calibration import adaptive_calibration_error, brier_skill
from lauter.evaluation.intervals import Interval
from lauter.evaluation.metrics import (
    Bools,
    brier,
    expected_calibration_error,
    label_errors_by_class,
    score_label_errors,
)

REVIEWED = 200
"""A person looks at so many images, or at half as many as there are bad labels, if that is fewer."""


def score_findings(found: Findings, labels: Int64s, truth: Int64s, num_classes: int) -> dict[str, float]:
    """Everything that is measured of one judge.

    A measure that the data do not define, or that the judge says nothing of, is left out.

    Args:
        found: of N labels.
        labels: [N] given labels, each image has one.
        truth: [N] true labels; an open image's (-1) label is always wrong.
        num_classes: K.

    Returns:
        By metric:

        - auroc, average_precision, best_f1 (over all thresholds: an oracle) of the doubt;
        - precision, recall, f1 of what is flagged, f1_of_best = f1 / best_f1, and the share flagged;
        - f1_worst_class, recall_worst_class: the lowest over given classes that have a wrong label;
        - of the probability of being right: calibration_error (15 bins of equal width),
          adaptive_calibration_error (of equal count), brier, brier_base (that of the base rate) and
          brier_of_base, their ratio;
        - KIND_true, KIND_estimated, and where there is an interval KIND_low, KIND_high, KIND_width and
          KIND_inside (1 where it holds the truth, else 0), of KIND noise, closed and open;
        - review_precision: share of bad labels among the first ``review_size`` shown;
        - correction_precision of what is relabelled, and the share relabelled;
        - advises: 1 where the judge says that acting helps, else 0.

    Raises:
        ConfigError: there is an image without a given label.
        DataError: lengths do not fit, or a score is not finite.
    """
    if (labels < 0).any():
        raise ConfigError("findings are scored on labelled images; leave the unlabelled ones out")
    wrong = np.asarray(truth != labels)
    values = score_label_errors(wrong, found.doubt, found.flagged)
    if values.get("best_f1"):
        values["f1_of_best"] = values["f1"] / values["best_f1"]
    values["flagged"] = float(found.flagged.mean())
    values |= _score_classes(found.flagged, wrong, labels, num_classes)
    values |= _score_probabilities(found, wrong)
    values |= _score_rates(found, wrong, truth)
    values |= _score_review(found, wrong)
    values |= _score_corrections(found, truth)
    if found.advises is not None:
        values["advises"] = float(found.advises)
    return values


def _score_classes(flagged: Bools, wrong: Bools, labels: Int64s, num_classes: int) -> dict[str, float]:
    by_class = label_errors_by_class(wrong, flagged, labels, num_classes)
    hit = np.isfinite(by_class["recall"])
    if not hit.any():
        return {}
    return {f"{name}_worst_class": float(by_class[name][hit].min()) for name in ("f1", "recall")}


def _score_probabilities(found: Findings, wrong: Bools) -> dict[str, float]:
    if found.p_right is None:
        return {}
    right = ~wrong
    values = {
        "calibration_error": expected_calibration_error(found.p_right, right),
        "adaptive_calibration_error": adaptive_calibration_error(found.p_right, right),
        "brier": brier(found.p_right, right),
    }
    rate = float(wrong.mean())
    if 0 < rate < 1:
        values["brier_base"] = rate * (1 - rate)
        values["brier_of_base"] = 1 - brier_skill(found.p_right, right)
    return values


def _score_rates(found: Findings, wrong: Bools, truth: Int64s) -> dict[str, float]:
    open_ = truth == OPEN
    true_rates = {"noise": wrong, "closed": wrong & ~open_, "open": open_}
    values = {"noise_true": float(wrong.mean())}
    for kind, estimate in found.rates.items():
        true = values[f"{kind}_true"] = float(true_rates[kind].mean())
        if not isinstance(estimate, Interval):
            values[f"{kind}_estimated"] = float(estimate)
            continue
        values[f"{kind}_estimated"] = estimate.value
        values[f"{kind}_low"], values[f"{kind}_high"] = estimate.low, estimate.high
        values[f"{kind}_width"] = estimate.high - estimate.low
        values[f"{kind}_inside"] = float(estimate.low <= true <= estimate.high)
    return values


def _score_review(found: Findings, wrong: Bools) -> dict[str, float]:
    size = min(REVIEWED, math.floor(int(wrong.sum()) / 2))
    if not size:
        return {}
    order = np.argsort(-found.doubt, kind="stable") if found.review is None else found.review
    shown = wrong[order[:size]]
    # A plan that ends before is short of what was asked for: what it does not show it does not find.
    return {"review_size": float(size), "review_precision": float(shown.sum()) / size}


def _score_corrections(found: Findings, truth: Int64s) -> dict[str, float]:
    if found.suggested is None:
        return {}
    changed = found.flagged if found.relabelled is None else found.relabelled
    values = {"relabelled": float(changed.mean())}
    if changed.any():
        values["correction_precision"] = float((found.suggested == truth)[changed].mean())
    return values
