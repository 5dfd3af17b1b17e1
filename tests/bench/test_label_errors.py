"""The measurement of label errors, on small pictures: judges see the same predictions, and no truth."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lauter.bench import label_errors
from lauter.bench.label_errors import LabelErrorConfig, Verdict, measure_label_errors, score_verdict
from lauter.bench.records import Record
from lauter.data import Dataset, ResidentImages, corrupt
from lauter.errors import ConfigError
from lauter.noise import NoiseRecipe
from lauter.noisy.rivals.confident import FoldStage
from lauter.training.runtime import RuntimeConfig
from lauter.training.schedule import OptimizerConfig
from lauter.training.supervised import SupervisedConfig

RUNTIME = RuntimeConfig(device="cpu", precision="32", workers=0)
OWN = ("filter", "confident", "disagreement")
CONFIG = LabelErrorConfig(
    "resnet8", 2, SupervisedConfig(3, 32, OptimizerConfig(lr=0.05)), image_size=16, augment="objects"
)
IMAGES = 160


def open_colours(_one: Path, _two: Path, seed: int) -> Dataset:
    """Pictures of three classes told apart by colour; three labels of ten are wrong."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, IMAGES)
    pixels = rng.integers(0, 60, (IMAGES, 3, 16, 16))
    pixels[np.arange(IMAGES), true] += 150
    ids = np.array([f"{row}.png" for row in range(IMAGES)])
    images = ResidentImages(pixels.astype(np.uint8))
    clean = Dataset("colours", images, true, ("r", "g", "b"), ids)
    return corrupt(clean, NoiseRecipe("small", closed_kind="symmetric", closed_rate=0.3), seed=seed)


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_errors, "DATA", {"colours": open_colours})


def measure(work: Path, methods: tuple[str, ...] = OWN) -> list[Record]:
    return measure_label_errors("colours", 3, (work, work), work, RUNTIME, CONFIG, methods)


def refuse(*_: object) -> None:
    raise AssertionError("measured again")


