"""The protocol: predictions are stored while training and scored after it; the test set decides nothing."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lauter.errors import DataError
from lauter.evaluation.counts import CLOSED_METRICS, NONE, OPEN_METRICS, ClassCounts, Floats, count_classes
from lauter.evaluation.intervals import CountMetrics, Interval, bootstrap_auroc, bootstrap_metrics
from lauter.files import atomic_path

Labels = NDArray[np.integer[Any]]
UInt16s = NDArray[np.uint16]
Float32s = NDArray[np.float32]

AGREEMENT_METRICS: CountMetrics = {"agreement_with_given": ClassCounts.balanced_accuracy}


class EpochPredictions:
    """Each epoch's predictions of one set of images, collected without looking at any label.

    Two bytes per image and epoch: 200 epochs of 10,000 images are 4 MB.

    Args:
        num_images: N, what every epoch must bring.
    """

    def __init__(self, num_images: int) -> None:
        self.num_images = num_images
        self._predictions: list[UInt16s] = []
        self._known_scores: list[Float32s] = []

    def __len__(self) -> int:
        return len(self._predictions)

    def append(self, predictions: Labels, known_scores: NDArray[np.floating[Any]] | None = None) -> None:
        """Add an epoch.

        Args:
            predictions: [N] predicted class, 0..65535.
            known_scores: [N] higher means more likely of a known class; in every epoch or in none.

        Raises:
            DataError: a length or range does not fit, or scores come in some epochs only.
        """
        values = np.asarray(predictions)
        self._check_length("predictions", values)
        if values.size and (values.min() < 0 or values.max() > np.iinfo(np.uint16).max):
            raise DataError(f"predictions must be in 0..65535, found {values.min()}..{values.max()}")
        if self._predictions and (known_scores is not None) != bool(self._known_scores):
            raise DataError("known_scores must come in every epoch or in none")
        if known_scores is not None:
            scores = np.asarray(known_scores, dtype=np.float32)
            self._check_length("known_scores", scores)
            self._known_scores.append(scores.copy())
        self._predictions.append(values.astype(np.uint16))

    def _check_length(self, name: str, values: NDArray[Any]) -> None:
        if values.shape != (self.num_images,):
            raise DataError(
                f"{name} must be [{self.num_images}], one entry by image, not {list(values.shape)}"
            )

    @property
    def predictions(self) -> UInt16s:
        """uint16 [E, N]."""
        return np.array(self._predictions, dtype=np.uint16).reshape(len(self), self.num_images)

    @property
    def known_scores(self) -> Float32s | None:
        """float32 [E, N], or None where no epoch brought any."""
        return np.array(self._known_scores, dtype=np.float32) if self._known_scores else None

    def truncate(self, num_epochs: int) -> None:
        """Forget what comes after the first ``num_epochs`` epochs: a resumed run goes over them again."""
        if not 0 <= num_epochs <= len(self):
            raise DataError(f"cannot keep {num_epochs} of {len(self)} epochs")
        del self._predictions[num_epochs:]
        del self._known_scores[num_epochs:]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as an .npz archive, whole or not at all."""
        arrays: dict[str, NDArray[Any]] = {"predictions": self.predictions}
        if self.known_scores is not None:
            arrays["known_scores"] = self.known_scores
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "EpochPredictions":
        """Read what :meth:`save` wrote.

        Raises:
            DataError: the file holds no predictions [E, N].
        """
        with np.load(path, allow_pickle=False) as arrays:
            if "predictions" not in arrays or arrays["predictions"].ndim != 2:
                raise DataError(f"{os.fspath(path)} holds no predictions [E, N]; it holds {sorted(arrays)}")
            predictions = arrays["predictions"]
            scores = arrays["known_scores"] if "known_scores" in arrays else [None] * len(predictions)
        collected = cls(predictions.shape[1])
        for row, row_scores in zip(predictions, scores, strict=True):
            collected.append(row, row_scores)
        return collected


@dataclass(frozen=True)
class RunScores:
    """The scores of one run.

    Attributes:
        selected: metrics of the epoch that the noisy hold-out chose; the result.
        last: metrics of the last epoch.
        selected_epoch: which epoch was chosen, from 0.
        oracle_gap: balanced accuracy of the test-best epoch minus that of the selected one. An oracle: it
            says what selection cost and is never the result. None without truth.
    """

    selected: dict[str, Interval]
    last: dict[str, Interval]
    selected_epoch: int
    oracle_gap: float | None

    def to_dict(self) -> dict[str, Any]:
        """As metrics.json holds it."""
        result: dict[str, Any] = {
            "selected": {name: interval.to_dict() for name, interval in self.selected.items()},
            "last": {name: interval.to_dict() for name, interval in self.last.items()},
            "selected_epoch": self.selected_epoch,
        }
        if self.oracle_gap is not None:
            result["oracle_gap"] = self.oracle_gap
        return result


