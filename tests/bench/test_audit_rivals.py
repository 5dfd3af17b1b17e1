"""Judges of labels on the same case: what each flags, and that what it ranks by agrees with that."""

import dataclasses

import numpy as np
import pytest

from lauter.bench import audit_rivals
from lauter.bench.audit_rivals import CLEANLAB, JUDGES, Case, Findings, judge_at_true_rate, make_case
from lauter.errors import ConfigError
from lauter.noisy.top_beliefs import TopBeliefs

OWN = [name for name in JUDGES if name not in CLEANLAB]


def make_noisy_case(count: int = 400, classes: int = 4, seed: int = 0) -> tuple[Case, np.ndarray]:
    """Beliefs that lean to the true class, and a fifth of the labels moved; returns which."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, count)
    features = rng.normal(size=(count, 8))
    features[np.arange(count), true] += 2.5
    beliefs = np.exp(features[:, :classes])
    beliefs /= beliefs.sum(1, keepdims=True)
    wrong = rng.random(count) < 0.2
    labels = np.where(wrong, (true + rng.integers(1, classes, count)) % classes, true)
    top = TopBeliefs.from_dense(beliefs, labels)
    return make_case(labels, top, features.astype(np.float32), seed), wrong


@pytest.mark.parametrize("name", OWN)
def test_judges_find_most_of_what_is_wrong(name: str) -> None:
    case, wrong = make_noisy_case()
    found = JUDGES[name](case)
    assert found.doubt.shape == found.flagged.shape == (400,)
    assert np.isfinite(found.doubt).all()
    assert found.doubt[wrong].mean() > found.doubt[~wrong].mean() + 0.2
    assert (found.flagged & wrong).sum() > 0.6 * wrong.sum()
    assert (found.flagged & ~wrong).sum() < 0.2 * (~wrong).sum()


def test_the_audit_hands_on_what_its_judgement_says() -> None:
    case, _ = make_noisy_case()
    found = JUDGES["lauter"](case)
    assert found.p_right is not None
    assert found.suggested is not None
    assert found.relabelled is not None
    assert found.review is not None
    np.testing.assert_allclose(found.p_right, 1 - found.doubt)
    assert not (found.relabelled & ~found.flagged).any()
    assert (found.suggested[found.relabelled] != case.labels[found.relabelled]).all()
    assert set(found.rates) == {"noise", "closed", "open"}
    assert len(np.unique(found.review)) == len(found.review)
    assert isinstance(found.advises, bool)
    again = JUDGES["lauter"](case)
    np.testing.assert_array_equal(again.doubt, found.doubt)


def test_the_margin_decides_where_beliefs_disagree() -> None:
    case, _ = make_noisy_case()
    found = JUDGES["disagreement"](case)
    np.testing.assert_array_equal(found.flagged, found.doubt > 0.5)
    np.testing.assert_array_equal(found.suggested, case.probabilities.argmax(1))
    assert found.rates == {"noise": pytest.approx(found.flagged.mean())}


def test_the_oracle_calls_as_many_wrong_as_there_are() -> None:
    case, wrong = make_noisy_case()
    found = judge_at_true_rate(case, int(wrong.sum()))
    assert found.flagged.sum() == wrong.sum()
    assert found.doubt[found.flagged].min() >= found.doubt[~found.flagged].max()
    assert not judge_at_true_rate(case, 0).flagged.any()


def test_beliefs_that_were_cut_are_filled_up_for_the_others() -> None:
    case, _ = make_noisy_case(classes=6)
    cut = make_case(case.labels, TopBeliefs.from_dense(case.probabilities, case.labels, depth=3))
    np.testing.assert_allclose(cut.probabilities.sum(1), 1)
    rows = np.arange(400)
    np.testing.assert_allclose(
        cut.probabilities[rows, case.labels], case.probabilities[rows, case.labels], atol=1e-6
    )
    np.testing.assert_allclose(cut.probabilities.max(1), case.probabilities.max(1), atol=1e-6)


@pytest.mark.parametrize("name", CLEANLAB)
def test_cleanlab_judges_the_same_case(name: str) -> None:
    pytest.importorskip("cleanlab", reason="cleanlab comes with the bench extra")
    case, wrong = make_noisy_case()
    found: Findings = CLEANLAB[name](case)
    assert np.isfinite(found.doubt).all()
    assert (found.flagged & wrong).sum() > 0.5 * wrong.sum()
    assert (found.flagged & ~wrong).sum() < 0.3 * (~wrong).sum()
    assert found.p_right is None


def test_cleanlab_s_default_is_confident_learning_as_written_here() -> None:
    pytest.importorskip("cleanlab", reason="cleanlab comes with the bench extra")
    case, _ = make_noisy_case()
    theirs, ours = CLEANLAB["cleanlab-noise-rate"](case), JUDGES["confident"](case)
    np.testing.assert_array_equal(ours.flagged, theirs.flagged)
    np.testing.assert_allclose(ours.doubt, theirs.doubt)
    np.testing.assert_allclose(
        ours.rates["noise"], theirs.rates["noise"], atol=1e-3
    )  # theirs in whole labels
    lab = CLEANLAB["datalab"](case)
    np.testing.assert_allclose(lab.doubt, theirs.doubt)
    np.testing.assert_array_equal(lab.suggested, case.probabilities.argmax(1))


def test_a_class_without_an_image_keeps_its_column_in_datalab() -> None:
    pytest.importorskip("cleanlab", reason="cleanlab comes with the bench extra")
    case, _ = make_noisy_case()
    kept = case.labels != 1
    labels = case.labels[kept]
    found = CLEANLAB["datalab"](make_case(labels, TopBeliefs.from_dense(case.probabilities[kept], labels)))
    np.testing.assert_array_equal(found.suggested, case.probabilities[kept].argmax(1))


def test_every_score_of_cleanlab_ranks_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cleanlab", reason="cleanlab comes with the bench extra")
    import cleanlab.rank

    asked = []
    score = cleanlab.rank.get_label_quality_scores

    def watch(labels: np.ndarray, probabilities: np.ndarray, method: str) -> np.ndarray:
        asked.append(method)
        return np.asarray(score(labels, probabilities, method=method))

    monkeypatch.setattr(cleanlab.rank, "get_label_quality_scores", watch)
    case, _ = make_noisy_case()
    for name, judge in CLEANLAB.items():
        if name.startswith("cleanlab"):
            judge(case)
    assert set(asked) == {"self_confidence", "normalized_margin", "confidence_weighted_entropy"}


def test_what_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    case, _ = make_noisy_case()

    def absent() -> None:
        raise ConfigError("cleanlab needs the bench extra")

    with monkeypatch.context() as patch:
        patch.setattr(audit_rivals, "require_cleanlab", absent)
        for judge in CLEANLAB.values():
            with pytest.raises(ConfigError, match="bench extra"):
                judge(case)
    pytest.importorskip("cleanlab", reason="cleanlab comes with the bench extra")
    with pytest.raises(ConfigError, match="datalab-features needs features"):
        CLEANLAB["datalab-features"](dataclasses.replace(case, features=None))
