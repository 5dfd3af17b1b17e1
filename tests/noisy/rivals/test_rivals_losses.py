"""Rivals that change the loss or the labels: what they compute, what survives a stop, what they never see."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lauter.data import Dataset
from lauter.data.batches import Batch
from lauter.errors import ConfigError
from lauter.losses.robust import generalised_cross_entropy, symmetric_cross_entropy
from lauter.models import InputSpec, Network, wrap_module
from lauter.noisy.rivals.ce import CrossEntropyConfig, CrossEntropyStage
from lauter.noisy.rivals.elr import ELRConfig, ELRStage
from lauter.noisy.rivals.gce import GCEConfig, GCEStage
from lauter.noisy.rivals.mixup import MixupConfig, MixupStage, draw_mix
from lauter.noisy.rivals.pencil import PencilConfig, PencilStage
from lauter.noisy.rivals.rival import Ground, RivalStage
from lauter.noisy.rivals.sce import SCEConfig, SCEStage
from lauter.training.schedule import OptimizerConfig, lr_factor
from lauter.training.setup import Setup, draw_from
from lauter.training.supervised import SupervisedConfig

MakeStage = Callable[..., Any]
RIVALS: dict[str, tuple[Any, Callable[[Any, Ground], RivalStage]]] = {
    "gce": (GCEConfig(), GCEStage),
    "truncated": (GCEConfig(threshold=0.4), GCEStage),
    "sce": (SCEConfig(), SCEStage),
    "mixup": (MixupConfig(), MixupStage),
    "elr": (ELRConfig(), ELRStage),
    "pencil": (PencilConfig(), PencilStage),
}
FILLED = {"elr": "targets", "pencil": "label_logits"}


def build_network(role: str) -> Network:
    with draw_from(0, role):
        body = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.2),
        )
        return wrap_module(body, 6, 3, InputSpec(16))


@dataclass(frozen=True)
class Spy:
    """Notes the logits that a stage's network gives at every look at a batch."""

    seen: list[tuple[list[int], Tensor]]

    @classmethod
    def on(cls, stage: RivalStage, monkeypatch: pytest.MonkeyPatch) -> "Spy":
        spy, see = cls([]), stage.see

        def look(batch: Batch) -> Any:
            output, labels = see(batch)
            spy.seen.append((batch.index.tolist(), output.logits.detach().double()))
            return output, labels

        monkeypatch.setattr(stage, "see", look)
        return spy


@pytest.fixture
def data(make_data: Callable[..., Dataset]) -> Dataset:
    drawn: Dataset = make_data()
    return drawn


@pytest.fixture
def make_stage(data: Dataset, make_setup: Callable[..., Setup]) -> MakeStage:
    """Make a stage that has not run: ``make_stage(config, kind, epochs=4, data=data, directory=None)``."""

    def make(
        config: Any,
        kind: Callable[[Any, Ground], RivalStage],
        epochs: int = 4,
        data: Dataset = data,
        directory: Path | None = None,
        **training: Any,
    ) -> RivalStage:
        settings = {"optimizer": OptimizerConfig(lr=0.1), "ema_decay": 0.9, **training}
        supervised = SupervisedConfig(epochs=epochs, batch_size=32, **settings)
        return kind(config, Ground("rival", make_setup(data, directory), build_network, supervised))

    return make


def run(stage: Any) -> Any:
    stage.ground.setup.loop.run_stage(stage)
    return stage


def first_batch(stage: RivalStage, epoch: int) -> Batch:
    stage.begin_epoch(epoch)
    batch: Batch = next(stage.batches.epoch(epoch))
    return batch


def take_step(stage: RivalStage, batch: Batch) -> None:
    """What the loop does to labels and gradients at a step, without moving the network."""
    torch.manual_seed(1)
    terms = stage.loss(batch)
    torch.stack([stage.weights.get(name, 1.0) * term.mean() for name, term in terms.items()]).sum().backward()
    stage.after_step()


def true_labels(data: Dataset) -> np.ndarray:
    return np.asarray(data.images.uniform.mean((2, 3)).argmax(1))  # type: ignore[union-attr]


