"""Rivals that throw labels away or change them: confident learning with retraining, and RRL's label rule."""

import importlib.util
import math
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from lauter.data import Dataset
from lauter.data.batches import Batch
from lauter.errors import ConfigError
from lauter.models import Network, create_network
from lauter.noisy.rivals.ce import CrossEntropyConfig, CrossEntropyStage
from lauter.noisy.rivals.confident import (
    ConfidentConfig,
    FoldStage,
    find_errors_by_cleanlab,
    learn_confidently,
    predict_out_of_fold,
    take_rows,
)
from lauter.noisy.rivals.rival import Ground, RivalStage
from lauter.noisy.rivals.rrl import RRLConfig, RRLStage, judge_labels, smooth_labels, weigh_neighbours
from lauter.training.schedule import OptimizerConfig
from lauter.training.setup import draw_from
from lauter.training.supervised import SupervisedConfig

MakeGround = Callable[..., Ground]


class Stop(Exception):
    """A run is cut off here."""


@pytest.fixture
def make_ground(make_data: Callable[..., Dataset], make_setup: Callable[..., Any]) -> MakeGround:
    """Pictures of three colours and a network: ``make_ground(name, count, epochs, directory, labels)``."""

    def make(
        name: str,
        count: int = 90,
        epochs: int = 2,
        directory: Path | None = None,
        labels: np.ndarray | None = None,
    ) -> Ground:
        data = make_data(count)
        setup = make_setup(data if labels is None else data.with_labels(labels), directory)

        def build(role: str) -> Network:
            with draw_from(0, role):
                return create_network("resnet8", 3, image_size=16)

        return Ground(name, setup, build, SupervisedConfig(epochs, 32, OptimizerConfig(lr=0.05)))

    return make


def colour_of(ground: Ground) -> np.ndarray:
    """The true class of each picture."""
    pixels = ground.setup.data.images.uniform
    return np.asarray(pixels.mean((2, 3)).argmax(1))


def run(stage: RivalStage) -> RivalStage:
    stage.ground.setup.loop.run_stage(stage)
    return stage


def assert_same_weights(one: RivalStage, two: RivalStage, **tolerance: float) -> None:
    for first, second in zip(one.network.parameters(), two.network.parameters(), strict=True):
        torch.testing.assert_close(first, second, **tolerance)


def with_other_holdout(ground: Ground) -> np.ndarray:
    """The given labels, those of the hold-out mixed up."""
    labels = ground.setup.data.labels.copy()
    labels[ground.setup.holdout] = np.roll(labels[ground.setup.holdout], 1)
    return labels


# Confident learning


