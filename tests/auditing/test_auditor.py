"""LabelAuditor: what scikit-learn expects of an estimator, labels of any kind, examples not seen before."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from lauter.auditing.auditor import LabelAuditor
from lauter.auditing.evidence import EvidenceConfig
from lauter.auditing.judging import JudgingConfig
from lauter.errors import ConfigError, DataError

Array = np.ndarray[Any, Any]
NAMES = np.array(["ant", "bee", "cow"])


def draw(count: int, seed: int) -> tuple[Array, Array, Array]:
    """Features of three well parted classes, given labels of which a tenth is wrong, and the truth."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, count)
    features = (rng.normal(size=(count, 6)) + 4 * np.eye(3, 6)[true]).astype(np.float32)
    wrong = rng.random(count) < 0.1
    return features, np.where(wrong, (true + 1) % 3, true), true


FEATURES, LABELS, TRUE = draw(300, 0)
NEW_FEATURES, NEW_LABELS, NEW_TRUE = draw(200, 1)


@pytest.fixture(scope="module")
def fitted() -> LabelAuditor:
    """An auditor of names, for tests that only look at it."""
    return LabelAuditor().fit(FEATURES, NAMES[LABELS])


def test_parameters_are_kept_as_they_are_and_clones_are_fresh(fitted: LabelAuditor) -> None:
    evidence, judging = EvidenceConfig(neighbours=7), JudgingConfig(budget=10)
    asked = {
        "precision": 0.8,
        "evidence": evidence,
        "judging": judging,
        "classes": ["a", "b"],
        "unlabelled": None,
        "random_state": 3,
    }
    auditor = LabelAuditor(**asked)  # type: ignore[arg-type]
    assert auditor.get_params() == asked
    assert all(auditor.get_params()[name] is value for name, value in asked.items())
    assert auditor.set_params(precision=0.9).precision == 0.9
    assert clone(auditor).get_params() == {**asked, "precision": 0.9}
    assert not hasattr(clone(fitted), "verdicts_")
    assert fitted.get_params() == LabelAuditor().get_params()
    assert "LabelAuditor" in repr(auditor)


def test_wrong_labels_are_found_and_mended(fitted: LabelAuditor) -> None:
    wrong = LABELS != TRUE
    flagged = fitted.verdicts_ != "keep"
    assert flagged[wrong].mean() > 0.9
    assert flagged[~wrong].mean() < 0.03
    assert fitted.p_given_right_[wrong].mean() < 0.5
    assert fitted.p_given_right_[~wrong].mean() > 0.9
    assert fitted.classes_.tolist() == NAMES.tolist()
    assert (fitted.suggested_[wrong] == NAMES[TRUE[wrong]]).mean() > 0.9
    kept = fitted.verdicts_ == "keep"
    np.testing.assert_array_equal(fitted.suggested_[kept], NAMES[LABELS[kept]])
    assert abs(fitted.noise_rate_.value - wrong.mean()) < 0.08
    assert fitted.noise_rate_ is fitted.judgement_.noise_rate
    assert fitted.n_features_in_ == 6
    assert not hasattr(fitted, "feature_names_in_")


@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        LABELS.astype(np.int8),
        LABELS.astype(np.float64),
        LABELS.tolist(),
        NAMES[LABELS].tolist(),
        pd.Series(NAMES[LABELS], index=np.arange(300)[::-1]),
        pd.Categorical(NAMES[LABELS]),
    ],
    ids=["ints", "small ints", "floats", "list", "list of names", "series", "categorical"],
)
def test_labels_of_any_kind_are_judged_alike(labels: Any, fitted: LabelAuditor) -> None:
    auditor = LabelAuditor()
    verdicts = auditor.fit_predict(FEATURES, labels)
    assert verdicts is auditor.verdicts_
    np.testing.assert_array_equal(verdicts, fitted.verdicts_)
    np.testing.assert_array_equal(auditor.p_given_right_, fitted.p_given_right_)
    place = {value: number for number, value in enumerate(auditor.classes_.tolist())}
    numbers = [place[value] for value in auditor.suggested_.tolist()]
    assert NAMES[numbers].tolist() == fitted.suggested_.tolist()


