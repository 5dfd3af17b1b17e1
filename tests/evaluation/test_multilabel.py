"""Average precision: a plain loop, scikit-learn, unknown labels, ties, the bootstrap."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from lauter.errors import DataError
from lauter.evaluation.multilabel import average_precision, mean_average_precision, score_multilabel


def reference(scores: list[float], targets: list[int]) -> float:
    """Thresholds from above, images of equal score together, unknown ones left out."""
    known = [(s, y) for s, y in zip(scores, targets, strict=True) if y >= 0]
    total = sum(y for _, y in known)
    if not total:
        return float("nan")
    area, recall = 0.0, 0.0
    for threshold in sorted({s for s, _ in known}, reverse=True):
        taken = [y for s, y in known if s >= threshold]
        area += (sum(taken) / total - recall) * sum(taken) / len(taken)
        recall = sum(taken) / total
    return area


def draw(seed: int = 0, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = rng.choice([-1, 0, 1], size=(count, 4), p=[0.2, 0.5, 0.3]).astype(np.int8)
    targets[:, 3] = np.where(targets[:, 3] == 1, 0, targets[:, 3])
    scores = np.round(rng.normal(size=(count, 4)) + targets, 1)  # rounded: there are ties
    return scores, targets


def test_it_is_the_plain_loop() -> None:
    scores, targets = draw()
    expected = [reference(scores[:, k].tolist(), targets[:, k].tolist()) for k in range(4)]
    assert len(np.unique(scores)) < scores.size
    assert np.isnan(expected[3])
    np.testing.assert_allclose(average_precision(scores, targets), expected, rtol=1e-12)
    np.testing.assert_allclose(mean_average_precision(scores, targets), np.mean(expected[:3]), rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_scikit_learns(seed: int) -> None:
    scores, targets = draw(seed, 40)
    found = average_precision(scores, targets)
    for k in range(3):
        known = targets[:, k] >= 0
        np.testing.assert_allclose(
            found[k], average_precision_score(targets[known, k], scores[known, k]), rtol=1e-12
        )


def test_what_is_unknown_does_not_count() -> None:
    scores, targets = draw()
    moved = np.where(targets == -1, 1e6, scores)
    np.testing.assert_array_equal(average_precision(moved, targets), average_precision(scores, targets))


def test_limits() -> None:
    targets = np.array([[1], [1], [0], [0]], dtype=np.int8)
    best, worst = np.array([[4.0], [3], [2], [1]]), np.array([[1.0], [2], [3], [4]])
    np.testing.assert_allclose(average_precision(best, targets), [1.0])
    np.testing.assert_allclose(average_precision(worst, targets), [(1 / 3 + 2 / 4) / 2])
    np.testing.assert_allclose(average_precision(best * 0, targets), [0.5])  # all equal: the class's share
    np.testing.assert_allclose(average_precision(1 / (1 + np.exp(-best)), targets), [1.0])


def test_the_bootstrap_is_that_of_resampled_images() -> None:
    scores, targets = draw(1, 30)
    found = score_multilabel(scores, targets, np.random.default_rng(7), resamples=40, level=0.9)
    rng = np.random.default_rng(7)
    drawn = []
    for _ in range(40):
        rows = rng.integers(30, size=(1, 30))[0]
        each = [reference(scores[rows, k].tolist(), targets[rows, k].tolist()) for k in range(4)]
        drawn.append(np.nanmean(each))
    drawn.append(mean_average_precision(scores, targets))
    interval = found.mean_average_precision
    np.testing.assert_allclose([interval.low, interval.high], np.quantile(drawn, [0.05, 0.95]), rtol=1e-9)
    assert interval.value == pytest.approx(drawn[-1])


def test_blocks_of_resamples_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, targets = draw()
    whole = score_multilabel(scores, targets, np.random.default_rng(0), resamples=20)
    monkeypatch.setattr("lauter.evaluation.multilabel._BLOCK", 7 * len(scores))
    parts = score_multilabel(scores, targets, np.random.default_rng(0), resamples=20)
    assert parts.mean_average_precision == whole.mean_average_precision


def test_as_metrics_a_class_without_images_is_none() -> None:
    scores, targets = draw()
    entry = score_multilabel(scores, targets, np.random.default_rng(0), 10).to_dict(("a", "b", "c", "d"))
    assert entry["average_precision"]["d"] is None
    assert list(entry["mean_average_precision"]) == ["value", "low", "high"]


def test_bad_inputs_are_named() -> None:
    scores, targets = draw()
    with pytest.raises(DataError, match=r"\[60, 4\] and \[60, 3\]"):
        average_precision(scores, targets[:, :3])
    with pytest.raises(DataError, match="no class has an image to find"):
        mean_average_precision(scores, targets * 0)
    with pytest.raises(DataError, match=r"found -1\.\.2"):
        average_precision(scores, targets + (targets == 1))
    scores[5, 2] = np.nan
    with pytest.raises(DataError, match="image 5 and class 2 is NaN"):
        average_precision(scores, targets)
    with pytest.raises(DataError, match="resamples must be 1 or more"):
        score_multilabel(targets, targets, np.random.default_rng(0), resamples=0)