def test_no_network_learns_from_the_images_it_judges(
    make_ground: MakeGround, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = make_ground("confident")
    seen: dict[str, set[int]] = {}
    plain = CrossEntropyStage.loss

    def remember(self: CrossEntropyStage, batch: Batch) -> Any:
        seen.setdefault(self.name, set()).update(batch.index.tolist())
        return plain(self, batch)

    monkeypatch.setattr(CrossEntropyStage, "loss", remember)
    stage = run(learn_confidently(ConfidentConfig(folds=3), ground))
    rows = set(ground.setup.labelled_train.tolist())
    folds = [f"confident.fold{number}" for number in range(3)]
    assert set(seen) == {*folds, "confident"}
    judged = [rows - seen[name] for name in folds]
    assert set().union(*judged) == rows
    assert sum(map(len, judged)) == len(rows)
    assert seen["confident"] == set(stage.batches.index.tolist()) < rows
    costs = ground.setup.loop.costs
    for name, fold in zip(folds, judged, strict=True):
        assert costs[name].images == 2 * len(seen[name]) + len(fold)
    assert costs["confident"].images == 2 * len(seen["confident"])


def test_predictions_are_those_of_a_network_trained_without_the_fold(make_ground: MakeGround) -> None:
    ground, again = make_ground("confident"), make_ground("confident")
    rows = ground.setup.labelled_train
    inside, outside = rows[::2], rows[1::2]
    judged = FoldStage(take_rows(ground, outside), inside)
    assert judged.probabilities.shape == (0, 3)
    run(judged)
    plain = run(CrossEntropyStage(CrossEntropyConfig(), take_rows(again, outside)))
    powers = np.exp(again.setup.predict(plain.evaluated, inside).logits.double().numpy())
    np.testing.assert_allclose(judged.probabilities.numpy(), powers / powers.sum(1, keepdims=True), rtol=1e-6)
    assert judged.tracker.scores == [], "neither hold-out nor test is looked at"


def test_predictions_come_back_in_the_order_of_the_images(
    make_ground: MakeGround, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell_rows(self: FoldStage, epoch: int) -> dict[str, float]:
        self.probabilities = torch.from_numpy(np.repeat(self.held[:, None], 3, axis=1).astype(np.float64))
        return {}

    monkeypatch.setattr(FoldStage, "end_epoch", tell_rows)
    ground = make_ground("confident", epochs=1)
    np.testing.assert_array_equal(predict_out_of_fold(ground, 2)[:, 0], ground.setup.labelled_train)


def test_wrong_labels_are_dropped_and_right_ones_stay(make_ground: MakeGround) -> None:
    ground = make_ground("confident", count=200, epochs=5)
    true, given = colour_of(ground), ground.setup.data.labels
    rows = ground.setup.labelled_train
    before = np.mean(given[rows] != true[rows])
    stage = learn_confidently(ConfidentConfig(), ground)
    kept = np.asarray(stage.batches.index)
    assert before > 0.15
    assert np.mean(given[kept] != true[kept]) < before / 3
    assert len(kept) > 0.9 * np.sum(given[rows] == true[rows])
    assert stage.name == "confident"


def test_holdout_labels_have_no_say_in_confident_learning(make_ground: MakeGround) -> None:
    ground = make_ground("confident")
    other = make_ground("confident", labels=with_other_holdout(ground))
    one, two = (learn_confidently(ConfidentConfig(), each) for each in (ground, other))
    np.testing.assert_array_equal(one.batches.index, two.batches.index)


def test_confident_learning_that_was_stopped_ends_as_if_it_had_not_been(
    make_ground: MakeGround, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(learn_confidently(ConfidentConfig(), make_ground("confident", directory=tmp_path / "a")))
    ground = make_ground("confident", directory=tmp_path / "b")
    ground.setup.loop.checkpoint_seconds = 0.0
    with monkeypatch.context() as patch:
        stop_after(patch, FoldStage, 5)
        with pytest.raises(Stop):
            learn_confidently(ConfidentConfig(), ground)
    resumed = run(learn_confidently(ConfidentConfig(), make_ground("confident", directory=tmp_path / "b")))
    np.testing.assert_array_equal(resumed.batches.index, whole.batches.index)
    assert_same_weights(resumed, whole, rtol=0, atol=0)


def stop_after(patch: pytest.MonkeyPatch, stage: type[RivalStage], steps: int) -> None:
    """Cut a run off behind so many steps of a kind of stage."""
    after_step, calls = stage.after_step, []

    def count(self: RivalStage) -> None:
        after_step(self)
        calls.append(1)
        if len(calls) == steps:
            raise Stop

    patch.setattr(stage, "after_step", count)


def test_without_cleanlab_it_is_said_before_anything_is_trained(
    make_ground: MakeGround, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "cleanlab" else find(name, *rest)
    )
    ground = make_ground("confident")
    with pytest.raises(ConfigError, match=r"pip install 'lauter\[bench\]'"):
        learn_confidently(ConfidentConfig(implementation="cleanlab"), ground)
    assert ground.setup.loop.costs == {}


@pytest.mark.parametrize(
    ("prune_by", "name"),
    [("both", "both"), ("class", "prune_by_class"), ("noise_rate", "prune_by_noise_rate")],
)
def test_cleanlab_is_asked_in_its_own_words(
    prune_by: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def find_label_issues(labels: Any, pred_probs: Any, **options: Any) -> np.ndarray:
        asked.append((labels, pred_probs, options))
        return np.asarray(labels) == 1

    package, module = ModuleType("cleanlab"), ModuleType("cleanlab.filter")
    package.__spec__ = ModuleSpec("cleanlab", None)
    module.find_label_issues = find_label_issues  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cleanlab", package)
    monkeypatch.setitem(sys.modules, "cleanlab.filter", module)
    labels, probs = np.array([0, 1, 1]), np.full((3, 2), 0.5)
    found = find_errors_by_cleanlab(probs, labels, prune_by=prune_by)
    assert found.tolist() == [False, True, True]
    (given, handed, options), *_ = asked
    np.testing.assert_array_equal(given, labels)
    np.testing.assert_array_equal(handed, probs)
    assert options == {"filter_by": name, "n_jobs": 1}


@pytest.mark.parametrize("bad", [{"folds": 1}, {"prune_by": "all"}, {"implementation": "theirs"}])
def test_settings_of_confident_learning_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        ConfidentConfig(**bad)


# RRL's label rule


def draw_rows(seed: int, count: int, classes: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), count)


def test_neighbours_weigh_by_their_cosine() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20, 4)).astype(np.float32)
    neighbours = rng.integers(0, 20, (20, 5))
    found = weigh_neighbours(features, neighbours, 0.3)
    centre = features.astype(np.float64).mean(0)
    rows = [[float(x) - float(c) for x, c in zip(row, centre, strict=True)] for row in features]
    for i in range(20):
        powers = []
        for j in neighbours[i]:
            dot = sum(a * b for a, b in zip(rows[i], rows[j], strict=True))
            powers.append(math.exp(dot / math.hypot(*rows[i]) / math.hypot(*rows[j]) / 0.3))
        np.testing.assert_allclose(found[i], [power / sum(powers) for power in powers], rtol=1e-4)


def test_weights_stay_finite_where_features_are_large_or_nothing() -> None:
    features = np.zeros((6, 3), dtype=np.float32)
    features[0] = 1e4
    neighbours = np.array([[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4]])
    found = weigh_neighbours(features, neighbours, 1e-3)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(1), 1)