def score_on_holdout(stage: RivalStage, data: Dataset) -> float:
    """Accuracy on the hold-out after the last epoch, with the truth that no stage sees."""
    predicted = stage.tracker.holdout_predictions[-1].numpy()
    return float(np.mean(predicted == true_labels(data)[stage.ground.setup.holdout]))


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(value - max(row)) for value in row]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("name", RIVALS)
def test_what_is_stopped_in_an_epoch_ends_like_what_is_not(
    name: str, make_stage: MakeStage, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    config, kind = RIVALS[name]
    whole = run(make_stage(config, kind))
    steps = len(whole.batches)
    for at in (2, steps + 2, 3 * steps):
        part = make_stage(config, kind, directory=tmp_path / str(at))
        part.ground.setup.loop.checkpoint_seconds = 0.0
        calls, after_step = [0], part.after_step

        def stop(calls: list[int] = calls, at: int = at, after_step: Any = after_step) -> None:
            after_step()
            calls[0] += 1
            if calls[0] == at:
                raise Stop

        part.after_step = stop
        with pytest.raises(Stop):
            run(part)
        resumed = run(make_stage(config, kind, directory=tmp_path / str(at)))
        for key, value in whole.evaluated.state_dict().items():
            torch.testing.assert_close(resumed.evaluated.state_dict()[key], value, rtol=0, atol=0)
        if name in FILLED:
            found, expected = (getattr(stage, FILLED[name]) for stage in (resumed, whole))
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
        assert resumed.tracker.scores == whole.tracker.scores
        costs = [stage.ground.setup.loop.costs["rival"] for stage in (resumed, whole)]
        assert costs[0].images == costs[1].images == 4 * len(whole.ground.setup.labelled_train)


@pytest.mark.parametrize("name", RIVALS)
def test_holdout_and_unlabelled_images_teach_nothing(name: str, make_stage: MakeStage, data: Dataset) -> None:
    config, kind = RIVALS[name]
    other = data.labels.copy()
    holdout = np.arange(len(data)) % 6 == 5
    other[holdout] = (other[holdout] + 1) % 3
    first = run(make_stage(config, kind))
    second = run(make_stage(config, kind, data=data.with_labels(other)))
    for one, two in zip(first.network.parameters(), second.network.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert first.tracker.scores != second.tracker.scores
    if name == "elr":
        untaught = torch.from_numpy(holdout | ~data.labelled)
        torch.testing.assert_close(first.targets[untaught].abs().sum(), torch.tensor(0.0), rtol=0, atol=0)
        assert float(first.targets[~untaught].sum(1).min()) > 0.7


@pytest.mark.parametrize("name", [name for name in RIVALS if name != "pencil"])  # see its corrections
def test_rivals_learn_the_colours(
    name: str, make_stage: MakeStage, make_data: Callable[..., Dataset]
) -> None:
    config, kind = RIVALS[name]
    data = make_data(300)
    stage = run(make_stage(config, kind, epochs=10, data=data))
    assert score_on_holdout(stage, data) > 0.9


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (GCEConfig(q=0.0), GCEStage),
        (SCEConfig(alpha=1.0, beta=0.0), SCEStage),
        (MixupConfig(alpha=0.0), MixupStage),
        (ELRConfig(weight=0.0), ELRStage),
    ],
    ids=["gce", "sce", "mixup", "elr"],
)
def test_what_is_switched_off_leaves_cross_entropy(config: Any, kind: Any, make_stage: MakeStage) -> None:
    plain = run(make_stage(CrossEntropyConfig(), CrossEntropyStage, epochs=2))
    limit, usual = run(make_stage(config, kind, epochs=2)), run(make_stage(type(config)(), kind, epochs=2))
    parameters = [(key, value.detach()) for key, value in plain.network.named_parameters()]
    for key, value in parameters:
        torch.testing.assert_close(limit.network.get_parameter(key).detach(), value, rtol=1e-3, atol=1e-5)
    usual_gaps = [
        (usual.network.get_parameter(key).detach() - value).abs().max() for key, value in parameters
    ]
    assert float(torch.stack(usual_gaps).max()) > 1e-3


