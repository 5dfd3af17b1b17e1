import numpy as np
import pytest

from lauter.errors import ConfigError
from lauter.noisy.correction import CorrectionConfig, correct_labels, make_soft_targets, propose_labels
from lauter.noisy.filtering import Assessment


def test_the_prior_is_taken_out_of_proposals() -> None:
    beliefs = np.array([[0.6, 0.4]])
    classes, confidence = propose_labels(beliefs, np.array([0.9, 0.1]))
    assert classes[0] == 1
    assert confidence[0] == pytest.approx((0.4 / 0.1) / (0.4 / 0.1 + 0.6 / 0.9))


def test_a_label_is_corrected_only_where_every_condition_holds() -> None:
    kept = np.array([True, False, False, False, False])
    assessment = Assessment(np.zeros(5), np.zeros(5), kept, 0.5, np.zeros(2))
    suggested = np.zeros(5, dtype=np.int64)
    confidence = np.array([0.99, 0.99, 0.5, 0.99, 0.99])
    agreed = np.array([True, True, True, False, True])
    stable = np.array([9, 9, 9, 9, 1])
    config = CorrectionConfig(confidence=0.9, stable_epochs=5)
    found = correct_labels(assessment, suggested, confidence, agreed, stable, config)
    np.testing.assert_array_equal(found, [False, True, False, False, False])
    off = CorrectionConfig(enabled=False)
    assert not correct_labels(assessment, suggested, confidence, agreed, stable, off).any()


@pytest.mark.parametrize("bad", [{"confidence": 0.0}, {"stable_epochs": -1}, {"first_epoch": -1}])
def test_settings_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        CorrectionConfig(**bad)  # type: ignore[arg-type]


def test_a_precision_sets_the_confidence() -> None:
    kept = np.array([False, False, False, True])
    assessment = Assessment(np.zeros(4), np.zeros(4), kept, 0.5, np.zeros(2))
    confidence, expected = np.array([0.9, 0.7, 0.5, 0.99]), np.array([1.0, 0.8, 0.3, 1.0])
    always = np.ones(4, dtype=bool)
    settings = {"stable_epochs": 0, "confidence": 0.95}
    for precision, last in ((0.95, 1), (0.85, 2), (0.7, 3)):
        config = CorrectionConfig(precision=precision, **settings)  # type: ignore[arg-type]
        found = correct_labels(
            assessment,
            np.zeros(4, np.int64),
            confidence,
            always,
            np.zeros(4, np.int64),
            config,
            expected=expected,
        )
        np.testing.assert_array_equal(found, np.arange(4) < last)
    with pytest.raises(ConfigError, match="pass expected"):
        correct_labels(assessment, np.zeros(4, np.int64), confidence, always, np.zeros(4, np.int64), config)


def test_images_that_have_no_say_leave_the_threshold_alone() -> None:
    confidence, expected = np.array([0.9, 0.7, 0.5, 0.6]), np.array([1.0, 0.8, 0.1, 1.0])
    among = np.array([True, True, True, False])
    always, long = np.ones(4, dtype=bool), np.full(4, 9)
    config = CorrectionConfig(precision=0.9)
    for held_out in (False, True):  # whether the label of the last one, which has no say, is kept
        assessment = Assessment(
            np.zeros(4), np.zeros(4), np.array([False] * 3 + [held_out]), 0.5, np.zeros(2)
        )
        arguments = (assessment, np.zeros(4, np.int64), confidence, always, long, config)
        found = correct_labels(*arguments, expected=expected, among=among)
        np.testing.assert_array_equal(found, [True, True, False, False])
        everywhere = correct_labels(*arguments, expected=expected)
        np.testing.assert_array_equal(everywhere, [True, True, False, not held_out])


def test_what_is_expected_does_nothing_where_no_precision_is_asked_for() -> None:
    assessment = Assessment(np.zeros(2), np.zeros(2), np.zeros(2, dtype=bool), 0.5, np.zeros(2))
    found = correct_labels(
        assessment,
        np.zeros(2, np.int64),
        np.array([0.95, 0.85]),
        np.ones(2, dtype=bool),
        np.full(2, 9),
        CorrectionConfig(),
        expected=np.zeros(2),
    )
    np.testing.assert_array_equal(found, [True, False])


def test_soft_targets_are_the_beliefs_of_corrected_images_alone() -> None:
    beliefs = np.random.default_rng(0).dirichlet(np.ones(3), size=5)
    labels = np.array([0, 2, 1, -1, -1])
    corrected = np.array([False, True, False, True, False])
    found = make_soft_targets(labels, corrected, beliefs)
    expected = np.zeros((5, 3))
    expected[0, 0] = expected[2, 1] = 1
    for row in (1, 3):
        expected[row] = beliefs[row]
    np.testing.assert_array_equal(found, expected)


def test_soft_targets_without_corrections_are_the_labels() -> None:
    beliefs = np.full((3, 2), 0.5)
    found = make_soft_targets(np.array([0, 1, 1]), np.zeros(3, dtype=bool), beliefs)
    np.testing.assert_array_equal(found, [[1, 0], [0, 1], [0, 1]])


def test_the_later_of_epoch_and_share_is_waited_for() -> None:
    assert CorrectionConfig().wait(40) == 10
    assert CorrectionConfig(first_share=0.7).wait(10) == 10
    assert CorrectionConfig(first_epoch=3, first_share=0.7).wait(10) == 7
    assert CorrectionConfig(first_epoch=0, first_share=1.0).wait(30) == 30


@pytest.mark.parametrize(
    "bad", [{"precision": 1.5}, {"precision": -0.1}, {"targets": "firm"}, {"first_share": 1.1}]
)
def test_new_settings_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        CorrectionConfig(**bad)  # type: ignore[arg-type]