def test_soft_labels_are_half_the_neighbours_and_half_the_network() -> None:
    rng = np.random.default_rng(1)
    soft, probs = draw_rows(2, 15, 4), draw_rows(3, 15, 4)
    neighbours, weights = rng.integers(0, 15, (15, 6)), draw_rows(4, 15, 6)
    found = smooth_labels(soft, probs, neighbours, weights)
    for i in range(15):
        for k in range(4):
            vote = sum(float(w) * float(soft[j, k]) for w, j in zip(weights[i], neighbours[i], strict=True))
            np.testing.assert_allclose(found[i, k], 0.5 * vote + 0.5 * float(probs[i, k]))


def test_labels_are_kept_changed_or_dropped_by_the_rule() -> None:
    soft = np.array([[0.3, 0.6, 0.1], [0.05, 0.92, 0.03], [0.05, 0.55, 0.4], [0.1, 0.9, 0.0]])
    judged, labels = judge_labels(soft, np.array([0, 0, 0, 0]), 0.1, 0.9)
    assert labels.tolist() == [0, 1, -1, -1]  # at a threshold is not above it
    np.testing.assert_array_equal(judged, [[1, 0, 0], *soft[1:]])
    soft, given = draw_rows(5, 200, 3) ** 3, np.random.default_rng(6).integers(0, 3, 200)
    soft /= soft.sum(1, keepdims=True)
    judged, labels = judge_labels(soft, given, 0.1, 0.9)
    for i in range(200):
        best = max(range(3), key=lambda k: soft[i, k])
        kept = soft[i, given[i]] > 0.1
        assert labels[i] == (given[i] if kept else best if soft[i, best] > 0.9 else -1)
        expected = [float(k == given[i]) for k in range(3)] if kept else soft[i]
        np.testing.assert_array_equal(judged[i], expected)
    assert set(np.unique(labels == given)) == {False, True}
    assert (labels == -1).any()
    assert ((labels != given) & (labels != -1)).any()