def test_losses_are_those_of_the_given_labels(make_stage: MakeStage, monkeypatch: pytest.MonkeyPatch) -> None:
    gce = make_stage(GCEConfig(q=0.4, threshold=0.3, truncate_from=0.5), GCEStage)
    sce = make_stage(SCEConfig(alpha=0.5, beta=2.0, log_zero=-3.0), SCEStage)
    for stage, epoch, expected in (
        (gce, 1, lambda x, y: generalised_cross_entropy(x, y, q=0.4)),
        (gce, 2, lambda x, y: generalised_cross_entropy(x, y, q=0.4, threshold=0.3)),
        (sce, 0, lambda x, y: symmetric_cross_entropy(x, y, alpha=0.5, beta=2.0, log_zero=-3.0)),
    ):
        spy = Spy.on(stage, monkeypatch)
        batch = first_batch(stage, epoch)
        terms = {name: term.detach() for name, term in stage.loss(batch).items()}
        wanted = expected(spy.seen[-1][1], stage.labels[batch.index])
        assert set(terms) == {"classification"}
        torch.testing.assert_close(terms["classification"].double(), wanted, rtol=1e-5, atol=1e-6)
    assert gce.threshold == 0.3


def test_mixed_images_are_taught_mixed_labels(make_stage: MakeStage) -> None:
    stage = make_stage(MixupConfig(alpha=0.5), MixupStage)
    batch = first_batch(stage, 0)
    stage.network.eval()
    torch.manual_seed(9)
    found = stage.loss(batch)["classification"].detach()
    torch.manual_seed(9)
    partners, share = draw_mix(len(batch), 0.5)
    for row, partner in enumerate(partners.tolist()):
        pixels = share * batch.images[row].double() + (1 - share) * batch.images[partner].double()
        logits = stage.network(pixels[None].float()).logits[0].detach()
        log_probs = logits.double().log_softmax(0).tolist()
        ours, theirs = (int(stage.labels[batch.index[place]]) for place in (row, partner))
        expected = -share * log_probs[ours] - (1 - share) * log_probs[theirs]
        assert float(found[row]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_shares_of_a_mix_are_beta_distributed(alpha: float) -> None:
    torch.manual_seed(0)
    draws = [draw_mix(7, alpha) for _ in range(2000)]
    shares = np.array([share for _, share in draws])
    deviation = math.sqrt(1 / (4 * (2 * alpha + 1)))
    assert abs(shares.mean() - 0.5) < 5 * deviation / math.sqrt(2000)
    np.testing.assert_allclose(shares.std(), deviation, rtol=0.1)
    assert all(sorted(partners.tolist()) == list(range(7)) for partners, _ in draws)
    places = np.bincount([partners.tolist()[0] for partners, _ in draws], minlength=7)
    assert abs(places - 2000 / 7).max() < 5 * math.sqrt(2000 * 6 / 49)
    torch.manual_seed(0)
    assert draw_mix(7, alpha)[1] == draws[0][1]


def test_elr_averages_what_each_image_was_said_to_be(
    make_stage: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make_stage(ELRConfig(weight=2.0, momentum=0.6), ELRStage, epochs=3)
    spy = Spy.on(stage, monkeypatch)
    run(stage)
    assert stage.weights == {"early_learning": 2.0}
    targets: dict[int, list[float]] = {}
    for index, logits in spy.seen:
        for row, values in zip(index, logits.tolist(), strict=True):
            probs, before = softmax(values), targets.get(row, [0.0] * 3)
            targets[row] = [0.6 * old + 0.4 * prob for old, prob in zip(before, probs, strict=True)]
    assert sorted(targets) == stage.ground.setup.labelled_train.tolist()
    for row, expected in targets.items():
        np.testing.assert_allclose(stage.targets[row].tolist(), expected, rtol=1e-4, atol=1e-6)


def test_elr_takes_its_loss_of_the_targets_after_they_moved(
    make_stage: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make_stage(ELRConfig(), ELRStage)
    spy = Spy.on(stage, monkeypatch)
    batch = first_batch(stage, 0)
    terms = {name: term.detach() for name, term in stage.loss(batch).items()}
    for row, logits in enumerate(spy.seen[0][1].tolist()):
        probs = softmax(logits)
        expected = math.log(1 - sum(0.3 * prob * prob for prob in probs))
        assert float(terms["early_learning"][row]) == pytest.approx(expected, rel=1e-4, abs=1e-6)
        label = int(stage.labels[batch.index[row]])
        assert float(terms["classification"][row]) == pytest.approx(-math.log(probs[label]), rel=1e-4)


def move_by_loop(
    rows: list[list[float]],
    predictions: list[list[float]],
    labels: list[int],
    config: PencilConfig,
    rate: float,
) -> list[list[float]]:
    moved = []
    for row, logits, label in zip(rows, predictions, labels, strict=True):
        d, p = softmax(row), softmax(logits)
        given = [1.0 if k == label else 0.0 for k in range(3)]
        held = [a - b for a, b in zip(d, given, strict=True)]
        if config.squashed:
            pull = [a - b for a, b in zip(softmax(d), given, strict=True)]
            mean = sum(a * b for a, b in zip(d, pull, strict=True))
            held = [a * (b - mean) for a, b in zip(d, pull, strict=True)]
        slope = [(a - b) / 3 + config.alpha * c for a, b, c in zip(d, p, held, strict=True)]
        moved.append([value - rate * step for value, step in zip(row, slope, strict=True)])
    return moved


@pytest.mark.parametrize("squashed", [False, True])
def test_pencil_moves_the_labels_of_the_batch_by_their_own_gradient(
    squashed: bool, make_stage: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PencilConfig(alpha=0.3, beta=0.5, label_rate=1.28, sharpness=2.0, squashed=squashed)
    stage = make_stage(config, PencilStage, epochs=8)  # of which 3 are joint ones
    spy = Spy.on(stage, monkeypatch)
    batch = first_batch(stage, 2)
    before = stage.label_logits.clone()
    take_step(stage, batch)
    index, logits = spy.seen[0]
    expected = before.clone()
    labels = stage.labels[index].tolist()
    moved = move_by_loop(before[index].tolist(), logits.tolist(), labels, config, 0.01 * 130 / 3)
    expected[index] = torch.tensor(moved)
    torch.testing.assert_close(stage.label_logits, expected, rtol=1e-5, atol=1e-6)
    assert float((expected - before).abs().max()) > 0.05


def test_pencils_terms_weigh_as_in_the_source(make_stage: MakeStage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = make_stage(PencilConfig(alpha=0.3, beta=0.6, squashed=False), PencilStage, epochs=8)
    spy = Spy.on(stage, monkeypatch)
    assert stage.weights == pytest.approx({"divergence": 1 / 3, "compatibility": 0.3, "entropy": 0.2})
    batch = first_batch(stage, 0)
    assert set(stage.loss(batch)) == {"classification"}
    stage.begin_epoch(2)
    terms = {name: term.detach() for name, term in stage.loss(batch).items()}
    for row, (index, logits) in enumerate(zip(*spy.seen[-1], strict=True)):
        p, d = softmax(logits.tolist()), softmax(stage.label_logits[index].tolist())
        divergence = sum(a * math.log(a / b) for a, b in zip(p, d, strict=True))
        assert float(terms["divergence"][row]) == pytest.approx(divergence, rel=1e-4)
        given = int(stage.labels[index])
        assert float(terms["compatibility"][row]) == pytest.approx(-math.log(d[given]), rel=1e-2)
        assert float(terms["entropy"][row]) == pytest.approx(-sum(a * math.log(a) for a in p), rel=1e-4)
    stage.begin_epoch(5)
    assert set(stage.loss(batch)) == {"divergence"}


def test_a_label_moves_the_same_in_any_batch(make_stage: MakeStage) -> None:
    found = []
    for size in (5, 20):
        stage = make_stage(PencilConfig(), PencilStage, epochs=8)
        batch = first_batch(stage, 2)
        before = stage.label_logits[batch.index[:5]].clone()
        stage.network.eval()  # else the other images of the batch change the prediction
        take_step(stage, Batch(batch.index[:size], (batch.images[:size],)))
        found.append(stage.label_logits[batch.index[:5]])
        assert float((found[-1] - before).abs().min()) > 0.01
    torch.testing.assert_close(*found)


def test_pencils_labels_move_in_the_joint_phase_alone(
    make_stage: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make_stage(PencilConfig(), PencilStage, epochs=8)
    history, end_epoch = [stage.label_logits.clone()], stage.end_epoch

    def note(epoch: int) -> Any:
        history.append(stage.label_logits.clone())
        return end_epoch(epoch)

    monkeypatch.setattr(stage, "end_epoch", note)
    run(stage)
    given = torch.nn.functional.one_hot(stage.labels.clamp(min=0), 3) * (stage.labels >= 0)[:, None]
    torch.testing.assert_close(history[0], 10.0 * given)
    pairs = itertools.pairwise(history)
    moved = [float((after - before).abs().max()) for before, after in pairs]
    assert [gap > 0.01 for gap in moved] == [False] * 2 + [True] * 3 + [False] * 3
    assert [gap == 0 for gap in moved] == [True] * 2 + [False] * 3 + [True] * 3
    others = np.setdiff1d(np.arange(len(stage.labels)), stage.ground.setup.labelled_train)
    torch.testing.assert_close(history[-1][others], history[0][others], rtol=0, atol=0)


def test_pencil_corrects_labels(
    make_stage: MakeStage, make_data: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(300)
    stage = make_stage(PencilConfig(), PencilStage, epochs=16, data=data)
    metrics, end_epoch = [], stage.end_epoch

    def note(epoch: int) -> Any:
        metrics.append(end_epoch(epoch))
        return metrics[-1]

    monkeypatch.setattr(stage, "end_epoch", note)
    run(stage)
    rows = stage.ground.setup.labelled_train
    found, true = stage.label_logits.argmax(1).numpy()[rows], true_labels(data)[rows]
    assert np.mean(data.labels[rows] == true) < 0.85
    assert np.mean(found == true) > 0.92
    assert score_on_holdout(stage, data) > 0.9
    assert metrics[0]["corrected"] == 0
    assert metrics[-1]["corrected"] == pytest.approx(np.mean(found != data.labels[rows]))


def test_pencils_learning_rate_stands_until_late(make_stage: MakeStage) -> None:
    optimizer = OptimizerConfig(lr=0.3, warmup=0.02, weight_decay=1e-4)
    stage = make_stage(PencilConfig(), PencilStage, epochs=8, optimizer=optimizer)
    (part,) = stage.trained
    assert (part.config.lr, part.config.weight_decay) == (0.3, 1e-4)
    factors = [lr_factor(part.config, step, 1000) for step in (30, 500, 740, 760, 870, 880, 999)]
    np.testing.assert_allclose(factors, [1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert stage.ground.setup.labelled_train.tolist() == stage.batches.index.tolist()


@pytest.mark.parametrize(
    ("epochs", "expected"), [(1, (0, 1)), (2, (0, 1)), (3, (1, 2)), (40, (9, 25)), (320, (70, 200))]
)
def test_phases_are_the_sources_shares(epochs: int, expected: tuple[int, int]) -> None:
    assert PencilConfig().split(epochs) == expected


def test_a_training_without_a_joint_epoch_is_refused(make_stage: MakeStage) -> None:
    with pytest.raises(ConfigError, match=r"joint share of 0.05 leaves no epoch of 4 to learn labels in"):
        make_stage(PencilConfig(joint=0.05), PencilStage)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GCEConfig(q=1.5), r"gce: q must be within \[0, 1\], not 1.5"),
        (lambda: GCEConfig(q=math.nan), "gce: q must be"),
        (lambda: GCEConfig(threshold=1.0), r"gce: threshold must be within \[0, 1\), not 1.0"),
        (lambda: GCEConfig(truncate_from=2.0), "gce: truncate_from must be a share .* not 2.0"),
        (lambda: SCEConfig(alpha=-1.0), "sce: alpha and beta must be finite .* not -1.0 and 1.0"),
        (lambda: SCEConfig(beta=math.inf), "sce: alpha and beta must be finite .* not 0.1 and inf"),
        (lambda: SCEConfig(log_zero=4.0), "sce: log_zero must be finite and 0 or below, not 4.0"),
        (lambda: MixupConfig(alpha=-0.5), "mixup: alpha must be finite and 0 or more, not -0.5"),
        (lambda: MixupConfig(alpha=math.inf), "mixup: alpha must be finite"),
        (lambda: ELRConfig(weight=-3.0), "elr: weight must be finite and 0 or more, not -3.0"),
        (lambda: ELRConfig(momentum=1.0), r"elr: momentum must be in \[0, 1\), not 1.0"),
        (lambda: PencilConfig(backbone=0.6, joint=0.4), "of sum below 1, not 0.6 and 0.4"),
        (lambda: PencilConfig(joint=0.0), r"joint \(above 0\) .* not 0.21875 and 0.0"),
        (lambda: PencilConfig(alpha=-0.1), "pencil: alpha must be finite and 0 or more, not -0.1"),
        (lambda: PencilConfig(beta=math.nan), "pencil: beta must be finite and 0 or more, not nan"),
        (lambda: PencilConfig(label_rate=math.inf), "pencil: label_rate must be finite"),
        (lambda: PencilConfig(sharpness=0.0), "pencil: sharpness must be finite and above 0, not 0.0"),
    ],
)
def test_settings_out_of_range_are_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
