"""Metrics that stay valid on noisy, open and imbalanced data, their intervals, and the protocol."""

from lauter.evaluation.calibration import adaptive_calibration_error, brier_skill
from lauter.evaluation.counts import ClassCounts, count_classes
from lauter.evaluation.intervals import (
    Interval,
    PairedDifference,
    bootstrap_auroc,
    bootstrap_metrics,
    paired_difference,
)
from lauter.evaluation.metrics import (
    accuracy,
    balanced_accuracy,
    balanced_agreement,
    brier,
    expected_calibration_error,
    label_errors_by_class,
    macro_f1,
    open_auroc,
    open_macro_f1,
    per_class_recall,
    score_label_errors,
    worst_class_recall,
)
from lauter.evaluation.protocol import EpochPredictions, RunScores, score_agreement, score_run, select_epoch

__all__ = [
    "ClassCounts",
    "EpochPredictions",
    "Interval",
    "PairedDifference",
    "RunScores",
    "accuracy",
    "adaptive_calibration_error",
    "balanced_accuracy",
    "balanced_agreement",
    "bootstrap_auroc",
    "bootstrap_metrics",
    "brier",
    "brier_skill",
    "count_classes",
    "expected_calibration_error",
    "label_errors_by_class",
    "macro_f1",
    "open_auroc",
    "open_macro_f1",
    "paired_difference",
    "per_class_recall",
    "score_agreement",
    "score_label_errors",
    "score_run",
    "select_epoch",
    "worst_class_recall",
]