def judge_by_loop(
    soft: list[list[float]] | None, features: np.ndarray, probs: np.ndarray, given: np.ndarray, k: int
) -> tuple[list[list[float]], list[int]]:
    """The rule written out for three classes: 0.3 as temperature, chance and 0.9 as thresholds."""

    def certain(row: list[float], label: int) -> list[float]:
        return [float(c == label) for c in range(3)] if row[label] > 1 / 3 else row

    rows, size = features.astype(np.float64) - features.astype(np.float64).mean(0), len(features)
    if soft is None:
        soft = [certain(row, label) for row, label in zip(probs.tolist(), given, strict=True)]
    judged, labels = [], []
    for i in range(size):
        cosines = [
            (float(rows[i] @ rows[j]) / math.hypot(*rows[i]) / math.hypot(*rows[j]), j)
            for j in range(size)
            if j != i
        ]
        nearest = [(math.exp(cosine / 0.3), j) for cosine, j in sorted(cosines, reverse=True)[:k]]
        total = sum(weight for weight, _ in nearest)
        row = [
            sum(weight * soft[j][c] for weight, j in nearest) / total / 2 + float(probs[i, c]) / 2
            for c in range(3)
        ]
        best = max(range(3), key=row.__getitem__)
        labels.append(int(given[i]) if row[given[i]] > 1 / 3 else best if row[best] > 0.9 else -1)
        judged.append(certain(row, int(given[i])))
    return judged, labels


def test_the_judgement_of_two_epochs_is_the_rule_written_out(make_ground: MakeGround) -> None:
    stage = RRLStage(RRLConfig(warmup=0.0), make_ground("rrl"))
    rows, rng = stage.rows, np.random.default_rng(0)
    given = stage.ground.setup.data.labels[rows]
    soft = None
    for epoch in range(2):
        features = rng.normal(size=(len(rows), stage.network.feature_size)).astype(np.float32)
        probs = rng.dirichlet(np.full(3, 0.1), len(rows)).astype(np.float32)
        stage._features[rows] = torch.from_numpy(features)
        stage._probabilities[rows] = torch.from_numpy(probs)
        logged = stage.end_epoch(epoch)
        soft, labels = judge_by_loop(soft, features, probs, given, len(rows) // 10)
        np.testing.assert_allclose(stage.soft, soft, rtol=1e-4, atol=1e-6)
        assert stage.targets[rows].tolist() == labels
        assert logged["kept"] == pytest.approx(np.mean(np.array(labels) == given))
    assert logged["kept"] < 1 - logged["relabelled"], "some are dropped"


def test_where_every_label_is_kept_rrl_is_cross_entropy(make_ground: MakeGround) -> None:
    rrl = run(RRLStage(RRLConfig(keep_above=0.0), make_ground("same", epochs=3)))
    plain = run(CrossEntropyStage(CrossEntropyConfig(), make_ground("same", epochs=3)))
    assert_same_weights(rrl, plain, rtol=1e-3, atol=1e-5)
    assert rrl.tracker.holdout_predictions[-1].tolist() == plain.tracker.holdout_predictions[-1].tolist()


def test_the_rule_begins_behind_the_warm_up(make_ground: MakeGround) -> None:
    config = RRLConfig(warmup=0.5, keep_above=2.5, relabel_above=1.0)
    stage = RRLStage(config, make_ground("rrl", epochs=3))
    rows, given = stage.rows, stage.ground.setup.data.labels
    assert stage.warmup_epochs == 2
    taught = []
    end_epoch = stage.end_epoch

    def look(epoch: int) -> dict[str, float]:
        taught.append(stage.targets[rows].numpy().copy())
        return end_epoch(epoch)

    stage.end_epoch = look  # type: ignore[method-assign]
    run(stage)
    for before in taught[:2]:
        np.testing.assert_array_equal(before, given[rows])
    assert (taught[2] == -1).any()
    assert set(taught[2][taught[2] != given[rows]]) == {-1}, "1 relabels none"
    outside = np.setdiff1d(np.arange(len(given)), rows)
    assert (stage.targets[outside] == -1).all()
    assert stage.ground.setup.loop.costs["rrl"].images == 3 * len(rows), "no pass beside the training's own"


def test_wrong_labels_are_changed_or_dropped_and_right_ones_stay(make_ground: MakeGround) -> None:
    ground = make_ground("rrl", count=200, epochs=5)
    true, given = colour_of(ground), ground.setup.data.labels
    stage = run(RRLStage(RRLConfig(), ground))
    rows, targets = stage.rows, stage.targets.numpy()
    right = rows[given[rows] == true[rows]]
    wrong = rows[given[rows] != true[rows]]
    assert np.mean(targets[right] == given[right]) > 0.9
    assert np.mean(targets[wrong] == given[wrong]) < 0.3
    changed = rows[(targets[rows] != given[rows]) & (targets[rows] != -1)]
    assert len(changed) > 5
    assert np.mean(targets[changed] == true[changed]) > 0.9
    np.testing.assert_allclose(stage.soft.sum(1), 1, rtol=1e-5)


def test_a_dropped_image_teaches_nothing(make_ground: MakeGround) -> None:
    stage = RRLStage(RRLConfig(), make_ground("rrl"))
    batch = next(iter(stage.batches.epoch(0)))
    value = stage.loss(batch)["classification"]
    first = batch.index[0]
    stage.targets[first] = -1
    others = Batch(batch.index[1:], (batch.images[1:],))
    stage.network.eval()
    torch.testing.assert_close(stage.loss(batch), stage.loss(others))
    stage.targets[:] = -1
    nothing = stage.loss(batch)["classification"]
    nothing.backward()
    torch.testing.assert_close(nothing.detach(), torch.tensor(0.0))
    for parameter in stage.network.parameters():
        torch.testing.assert_close(parameter.grad, torch.zeros_like(parameter))
    assert value.item() > 0


def test_large_logits_stay_finite(make_ground: MakeGround) -> None:
    stage = RRLStage(RRLConfig(), make_ground("rrl", epochs=1))
    with torch.no_grad():
        stage.network.head.bias.copy_(torch.tensor([1e4, 0.0, -1e4]))
    for batch in stage.batches.epoch(0):
        value = stage.loss(batch)["classification"]
        value.backward()
        assert bool(value.isfinite())
    stage.end_epoch(0)
    assert np.isfinite(stage.soft).all()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in stage.network.parameters())


