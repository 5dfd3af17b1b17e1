"""LabelAuditor: the audit of labels as a scikit-learn estimator, for features of any modality."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from lauter.auditing.evidence import EvidenceConfig, gather_evidence
from lauter.auditing.judging import JudgingConfig, judge_labels
from lauter.auditing.newcomers import Verdicts, make_reference
from lauter.data.dataset import UNLABELLED, Int64s
from lauter.errors import DataError
from lauter.noisy.beliefs import Floats


class LabelAuditor(BaseEstimator):  # type: ignore[misc]
    """Which labels are wrong, how sure that is, and what they should be.

    Labels are judged out of fold: none by a model that was fitted to it. Features may come from any network
    and any modality, as long as it was not trained on these labels.

    Parameters are stored as they are given, and looked at by :meth:`fit`.

    Args:
        precision: how sure a relabelling or a dropping must be; what is wrong, but not so surely, is asked
            about.
        evidence: where beliefs come from (:class:`lauter.auditing.evidence.EvidenceConfig`); its defaults
            where None.
        judging: further settings of the judging (:class:`lauter.auditing.judging.JudgingConfig`), in which
            ``precision`` above takes the place of its own.
        classes: the classes, in the order of the columns of probabilities; where None, the distinct labels,
            sorted.
        unlabelled: a label that means that there is none, beside None and NaN, which always do; None where
            every value is a class.
        random_state: seed of everything drawn, or a numpy Generator.

    Attributes:
        classes_: [K] the classes.
        verdicts_: [N] keep, relabel, drop or ask.
        suggested_: [N] the class that fits best; the given one where the label is kept.
        p_given_right_: [N] calibrated probability that the given label is right; NaN where there is none.
        noise_rate_: share of wrong labels with its 90% interval (``value``, ``low``, ``high``).
        judgement_: everything that was found (:class:`lauter.auditing.judgement.Judgement`); classes are
            positions in ``classes_`` there.
        evidence_: what is believed of every example.
        n_features_in_: D; absent where there were probabilities alone.
        feature_names_in_: [D] names of columns, where X was a DataFrame with names as columns.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> digits, labels = load_digits(return_X_y=True)
        >>> labels[::20] = (labels[::20] + 1) % 10  # every 20th label is wrong now
        >>> auditor = LabelAuditor().fit(digits, labels)
        >>> bool((auditor.verdicts_[::20] != "keep").mean() > 0.9)
        True
        >>> bool(abs(auditor.noise_rate_.value - 0.05) < 0.02)
        True
    """

    def __init__(
        self,
        precision: float = 0.95,
        *,
        evidence: EvidenceConfig | None = None,
        judging: JudgingConfig | None = None,
        classes: Sequence[Any] | None = None,
        unlabelled: Any = -1,
        random_state: int | np.random.Generator = 0,
    ) -> None:
        self.precision = precision
        self.evidence = evidence
        self.judging = judging
        self.classes = classes
        self.unlabelled = unlabelled
        self.random_state = random_state

    def fit(
        self, X: ArrayLike | None, y: ArrayLike, *, probabilities: ArrayLike | None = None
    ) -> "LabelAuditor":
        """Audit labelled examples.

        Args:
            X: [N, D] features; None where there are probabilities alone.
            y: [N] given labels: strings, integers or truth values; None, NaN and ``unlabelled`` where there
                is none.
            probabilities: [N, K] out-of-fold predictions of any other model, columns in the order of
                ``classes_``. With features beside them the neighbours vote as well.

        Returns:
            The auditor itself.

        Raises:
            DataError: shapes do not fit, values are not finite, a label is no class, or there are not two
                classes.
            ConfigError: a parameter is out of its range, or there are neither features nor probabilities.
        """
        judging = dataclasses.replace(self.judging or JudgingConfig(), precision=self.precision)
        given = _read_labels(y, self.unlabelled)
        classes = _find_classes(given, self.classes, self.unlabelled)
        labels = _encode(given, classes)
        features = _read_features(X)
        predicted = None if probabilities is None else np.asarray(probabilities)
        generator = np.random.default_rng(self.random_state)
        found = gather_evidence(
            features, labels, len(classes), self.evidence, generator, probabilities=predicted
        )
        judgement = judge_labels(found.beliefs, labels, judging, generator)
        self.classes_ = classes
        self.evidence_, self.judgement_ = found, judgement
        self.verdicts_, self.p_given_right_ = judgement.verdicts, judgement.p_given_right
        self.suggested_ = classes[judgement.suggested]
        self.noise_rate_ = judgement.noise_rate
        self._reference = make_reference(features, labels, found, judgement, judging.precision)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self, name):
                delattr(self, name)  # of an earlier fit
        if features is not None:
            self.n_features_in_ = features.shape[1]
        if (names := _find_names(X)) is not None:
            self.feature_names_in_ = names
        return self

    def fit_predict(
        self, X: ArrayLike | None, y: ArrayLike, *, probabilities: ArrayLike | None = None
    ) -> NDArray[np.str_]:
        """Audit labelled examples and give their verdicts [N]; see :meth:`fit`."""
        return self.fit(X, y, probabilities=probabilities).verdicts_

    def predict(
        self, X: ArrayLike | None, y: ArrayLike, *, probabilities: ArrayLike | None = None
    ) -> NDArray[np.str_]:
        """Verdicts of labelled examples that were not audited: a delivery of new labels, say.

        Each is judged by itself, by the audited examples (see ``lauter/auditing/newcomers.py``). For the
        audited examples themselves take ``verdicts_``: here their own labels would vote for them.

        Args:
            X: [B, D] features of the same network.
            y: [B] their given labels, of the classes that were audited.
            probabilities: [B, K], where the audit had such.

        Returns:
            [B] keep, relabel, drop or ask.
        """
        return self._judge(X, y, probabilities).verdicts

    def score_samples(
        self, X: ArrayLike | None, y: ArrayLike, *, probabilities: ArrayLike | None = None
    ) -> Floats:
        """Probability [B] that the labels of new examples are right, NaN where there is none.

        Arguments as for :meth:`predict`; the higher, the less doubtful.
        """
        return self._judge(X, y, probabilities).p_given_right

    def suggest(
        self, X: ArrayLike | None, y: ArrayLike, *, probabilities: ArrayLike | None = None
    ) -> NDArray[Any]:
        """Classes [B] that fit new examples best, the given ones where they are kept; as :meth:`predict`."""
        classes: NDArray[Any] = self.classes_[self._judge(X, y, probabilities).suggested]
        return classes

    def predict_proba(self, X: ArrayLike | None, *, probabilities: ArrayLike | None = None) -> Floats:
        """What is believed of new examples, whatever their labels: [B, K], columns as ``classes_``.

        These are beliefs about the class, under the class shares of the audited labels; the probability that
        a given label is right is :meth:`score_samples`.
        """
        check_is_fitted(self)
        predicted = None if probabilities is None else np.asarray(probabilities)
        return self._reference.believe(_read_features(X), predicted)

    def _judge(self, X: ArrayLike | None, y: ArrayLike, probabilities: ArrayLike | None) -> Verdicts:
        beliefs = self.predict_proba(X, probabilities=probabilities)
        labels = _encode(_read_labels(y, self.unlabelled), self.classes_)
        if len(labels) != len(beliefs):
            raise DataError(f"there are {len(labels)} labels for {len(beliefs)} examples")
        return self._reference.judge(beliefs, labels)


def _read_features(X: ArrayLike | None) -> NDArray[Any] | None:
    """Features as a matrix of floating point numbers, as they are where they are that already."""
    if X is None:
        return None
    features = np.asarray(X)
    if features.ndim != 2:
        raise DataError(f"X must be features [N, D], not of shape {list(features.shape)}")
    if np.issubdtype(features.dtype, np.floating):
        return features
    try:
        return features.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"X must hold numbers, not {features.dtype}: {error}") from error


def _find_names(X: object) -> NDArray[np.object_] | None:
    """Names of the columns, where there are any and all of them are text."""
    if not isinstance(X, pd.DataFrame) or not all(isinstance(name, str) for name in X.columns):
        return None
    return np.asarray(X.columns, dtype=object)


def _read_labels(y: ArrayLike, unlabelled: Any) -> NDArray[np.object_]:
    """Labels [N] as Python values, None where there is none."""
    # NumPy alone would make the text 'nan' of a NaN that stands in a list of names.
    labels = np.asarray(y, dtype=None if hasattr(y, "__array__") else object)
    if labels.ndim != 1:
        raise DataError(f"y must be labels [N], one for each example, not of shape {list(labels.shape)}")
    cells: NDArray[np.object_] = np.empty(len(labels), dtype=object)
    for row, value in enumerate(labels):
        plain = value.item() if isinstance(value, np.generic) else value
        if isinstance(plain, float) and plain.is_integer():
            plain = int(plain)  # integers beside NaN are read as floats
        cells[row] = None if pd.isna(plain) or _is_same(plain, unlabelled) else plain
    return cells


def _find_classes(
    labels: NDArray[np.object_], classes: Sequence[Any] | None, unlabelled: Any
) -> NDArray[Any]:
    if classes is not None:
        found = list(classes)
        if len(set(found)) < len(found):
            raise DataError(f"classes must differ from each other; got {found}")
    else:
        found = list({value for value in labels if value is not None})
        kinds = sorted({type(value).__name__ for value in found})
        if len(kinds) > 1:
            raise DataError(f"labels must be of one kind, not {' and '.join(kinds)} together")
        found.sort()
    if len(found) < 2:
        hint = "" if unlabelled is None else f" ({unlabelled!r} means that there is none; see unlabelled)"
        raise DataError(f"an audit needs two classes or more, and there are {len(found)}: {found}{hint}")
    return np.array(found)


def _encode(labels: NDArray[np.object_], classes: NDArray[Any]) -> Int64s:
    """Positions in ``classes``, -1 where there is no label."""
    place: dict[Any, int] = {value: number for number, value in enumerate(classes.tolist())}
    if strange := sorted({repr(value) for value in labels if value is not None and value not in place}):
        raise DataError(
            f"{len(strange)} labels are no class: {', '.join(strange[:3])}; "
            f"the classes are {', '.join(map(repr, list(place)[:10]))}"
        )
    numbers = [UNLABELLED if value is None else place[value] for value in labels]
    return np.array(numbers, dtype=np.int64)


def _is_same(value: object, unlabelled: object) -> bool:
    """Equal and of one kind: True is not 1 here."""
    return isinstance(value, bool) == isinstance(unlabelled, bool) and bool(value == unlabelled)