def test_missing_labels_are_said_in_any_way() -> None:
    rows = [3, 7, 11]
    names: Array = NAMES[LABELS].astype(object)
    found = []
    for nothing in ([None, np.nan, pd.NA], [-1, -1, None]):
        names[rows] = nothing
        found.append(LabelAuditor().fit(FEATURES, list(names)))
    numbers = LABELS.astype(np.float64)
    numbers[rows] = np.nan
    found.append(LabelAuditor().fit(pd.DataFrame(FEATURES), numbers))
    for auditor in found:
        assert len(auditor.classes_) == 3
        assert np.isnan(auditor.p_given_right_[rows]).all()
        assert np.isfinite(np.delete(auditor.p_given_right_, rows)).all()
        assert set(auditor.verdicts_[rows]) <= {"relabel", "ask"}
        np.testing.assert_array_equal(auditor.verdicts_, found[0].verdicts_)
    assert found[0].suggested_[rows].tolist() == NAMES[TRUE[rows]].tolist()
    assert found[-1].suggested_[rows].tolist() == TRUE[rows].tolist()


def test_minus_one_may_be_a_class() -> None:
    labels = np.where(LABELS == 0, -1, 1)
    auditor = LabelAuditor(unlabelled=None).fit(FEATURES, labels)
    assert auditor.classes_.tolist() == [-1, 1]
    assert np.isfinite(auditor.p_given_right_).all()
    with pytest.raises(
        DataError, match=r"two classes or more, and there are 1: \[1\] \(-1 means that there is"
    ):
        LabelAuditor().fit(FEATURES, labels)


def test_probabilities_of_another_model_take_the_place_of_features() -> None:
    distances = ((FEATURES[:, None, :3] - 4 * np.eye(3)) ** 2).sum(2)
    probabilities = np.exp(-distances / 2)
    probabilities /= probabilities.sum(1, keepdims=True)
    auditor = LabelAuditor(classes=NAMES[[2, 0, 1]].tolist())
    auditor.fit(None, NAMES[LABELS], probabilities=probabilities[:, [2, 0, 1]])
    wrong = LABELS != TRUE
    assert (auditor.verdicts_[wrong] != "keep").mean() > 0.9
    assert (auditor.suggested_[wrong] == NAMES[TRUE[wrong]]).mean() > 0.9
    assert not hasattr(auditor, "n_features_in_")
    shown = probabilities[:50, [2, 0, 1]]
    np.testing.assert_allclose(auditor.predict_proba(None, probabilities=shown), shown, rtol=1e-6)
    again = auditor.predict(None, NAMES[LABELS[:50]], probabilities=shown)
    assert (again == auditor.verdicts_[:50]).mean() > 0.9
    with pytest.raises(ConfigError, match="the audit had no features; leave those of the new examples out"):
        auditor.predict(FEATURES, NAMES[LABELS], probabilities=probabilities)
    both = LabelAuditor().fit(FEATURES, LABELS, probabilities=probabilities)
    assert both.n_features_in_ == 6
    assert both.predict_proba(NEW_FEATURES[:4], probabilities=probabilities[:4]).shape == (4, 3)


def test_new_examples_are_judged_by_the_old_ones(fitted: LabelAuditor) -> None:
    wrong = NEW_LABELS != NEW_TRUE
    names = NAMES[NEW_LABELS]
    verdicts, right = fitted.predict(NEW_FEATURES, names), fitted.score_samples(NEW_FEATURES, names)
    assert (verdicts[wrong] != "keep").mean() > 0.9
    assert (verdicts[~wrong] != "keep").mean() < 0.03
    assert right[wrong].mean() < 0.5
    assert right[~wrong].mean() > 0.9
    suggested = fitted.suggest(NEW_FEATURES, names)
    assert (suggested[wrong] == NAMES[NEW_TRUE[wrong]]).mean() > 0.9
    np.testing.assert_array_equal(suggested[verdicts == "keep"], names[verdicts == "keep"])
    beliefs = fitted.predict_proba(NEW_FEATURES)
    np.testing.assert_allclose(beliefs.sum(1), 1, rtol=1e-6)
    assert (fitted.classes_[beliefs.argmax(1)] == NAMES[NEW_TRUE]).mean() > 0.95
    bare = fitted.predict(NEW_FEATURES[:5], [None] * 5)
    assert set(bare) <= {"relabel", "ask"}
    assert np.isnan(fitted.score_samples(NEW_FEATURES[:5], [None] * 5)).all()