def test_holdout_labels_have_no_say_in_rrl(make_ground: MakeGround) -> None:
    ground = make_ground("rrl", epochs=3)
    other = make_ground("rrl", epochs=3, labels=with_other_holdout(ground))
    one, two = (run(RRLStage(RRLConfig(), each)) for each in (ground, other))
    assert_same_weights(one, two, rtol=0, atol=0)
    assert torch.equal(one.targets, two.targets)
    assert one.tracker.scores != two.tracker.scores


def test_rrl_that_was_stopped_ends_as_if_it_had_not_been(
    make_ground: MakeGround, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RRLConfig(keep_above=1.5)
    whole = run(RRLStage(config, make_ground("rrl", epochs=3, directory=tmp_path / "a")))
    ground = make_ground("rrl", epochs=3, directory=tmp_path / "b")
    ground.setup.loop.checkpoint_seconds = 0.0
    steps = len(ground.batches())
    with monkeypatch.context() as patch:
        stop_after(patch, RRLStage, steps + 2)
        with pytest.raises(Stop):
            run(RRLStage(config, ground))
    resumed = run(RRLStage(config, make_ground("rrl", epochs=3, directory=tmp_path / "b")))
    assert_same_weights(resumed, whole, rtol=0, atol=0)
    np.testing.assert_array_equal(resumed.soft, whole.soft)
    assert torch.equal(resumed.targets, whole.targets)
    assert (whole.targets[whole.rows].numpy() != whole.ground.setup.data.labels[whole.rows]).any()


@pytest.mark.parametrize(
    "bad",
    [
        {"warmup": 1.0},
        {"neighbours": 0},
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"keep_above": -0.1},
        {"relabel_above": 1.1},
    ],
)
def test_settings_of_rrl_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        RRLConfig(**bad)


def test_a_threshold_that_keeps_nothing_is_refused(make_ground: MakeGround) -> None:
    with pytest.raises(ConfigError, match="choose a number below 3"):
        RRLStage(RRLConfig(keep_above=3.0), make_ground("rrl"))