def select_epoch(holdout_scores: Sequence[float] | Floats) -> int:
    """The epoch with the best score on the noisy hold-out; the earliest of equals.

    Args:
        holdout_scores: [E] balanced agreement with the given labels of the hold-out.

    Raises:
        DataError: there is no epoch, or a score is not finite.
    """
    scores = np.asarray(holdout_scores, dtype=np.float64)
    if scores.ndim != 1 or not scores.size:
        raise DataError(f"hold-out scores must be [E] with one epoch or more, not {list(scores.shape)}")
    if not np.isfinite(scores).all():
        epoch = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise DataError(f"hold-out scores must be finite; epoch {epoch} has {scores[epoch]}")
    return int(np.argmax(scores))


def score_run(
    test_predictions: Labels,
    true_labels: Labels,
    holdout_scores: Sequence[float] | Floats,
    num_classes: int,
    generator: np.random.Generator,
    known_scores: NDArray[np.floating[Any]] | None = None,
    resamples: int = 1000,
) -> RunScores:
    """Score a finished run on a test set with known truth.

    Images of no class (true label -1) add ``open_macro_f1`` and, where ``known_scores`` are given,
    ``open_auroc``.

    Args:
        test_predictions: [E, N] predicted class by epoch and image.
        true_labels: [N] true class, or -1 for images of no class.
        holdout_scores: [E] balanced agreement with the given labels of the noisy hold-out.
        num_classes: K.
        generator: source of the bootstrap draws.
        known_scores: [E, N] higher means more likely of a known class.
        resamples: bootstrap resamples of an interval.

    Raises:
        DataError: shapes or ranges do not fit.
    """
    predictions = _check_epochs("test_predictions", test_predictions, true_labels)
    if len(holdout_scores) != len(predictions):
        raise DataError(f"{len(holdout_scores)} hold-out scores for {len(predictions)} epochs of predictions")
    truth = np.asarray(true_labels)
    has_open = bool((truth == NONE).any())
    metrics = {**CLOSED_METRICS, **OPEN_METRICS} if has_open else CLOSED_METRICS
    scores = None if known_scores is None else _check_epochs("known_scores", known_scores, true_labels)
    if scores is not None and len(scores) != len(predictions):
        raise DataError(f"known_scores of {len(scores)} epochs for {len(predictions)} epochs of predictions")

    def score_epoch(epoch: int) -> dict[str, Interval]:
        result = bootstrap_metrics(predictions[epoch], truth, num_classes, generator, metrics, resamples)
        if has_open and scores is not None:
            result["open_auroc"] = bootstrap_auroc(scores[epoch], truth, generator, resamples)
        return result

    chosen, last = select_epoch(holdout_scores), len(predictions) - 1
    selected = score_epoch(chosen)
    best = max(float(count_classes(row, truth, num_classes).balanced_accuracy()) for row in predictions)
    return RunScores(
        selected=selected,
        last=selected if chosen == last else score_epoch(last),
        selected_epoch=chosen,
        oracle_gap=best - selected["balanced_accuracy"].value,
    )


def score_agreement(
    holdout_predictions: Labels,
    given_labels: Labels,
    num_classes: int,
    generator: np.random.Generator,
    resamples: int = 1000,
) -> RunScores:
    """Score a finished run where no truth is known, on the noisy hold-out.

    The one metric is ``agreement_with_given``, the balanced agreement with the labels as given. There is no
    oracle here, and the number is no accuracy: a perfect model agrees with given labels only as often as
    they are right. The selected epoch is chosen on these very images, so its number leans upwards a little;
    the last epoch's does not.

    Args:
        holdout_predictions: [E, N] predicted class by epoch and image of the hold-out.
        given_labels: [N] labels as given; -1 (unlabelled) is left out.
        num_classes: K.
        generator: source of the bootstrap draws.
        resamples: bootstrap resamples of an interval.
    """
    predictions = _check_epochs("holdout_predictions", holdout_predictions, given_labels)
    labels = np.asarray(given_labels)
    agreement = [float(count_classes(row, labels, num_classes).balanced_accuracy()) for row in predictions]
    chosen, last = select_epoch(agreement), len(predictions) - 1
    intervals = {
        epoch: bootstrap_metrics(
            predictions[epoch], labels, num_classes, generator, AGREEMENT_METRICS, resamples
        )
        for epoch in sorted({chosen, last})
    }
    return RunScores(intervals[chosen], intervals[last], chosen, oracle_gap=None)


def _check_epochs(name: str, values: NDArray[Any], labels: Labels) -> NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != 2 or not len(array) or array.shape[1] != len(labels):
        raise DataError(
            f"{name} must be [E, {len(labels)}], epochs by images with a label each, not {list(array.shape)}"
        )
    return array
