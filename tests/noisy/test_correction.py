import numpy as np
import pytest

from lauter.errors import ConfigError
from lauter.noisy.correction import CorrectionConfig, correct_labels, propose_labels
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