def test_a_precision_decides_how_much_is_asked() -> None:
    rng = np.random.default_rng(2)
    blurred = FEATURES + rng.normal(0, 2, FEATURES.shape)
    strict, lenient = (LabelAuditor(precision).fit(blurred, LABELS) for precision in (0.99, 0.6))
    assert (strict.verdicts_ == "ask").sum() > (lenient.verdicts_ == "ask").sum()
    np.testing.assert_array_equal(strict.p_given_right_, lenient.p_given_right_)
    # The precision is the auditor's, whatever the further settings have in its place.
    other = LabelAuditor(0.99, judging=JudgingConfig(precision=0.6)).fit(blurred, LABELS)
    np.testing.assert_array_equal(other.verdicts_, strict.verdicts_)


def test_an_auditor_can_be_fitted_again_and_draws_the_same() -> None:
    frame = pd.DataFrame(FEATURES, columns=list("abcdef"))
    auditor = LabelAuditor(random_state=5).fit(frame, LABELS)
    assert auditor.feature_names_in_.tolist() == list("abcdef")
    first = auditor.p_given_right_
    auditor.fit(FEATURES, LABELS)
    np.testing.assert_array_equal(auditor.p_given_right_, first)
    assert not hasattr(auditor, "feature_names_in_")
    drawn = LabelAuditor(random_state=np.random.default_rng(5)).fit(FEATURES, LABELS)
    np.testing.assert_array_equal(drawn.p_given_right_, first)
    auditor.fit(None, LABELS, probabilities=np.full((300, 3), 1 / 3))
    assert not hasattr(auditor, "n_features_in_")


def test_nothing_is_said_before_it_is_fitted() -> None:
    with pytest.raises(NotFittedError, match="LabelAuditor"):
        LabelAuditor().predict(FEATURES, LABELS)
    with pytest.raises(NotFittedError, match="LabelAuditor"):
        LabelAuditor().predict_proba(FEATURES)


def with_nan() -> Array:
    features = FEATURES.copy()
    features[4, 1] = np.nan
    return features


@pytest.mark.parametrize(
    ("options", "features", "labels", "error", "message"),
    [
        ({}, FEATURES[:, 0], LABELS, DataError, r"X must be features \[N, D\], not of shape \[300\]"),
        ({}, np.full((300, 2), "a"), LABELS, DataError, "X must hold numbers, not <U1"),
        ({}, FEATURES[:200], LABELS, DataError, r"features must be \[N, D\] for 300 labels"),
        ({}, with_nan(), LABELS, DataError, "the features of image 4 are not finite"),
        ({}, FEATURES, LABELS[:, None], DataError, r"y must be labels \[N\], .* not of shape \[300, 1\]"),
        ({}, FEATURES, ["a", 1, 2] * 100, DataError, "labels must be of one kind, not int and str together"),
        ({}, FEATURES, ["a"] * 300, DataError, r"two classes or more, and there are 1: \['a'\] \(-1 means"),
        ({"classes": [0, 1]}, FEATURES, LABELS, DataError, "1 labels are no class: 2; the classes are 0, 1"),
        (
            {"classes": [0, 1, 1]},
            FEATURES,
            LABELS,
            DataError,
            r"classes must differ from each other; got \[0",
        ),
        ({"precision": 0}, FEATURES, LABELS, ConfigError, r"precision must be in \(0, 1\], not 0"),
        ({}, None, LABELS, ConfigError, "evidence needs features or probabilities, and there are neither"),
    ],
)
def test_what_does_not_fit_is_refused(
    options: dict[str, Any], features: Any, labels: Any, error: type[ValueError], message: str
) -> None:
    with pytest.raises(error, match=message):
        LabelAuditor(**options).fit(features, labels)


def test_new_examples_that_do_not_fit_are_refused(fitted: LabelAuditor) -> None:
    with pytest.raises(DataError, match="there are 3 labels for 5 examples"):
        fitted.predict(NEW_FEATURES[:5], ["ant"] * 3)
    with pytest.raises(DataError, match="1 labels are no class: 'yak'; the classes are 'ant', 'bee', 'cow'"):
        fitted.predict(NEW_FEATURES[:2], ["ant", "yak"])
    with pytest.raises(DataError, match="the audit was of 6 features, these are 4"):
        fitted.predict_proba(NEW_FEATURES[:, :4])