def test_judges_leave_their_records_and_nothing_is_measured_twice(
    colours: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure(tmp_path, ("filter",))
    # Another judge needs the same predictions: they are there already.
    monkeypatch.setattr(FoldStage, "loss", refuse)
    records = measure(tmp_path)
    monkeypatch.setattr(label_errors, "predict_labels", refuse)
    assert {record.key for record in measure(tmp_path)} == {record.key for record in records}
    assert {(record.suite, record.data, record.seed) for record in records} == {("noisy", "colours", 3)}
    found = {(record.method, record.metric): record.value for record in records}
    assert {record.key: record.value for record in first}.items() <= {r.key: r.value for r in records}.items()
    for method in OWN:
        assert found[method, "auroc"] > 0.8
        assert found[method, "best_f1"] > 0.6
        assert 0 < found[method, "f1"] <= found[method, "best_f1"]
        ratio = found[method, "f1"] / found[method, "best_f1"]
        assert found[method, "f1_of_best"] == pytest.approx(ratio)
        assert found[method, "true_noise_rate"] == pytest.approx(0.3, abs=0.01)
        # 3 epochs over either half, and each half judged once.
        assert found[method, "cost_images"] == 4 * IMAGES
        assert found[method, "cost_flops"] > 0
        assert found[method, "seconds"] > 0
    # Both thresholds lie on the scale of the score: some cut gives at least as much.
    assert found["disagreement", "f1"] <= found["disagreement", "best_f1"]
    assert len({found[method, "flagged"] for method in OWN}) > 1


def test_judges_never_see_the_truth(colours: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def watch(probabilities: Any, labels: Any) -> Verdict:
        seen.append((probabilities, labels))
        return label_errors.judge_by_disagreement(probabilities, labels)

    def open_without_labels(one: Path, two: Path, seed: int) -> Dataset:
        data = open_colours(one, two, seed)
        return data.with_labels(np.where(np.arange(len(data)) < 20, -1, data.labels))

    monkeypatch.setattr(label_errors, "DATA", {"colours": open_without_labels})
    monkeypatch.setattr(label_errors, "METHODS", {"watch": watch})
    held = label_errors.predict_out_of_fold

    def look(ground: Any, folds: int) -> Any:
        assert ground.setup.data.true_labels is None
        return held(ground, folds)

    monkeypatch.setattr(label_errors, "predict_out_of_fold", look)
    measure(tmp_path, ("watch",))
    (probabilities, labels), *_ = seen
    data = open_without_labels(tmp_path, tmp_path, 3)
    np.testing.assert_array_equal(labels, data.labels[20:])
    assert probabilities.shape == (IMAGES - 20, 3)


def test_a_verdict_is_scored_against_the_truth(tmp_path: Path) -> None:
    data = open_colours(tmp_path, tmp_path, 0)
    wrong = data.labels != data.true_labels
    perfect = score_verdict(Verdict(wrong.astype(np.float64), wrong), data)
    for name in ("auroc", "average_precision", "precision", "recall", "f1", "best_f1", "f1_of_best"):
        assert perfect[name] == pytest.approx(1)
    assert perfect["flagged"] == perfect["true_noise_rate"] == pytest.approx(wrong.mean())
    timid = wrong & (np.cumsum(wrong) <= wrong.sum() // 2)
    scores = score_verdict(Verdict(wrong.astype(np.float64), timid), data)
    share = timid.sum() / wrong.sum()
    assert scores["f1_of_best"] == pytest.approx(2 * share / (1 + share))
    opened = data.with_truth(np.where(np.arange(len(data)) < 10, -1, data.labels))
    assert score_verdict(Verdict(1.0 * wrong, wrong), opened)["true_noise_rate"] == pytest.approx(10 / IMAGES)
    with pytest.raises(ConfigError, match="no true labels"):
        score_verdict(Verdict(wrong.astype(np.float64), wrong), data.without_truth())


def test_the_margin_decides_where_a_prediction_disagrees() -> None:
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(4), 200), rng.integers(0, 4, 200)
    verdict = label_errors.judge_by_disagreement(probabilities, labels)
    np.testing.assert_array_equal(verdict.flagged, verdict.doubt > 0.5)
    assert 0 < verdict.flagged.mean() < 1


def test_cleanlab_says_what_confident_learning_says() -> None:
    pytest.importorskip("cleanlab", reason="cleanlab comes with the bench extra")
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 300)
    logits = rng.normal(size=(300, 4))
    logits[np.arange(300), np.where(rng.random(300) < 0.7, labels, (labels + 1) % 4)] += 2
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    theirs = label_errors.judge_by_cleanlab(probabilities, labels)
    ours = label_errors.judge_by_confident_learning(probabilities, labels)
    np.testing.assert_array_equal(ours.flagged, theirs.flagged)
    np.testing.assert_allclose(ours.doubt, theirs.doubt)
    assert ours.flagged.any()


def test_what_cannot_be_measured_is_refused_before_anything_is_trained(
    colours: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_errors, "predict_labels", refuse)
    with pytest.raises(ConfigError, match="data must be one of colours, not 'letters'"):
        measure_label_errors("letters", 0, (tmp_path, tmp_path), tmp_path, RUNTIME)
    with pytest.raises(ConfigError, match="among filter, cleanlab, confident, disagreement, not 'guess'"):
        measure(tmp_path, ("filter", "guess"))

    def absent() -> None:
        raise ConfigError("cleanlab needs the bench extra")

    monkeypatch.setattr(label_errors, "require_cleanlab", absent)
    with pytest.raises(ConfigError, match="bench extra"):
        measure(tmp_path, ("filter", "cleanlab"))
    assert not list(tmp_path.rglob("*.pt"))


def test_aggre_takes_its_own_column(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def remember(folder: Path, **options: Any) -> str:
        asked.update(options, folder=folder)
        return "opened"

    monkeypatch.setattr(label_errors, "open_dataset", remember)
    opened = label_errors.DATA["cifar10n-aggre"](tmp_path, tmp_path / "other", 4)
    assert opened == "opened"
    assert asked == {
        "folder": tmp_path,
        "split": "train",
        "label_column": "label_aggre",
        "truth_column": "label",
        "size": 10_000,
        "seed": 4,
    }
