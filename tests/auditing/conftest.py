from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from lauter.auditing.report import ReportContent
from lauter.data.dataset import ImageFault

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def interval(value, half=0.012):
    return {"value": value, "low": value - half, "high": min(1.0, value + half)}


def make_scores(value, **more):
    metrics = {
        "balanced_accuracy": interval(value),
        "macro_f1": interval(value - 0.008),
        "worst_class_recall": interval(value - 0.11, 0.03),
        "accuracy": interval(value + 0.004),
        "open_auroc": interval(value - 0.04, 0.015),
    }
    last = {name: interval(entry["value"] - 0.006) for name, entry in metrics.items()}
    return {"selected": metrics, "last": last, "selected_epoch": 31, "oracle_gap": 0.0042, **more}


def make_history(rng):
    history = []
    for stage, epochs in (("pretrain", 40), ("warmup", 8), ("robust", 36), ("distill", 40), ("baseline", 36)):
        for epoch in range(epochs):
            done = (epoch + 1) / epochs
            wobble = rng.normal(0, 0.01)
            entry = {"stage": stage, "epoch": epoch, "images_per_second": 900.0, "seconds": 2.1}
            if stage == "pretrain":
                entry |= {
                    "loss": {"moco": 6.3 - 2.1 * done**0.5 + wobble},
                    "metrics": {"knn_agreement": 0.3 + 0.3 * done},
                }
            elif stage == "distill":
                angle = 62 * (1 - done) ** 1.5 + 14 + 20 * wobble
                entry |= {
                    "loss": {
                        "lsh": 0.69 - 0.4 * done**0.6 + wobble,
                        "l2": 0.5 * (1 - done) + 0.1,
                        "ce": 1.9 - 1.2 * done,
                    },
                    "metrics": {
                        "agreement_with_given": 0.4 + 0.25 * done + wobble,
                        "angle_p10": 0.6 * angle,
                        "angle_p50": angle,
                        "angle_p90": 1.6 * angle,
                        "norm_ratio_p10": 0.55 + 0.3 * done,
                        "norm_ratio_p50": 0.7 + 0.28 * done,
                        "norm_ratio_p90": 0.9 + 0.35 * done,
                    },
                }
            else:
                entry |= {
                    "loss": {"cross_entropy": 2.3 - 1.3 * done + wobble},
                    "metrics": {
                        "agreement_with_given": 0.35 + 0.3 * done**0.7 + wobble,
                        "kept": 0.9 - 0.25 * done,
                    },
                }
                if stage == "robust":
                    entry["metrics"] |= {
                        "images_relabelled": float(round(180 * done)),
                        "estimated_noise_rate": 0.31 + wobble,
                    }
            history.append(entry)
    return history


@pytest.fixture(scope="session")
def content():
    """A report as a run on noisy digits would make it, with every section filled."""
    rng = np.random.default_rng(0)
    digits = load_digits()
    n, truth = len(digits.target), digits.target
    is_open, is_wrong = rng.random(n) < 0.08, rng.random(n) < np.where(truth < 5, 0.15, 0.3)
    given = np.where(is_wrong, (truth + rng.integers(1, 10, n)) % 10, truth)
    wrong = is_open | is_wrong
    right = np.clip(rng.beta(1.2, 9, n) * wrong + rng.beta(12, 1.3, n) * ~wrong, 0.001, 0.999)
    p_open = np.clip(rng.beta(7, 3, n) * is_open + rng.beta(1, 12, n) * ~is_open, 0, 1)
    verdict = np.select(
        [(right > 0.35) & (right < 0.6), right >= 0.6, p_open > 0.5], ["ask", "keep", "drop"], "relabel"
    )
    ids = np.array([f"train/{NAMES[label]}/scan-{row:05d}.png" for row, label in enumerate(given)])
    names = np.array(NAMES, dtype=object)
    table = pd.DataFrame(
        {
            "id": ids,
            "given": names[given],
            "verdict": verdict,
            "suggested": np.where(verdict == "relabel", names[truth], names[given]),
            "p_given_right": right,
            "p_open": p_open,
        }
    )
    table.loc[:30, ["given", "p_given_right"]] = [None, np.nan]
    table.loc[:30, "verdict"] = "unlabelled"
    matrix = np.zeros((10, 10))
    np.add.at(matrix, (truth, given), 1)
    tint = rng.uniform(0.5, 1, (n, 3, 1, 1))

    def picture(row):
        grey = np.kron(digits.images[row] / 16, np.ones((4, 4)))
        return (255 * (1 - grey[None] * tint[row])).astype(np.uint8)

    counts = {
        name: int((table["verdict"] == name).sum())
        for name in ("keep", "relabel", "drop", "ask", "unlabelled")
    }
    metrics = {
        "student": make_scores(0.921, parameters=78_042, flops=12.7e6),
        "teacher": make_scores(0.934, parameters=272_474, flops=41.2e6),
        "baseline": make_scores(0.843),
        "labels": {
            "counts": counts,
            "noise_rate": interval(0.294),
            "noise_rate_by_class": {
                name: float((wrong & (given == k)).sum() / (given == k).sum()) for k, name in enumerate(NAMES)
            },
            "transition_matrix": (matrix / matrix.sum(1, keepdims=True)).tolist(),
            "auroc": 0.968,
            "average_precision": 0.941,
            "precision": 0.902,
            "recall": 0.887,
            "f1": 0.894,
        },
        "cost": {
            "seconds": 1312.4,
            "images_processed": 411_000,
            "flops": 2.94e13,
            "stages": {
                "pretrain": {
                    "seconds": 412.0,
                    "images": 143_760,
                    "flops": 1.2e13,
                    "images_per_second": 349.0,
                },
                "warmup": {"seconds": 9.5, "images": 14_376, "flops": 4e10, "images_per_second": 1513.0},
                "robust": {"seconds": 610.2, "images": 64_692, "flops": 9.1e12, "images_per_second": 106.0},
                "distill": {"seconds": 280.7, "images": 71_880, "flops": 8.2e12, "images_per_second": 256.0},
            },
        },
    }
    faults = (
        ImageFault("train/six/scan-01901.png", "unreadable", "cannot identify image file", dropped=True),
        ImageFault(
            "train/two/scan-01844.png",
            "truncated",
            "image file is truncated (12 bytes not processed)",
            dropped=False,
        ),
        ImageFault(
            "train/two/scan-01845.png",
            "truncated",
            "image file is truncated (3 bytes not processed)",
            dropped=False,
        ),
    )
    config = {
        "data": {"source": "digits", "split": "train"},
        "seed": 0,
        "recipe": {"stages": ["pretrain", "warmup", "robust", "distill"], "precision": "bf16"},
        "student": {"name": "resnet8", "head": "own"},
    }
    return ReportContent(
        title="Noisy digits, seen clearly",
        dataset_name="digits",
        class_names=NAMES,
        ids=ids,
        labels=table,
        picture=picture,
        metrics=metrics,
        history=make_history(rng),
        faults=faults,
        config=config,
    )


@pytest.fixture(scope="session")
def empty_content(content):
    """The same data set with nothing found out about it."""
    return replace(content, labels=None, picture=None, metrics={}, history=(), faults=(), config={})
