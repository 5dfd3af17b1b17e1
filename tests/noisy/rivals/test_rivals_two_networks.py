"""Co-teaching, DivideMix and the pair of networks: their formulas in plain loops, modes, costs, stops."""

import copy
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lauter.data import Dataset
from lauter.data.batches import Batch
from lauter.errors import ConfigError, ModelError
from lauter.losses.robust import sharpen
from lauter.models import InputSpec, Network, count_flops, count_parameters, create_network
from lauter.noisy.mixture import split_by_mixture
from lauter.noisy.rivals import dividemix
from lauter.noisy.rivals.coteaching import (
    CoTeachingConfig,
    CoTeachingStage,
    pick_small_losses,
    schedule_kept_share,
)
from lauter.noisy.rivals.dividemix import DivideMixConfig, DivideMixStage, refine_labels
from lauter.noisy.rivals.pair import NetworkPair
from lauter.noisy.rivals.rival import Ground, RivalStage
from lauter.training.averaging import WeightAverage
from lauter.training.schedule import OptimizerConfig
from lauter.training.setup import Setup, draw_from
from lauter.training.stage import Stage
from lauter.training.supervised import SupervisedConfig

TRAINING = SupervisedConfig(epochs=4, batch_size=32, optimizer=OptimizerConfig(lr=0.05))
HALF = CoTeachingConfig(warmup=0.5)
MakeData = Callable[..., Dataset]
MakeGround = Callable[..., Ground]


class Means(nn.Module):
    """A backbone without batch statistics: the mean of every channel."""

    feature_size = 3

    def forward(self, images: Tensor, want_maps: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
        return images.mean((2, 3)), (images,) * want_maps


def build_resnet(role: str) -> Network:
    with draw_from(0, role):
        return create_network("resnet8", 3, image_size=16)


def build_linear(role: str) -> Network:
    with draw_from(0, role):
        return Network(Means(), 3, InputSpec(16, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)))


@pytest.fixture
def make_ground(make_setup: Callable[..., Setup], make_data: MakeData) -> MakeGround:
    """A ground of its own for every stage."""

    def make(
        build: Callable[[str], Network] = build_resnet,
        data: Dataset | None = None,
        directory: Path | None = None,
        training: SupervisedConfig = TRAINING,
    ) -> Ground:
        return Ground("rival", make_setup(make_data() if data is None else data, directory), build, training)

    return make


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def classify(network: Network, picture: np.ndarray) -> list[float]:
    """Probabilities of a linear network for one picture [3, S, S], in float64."""
    mean, std = (np.array(part)[:, None, None] for part in (network.input_spec.mean, network.input_spec.std))
    features = ((picture / 255 - mean) / std).mean((1, 2))
    weight, bias = (part.detach().double().numpy() for part in (network.head.weight, network.head.bias))
    return softmax(weight @ features + bias).tolist()


def total(stage: Stage, terms: dict[str, Tensor]) -> Tensor:
    return torch.stack([stage.weights.get(name, 1.0) * term.mean() for name, term in terms.items()]).sum()


# --- the pair ------------------------------------------------------------------------------------------


@pytest.fixture
def pair() -> NetworkPair:
    return NetworkPair(build_resnet("first").eval(), build_resnet("second").eval()).eval()


@pytest.fixture
def pixels() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16), dtype=np.uint8))


def test_a_pair_answers_the_mean_probability(pair: NetworkPair, pixels: Tensor) -> None:
    first, second = (network(pixels, want_maps=True) for network in pair.networks)
    found = pair(pixels, want_maps=True)
    mean = (first.logits.double().softmax(1) + second.logits.double().softmax(1)) / 2
    torch.testing.assert_close(found.logits.exp().double(), mean, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.features, torch.cat([first.features, second.features], 1))
    torch.testing.assert_close(found.maps, first.maps + second.maps)
    assert pair.feature_size == found.features.shape[1]


def test_a_pair_costs_both_and_holds_the_networks_themselves(pair: NetworkPair, pixels: Tensor) -> None:
    one = build_resnet("first")
    assert count_flops(pair) == 2 * count_flops(one)
    assert count_parameters(pair) == 2 * count_parameters(one)
    pair(pixels).logits.sum().backward()
    for network in pair.networks:
        assert all(float(part.grad.abs().max()) > 0 for part in network.parameters())


def test_a_pair_is_saved_copied_and_averaged_like_one_network(pair: NetworkPair, pixels: Tensor) -> None:
    expected = pair(pixels).logits
    other = NetworkPair(build_resnet("third"), build_resnet("fourth")).eval()
    other.load_state_dict(pair.state_dict())
    torch.testing.assert_close(other(pixels).logits, expected, rtol=0, atol=0)
    average = WeightAverage(pair, 0.5)
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.add_(1.0)
    torch.testing.assert_close(average.shadow(pixels).logits, expected, rtol=0, atol=0)
    for _ in range(40):
        average.update()
    torch.testing.assert_close(average.shadow.networks[1].head.weight, pair.networks[1].head.weight)
    torch.testing.assert_close(average.shadow(pixels).logits, pair(pixels).logits, rtol=1e-3, atol=1e-3)


def test_a_pair_stays_finite_where_both_are_certain(pixels: Tensor) -> None:
    pair = NetworkPair(build_linear("first"), build_linear("second"))
    for sign, network in zip((1e4, -1e4), pair.networks, strict=True):
        nn.init.zeros_(network.head.weight)
        network.head.bias.data = torch.tensor([sign, 0.0, 0.0])
    torch.testing.assert_close(
        pair(pixels).logits[0], torch.tensor([math.log(0.5), math.log(0.25), math.log(0.25)])
    )


def test_networks_that_do_not_go_together_are_refused() -> None:
    other = Network(Means(), 3, InputSpec(32))
    with pytest.raises(ModelError, match=r"same input, not .*size=16.* and .*size=32"):
        NetworkPair(build_linear("first"), other)
    with pytest.raises(ModelError, match=r"same number of classes, not 3 .* and 4"):
        NetworkPair(build_linear("first"), Network(Means(), 4, build_linear("first").input_spec))


# --- co-teaching ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("warmup", [1, 4])
def test_the_kept_share_falls_from_the_end_of_the_warmup(warmup: int) -> None:
    for epoch in range(20):
        time = epoch - (warmup - 1)
        expected = 1.0 if time <= 0 else 1 - min(time / 6 * 0.45, 0.45)
        found = schedule_kept_share(epoch, 0.45, warmup=warmup, ramp=6)
        torch.testing.assert_close(found, expected)


def test_the_smallest_losses_are_picked_first_come_first() -> None:
    losses = torch.tensor([2.0, 1.0, 3.0, 1.0, 2.0])
    assert pick_small_losses(losses, 0.6).tolist() == [1, 3, 0]
    assert pick_small_losses(losses, 1.0).tolist() == [1, 3, 0, 4, 2]
    assert pick_small_losses(losses, 0.0).tolist() == [1]
    # 0.7 * 10 is a little less than 7 in floating point.
    assert len(pick_small_losses(torch.zeros(10), 1 - 0.3)) == 7


def test_each_network_learns_what_the_other_finds_easy(make_ground: MakeGround) -> None:
    ground = make_ground(build_linear)
    stage = CoTeachingStage(CoTeachingConfig(), ground)
    stage.kept_share = 0.4
    batch = next(iter(stage.batches.epoch(0)))
    terms = stage.loss(batch)
    losses: list[list[float]] = []
    for network in (stage.network, stage.second):
        pictures = batch.images.double().numpy()
        given = ground.setup.data.labels[batch.index.numpy()]
        losses.append(
            [-math.log(classify(network, p)[label]) for p, label in zip(pictures, given, strict=True)]
        )
    kept = round(0.4 * len(batch))
    for own, other, name in ((0, 1, "first"), (1, 0, "second")):
        easy = sorted(range(len(batch)), key=lambda row: losses[other][row])[:kept]
        expected = torch.tensor([losses[own][row] for row in easy])
        torch.testing.assert_close(terms[name], expected, rtol=1e-4, atol=1e-5)
    both = torch.tensor(losses).mean(0)
    torch.testing.assert_close(stage.seen[batch.index], both, rtol=1e-4, atol=1e-5)
    terms["first"].sum().backward()
    assert all(part.grad is None for part in stage.second.parameters())
    assert float(stage.network.head.weight.grad.abs().max()) > 0


def test_the_noise_rate_is_estimated_from_training_losses_alone(make_ground: MakeGround) -> None:
    for cap, expected in ((0.8, 0.25), (0.1, 0.1)):
        ground = make_ground(build_linear)
        stage = CoTeachingStage(CoTeachingConfig(warmup=0.5, largest_rate=cap), ground)
        rows = ground.setup.labelled_train
        stage.seen[:] = 50.0  # of the hold-out and of images without a label, which have no say
        stage.seen[rows] = torch.linspace(0.1, 0.3, len(rows))
        high = rows[:: len(rows) // round(0.25 * len(rows))][: round(0.25 * len(rows))]
        stage.seen[high] += 4
        assert stage.end_epoch(0)["noise_rate"] == 0
        share = len(high) / len(rows) if cap == 0.8 else cap
        torch.testing.assert_close(stage.end_epoch(1)["noise_rate"], share, atol=1e-3, rtol=0)
        torch.testing.assert_close(share, expected, atol=0.02, rtol=0)
        stage.begin_epoch(2)
        torch.testing.assert_close(stage.kept_share, 1 - share, atol=1e-3, rtol=0)


def test_coteaching_evaluates_the_first_network_and_counts_both(make_ground: MakeGround) -> None:
    ground = make_ground(training=dataclasses.replace(TRAINING, epochs=2))
    stage = CoTeachingStage(CoTeachingConfig(), ground)
    second = copy.deepcopy(stage.second.state_dict())
    ground.setup.loop.run_stage(stage)
    assert stage.evaluated is stage.network
    assert not torch.equal(stage.second.state_dict()["head.weight"], second["head.weight"])
    cost, images = ground.setup.loop.costs["rival"], len(ground.setup.labelled_train)
    assert cost.images == 2 * images
    torch.testing.assert_close(cost.flops, 2 * images * 6.0 * count_flops(stage.network))


@pytest.mark.parametrize("bad", [{"warmup": 1.0}, {"ramp": -0.1}, {"largest_rate": 1.0}])
def test_coteaching_refuses_settings_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        CoTeachingConfig(**bad)


# --- DivideMix: labels ---------------------------------------------------------------------------------


def sharpen_by_hand(probs: list[float], temperature: float) -> list[float]:
    powers = [p ** (1 / temperature) for p in probs]
    return [power / sum(powers) for power in powers]


def test_sharpening_is_its_formula_and_has_its_limits() -> None:
    probs = torch.tensor([[0.5, 0.3, 0.2], [0.0, 0.1, 0.9], [1 / 3, 1 / 3, 1 / 3]], dtype=torch.float64)
    for temperature in (0.5, 2.0):
        expected = torch.tensor([sharpen_by_hand(row, temperature) for row in probs.tolist()]).double()
        torch.testing.assert_close(sharpen(probs, temperature), expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(sharpen(probs, 1.0), probs)
    coldest = sharpen(probs[:2].float(), 1e-3)
    torch.testing.assert_close(coldest, torch.tensor([[1.0, 0, 0], [0, 0, 1]]))


def test_refined_labels_lie_between_the_given_label_and_the_guess() -> None:
    guesses = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])
    labels, p_right = torch.tensor([0, 2, 1]), torch.tensor([0.7, 1.0, 0.0])
    found = refine_labels(labels, guesses, p_right, 0.5)
    for row in range(3):
        w = float(p_right[row])
        mixed = [w * (k == int(labels[row])) + (1 - w) * float(guesses[row, k]) for k in range(3)]
        torch.testing.assert_close(found[row], torch.tensor(sharpen_by_hand(mixed, 0.5)))
    torch.testing.assert_close(found[1], torch.tensor([0.0, 0.0, 1.0]))


# --- DivideMix: a step ---------------------------------------------------------------------------------


def make_divided(ground: Ground, config: DivideMixConfig | None = None) -> tuple[DivideMixStage, Batch]:
    """A stage after its warm-up, whose networks disagree about the labels, and a batch of two views."""
    stage = DivideMixStage(config or DivideMixConfig(), ground)
    stage.begin_epoch(stage.warmup_epochs + 1)
    draws = np.random.default_rng(0).random((2, len(ground.setup.data)))
    stage.p_right = torch.from_numpy(draws).float()
    return stage, next(iter(stage.batches.epoch(2)))


def test_a_step_is_the_published_loss(make_ground: MakeGround, monkeypatch: pytest.MonkeyPatch) -> None:
    ground = make_ground(build_linear)
    stage, batch = make_divided(ground)
    size, share = len(batch), 0.7
    partners = np.random.default_rng(1).permutation(2 * size)
    # A share below a half is turned round, so that every mixed picture keeps its part.
    monkeypatch.setattr(dividemix, "draw_mix", lambda count, alpha: (torch.from_numpy(partners), 1 - share))
    terms = stage.loss(batch)

    given = ground.setup.data.labels[batch.index.numpy()]
    views = [view.double().numpy() for view in batch.views]
    pictures = [picture for view in views for picture in view]
    for own, name in ((0, "first"), (1, "second")):
        network, other = stage.pair.networks[own], stage.pair.networks[1 - own]
        w = stage.p_right[1 - own][batch.index].double().tolist()
        targets = []
        for row in range(size):
            mean = np.mean([classify(network, view[row]) for view in views], axis=0)
            if w[row] > 0.5:
                label = np.eye(3)[given[row]]
                targets.append(sharpen_by_hand((w[row] * label + (1 - w[row]) * mean).tolist(), 0.5))
            else:
                theirs = np.mean([classify(other, view[row]) for view in views], axis=0)
                targets.append(sharpen_by_hand(((mean + theirs) / 2).tolist(), 0.5))
        labelled, unlabelled, mean_probs = [], [], np.zeros(3)
        for row in range(2 * size):
            partner = int(partners[row])
            probs = classify(network, share * pictures[row] + (1 - share) * pictures[partner])
            target = [
                share * one + (1 - share) * two
                for one, two in zip(targets[row % size], targets[partner % size], strict=True)
            ]
            if w[row % size] > 0.5:
                labelled.append(-sum(q * math.log(p) for q, p in zip(target, probs, strict=True)))
            else:
                unlabelled.append(sum((p - q) ** 2 for q, p in zip(target, probs, strict=True)) / 3)
            mean_probs += np.array(probs) / (2 * size)
        penalty = sum(math.log(1 / 3 / p) / 3 for p in mean_probs)
        close: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
        assert len(labelled) not in (0, 2 * size)
        torch.testing.assert_close(terms[f"{name}_labelled"], torch.tensor(labelled), **close)
        torch.testing.assert_close(terms[f"{name}_unlabelled"], torch.tensor(unlabelled), **close)
        torch.testing.assert_close(terms[f"{name}_prior"], torch.tensor(penalty), **close)


def test_believed_labels_unmixed_are_plain_cross_entropy(
    make_ground: MakeGround, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, batch = make_divided(make_ground(build_linear))
    stage.p_right.fill_(1.0)
    monkeypatch.setattr(dividemix, "draw_mix", lambda count, alpha: (torch.arange(count), 1.0))
    terms = stage.loss(batch)
    assert set(terms) == {"first_labelled", "first_prior", "second_labelled", "second_prior"}
    logits = torch.cat([stage.pair.networks[0](view).logits for view in batch.views])
    labels = stage.labels[batch.index].repeat(2)
    expected = nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(terms["first_labelled"], expected)


@pytest.mark.parametrize("p_right", [0.0, 1.0])
def test_steps_with_an_empty_part_teach_finitely(p_right: float, make_ground: MakeGround) -> None:
    stage, batch = make_divided(make_ground())
    stage.p_right.fill_(p_right)
    terms = stage.loss(batch)
    missing = "labelled" if p_right == 0 else "unlabelled"
    assert f"first_{missing}" not in terms
    assert len(terms) == 4
    total(stage, terms).backward()
    for part in stage.pair.parameters():
        assert bool(part.grad.isfinite().all())


def test_networks_that_are_certain_give_finite_terms(make_ground: MakeGround) -> None:
    stage, batch = make_divided(make_ground(build_linear))
    for network in stage.pair.networks:
        network.head.weight.data *= 1e4
    terms = stage.loss(batch)
    assert max(float(term.detach().max()) for term in terms.values()) > 100
    total(stage, terms).backward()
    assert all(bool(term.isfinite().all()) for term in terms.values())
    assert all(bool(part.grad.isfinite().all()) for part in stage.pair.parameters())


def test_a_network_guesses_in_training_mode_and_is_asked_in_eval_mode(make_ground: MakeGround) -> None:
    stage, batch = make_divided(make_ground())
    seen: list[tuple[str, bool, bool, int]] = []

    def note(name: str) -> Callable[[Network, tuple[Tensor, ...]], None]:
        def hook(network: Network, inputs: tuple[Tensor, ...]) -> None:
            modes = {module.training for module in network.modules() if isinstance(module, nn.BatchNorm2d)}
            assert len(modes) == 1
            seen.append((name, modes.pop(), torch.is_grad_enabled(), len(inputs[0])))

        return hook

    for name, network in zip(("first", "second"), stage.pair.networks, strict=True):
        network.register_forward_pre_hook(note(name))
    stage.loss(batch)
    every = 2 * len(batch)
    asked = [2 * int((stage.p_right[1 - own][batch.index] <= 0.5).sum()) for own in range(2)]
    assert seen == [
        ("first", True, False, every),
        ("second", False, False, asked[0]),
        ("first", True, True, every),
        ("second", True, False, every),
        ("first", False, False, asked[1]),
        ("second", True, True, every),
    ]
    assert all(module.training for module in stage.pair.modules())


def test_guesses_carry_no_gradient(make_ground: MakeGround) -> None:
    stage, batch = make_divided(make_ground())
    terms = stage.loss(batch)
    own = torch.stack([term.mean() for name, term in terms.items() if name.startswith("first")]).sum()
    own.backward()
    first, second = stage.pair.networks
    assert all(float(part.grad.abs().max()) > 0 for part in first.parameters())
    assert all(part.grad is None for part in second.parameters())


def test_half_precision_leaves_no_weight_without_gradient(make_ground: MakeGround) -> None:
    stage, batch = make_divided(make_ground())
    with torch.autocast("cpu", torch.bfloat16):
        terms = stage.loss(batch)
    total(stage, terms).backward()
    for part in stage.pair.parameters():
        assert part.grad is not None
        assert float(part.grad.abs().max()) > 0


# --- DivideMix: the way --------------------------------------------------------------------------------


def test_the_warmup_is_cross_entropy_of_both_on_one_view(make_ground: MakeGround) -> None:
    for weight in (0.0, 0.3):
        stage = DivideMixStage(DivideMixConfig(entropy_weight=weight), make_ground(build_linear))
        stage.begin_epoch(0)
        batch = next(iter(stage.batches.epoch(0)))
        assert len(batch.views) == 1
        terms = stage.loss(batch)
        values = []
        for name, network in zip(("first", "second"), stage.pair.networks, strict=True):
            log_probs = network(batch.images).logits.log_softmax(1)
            given = log_probs[torch.arange(len(batch)), stage.labels[batch.index]]
            torch.testing.assert_close(terms[f"{name}_classification"], -given)
            # Certain predictions are penalised: their entropy is rewarded.
            values.append((-given + weight * (log_probs.exp() * log_probs).sum(1)).mean())
        torch.testing.assert_close(total(stage, terms), torch.stack(values).sum())


def test_views_and_weights_follow_the_epoch(make_ground: MakeGround) -> None:
    ground = make_ground(build_linear, training=dataclasses.replace(TRAINING, epochs=40))
    stage = DivideMixStage(DivideMixConfig(), ground)
    assert stage.warmup_epochs == 10
    for epoch in (0, 9, 10, 17, 25, 26, 39):
        stage.begin_epoch(epoch)
        middle = epoch + 0.5  # of the epoch; the weight rises over 16 of them
        expected = 25 * min(max((middle - 10) / 16, 0.0), 1.0)
        torch.testing.assert_close(stage.weights["second_unlabelled"], expected)
        batch = next(iter(stage.batches.epoch(epoch)))
        assert len(batch.views) == (1 if epoch < 10 else 2)
        plain = next(iter(ground.batches().epoch(epoch)))
        torch.testing.assert_close(batch.index, plain.index)
    at_once = DivideMixStage(DivideMixConfig(ramp=0.0), ground)
    at_once.begin_epoch(10)
    torch.testing.assert_close(at_once.weights["first_unlabelled"], 25.0)


def test_images_are_divided_by_the_losses_of_the_unchanged_images(make_ground: MakeGround) -> None:
    ground = make_ground()
    stage = DivideMixStage(DivideMixConfig(warmup=0.5), ground)
    stage.end_epoch(0)
    torch.testing.assert_close(stage.p_right, torch.zeros_like(stage.p_right))
    logged = stage.end_epoch(1)
    rows, labels = ground.setup.labelled_train, ground.setup.data.labels
    for own, network in enumerate(stage.pair.networks):
        logits = ground.setup.predict(network, rows).logits.double()
        losses = nn.functional.cross_entropy(logits, torch.from_numpy(labels[rows]), reduction="none")
        expected = torch.from_numpy(split_by_mixture(losses.numpy())).float()
        torch.testing.assert_close(stage.p_right[own, rows], expected, atol=1e-3, rtol=0)
        share = float((stage.p_right[own, rows] > 0.5).float().mean())
        torch.testing.assert_close(logged[f"{('first', 'second')[own]}_labelled"], share)
    others = np.setdiff1d(np.arange(len(labels)), rows)
    torch.testing.assert_close(stage.p_right[:, others], torch.zeros(2, len(others)))


def test_dividemix_counts_every_pass(make_ground: MakeGround, monkeypatch: pytest.MonkeyPatch) -> None:
    ground = make_ground()
    stage = DivideMixStage(DivideMixConfig(), ground)
    rows = ground.setup.labelled_train
    asked: list[int] = []
    begin = DivideMixStage.begin_epoch

    def look(self: DivideMixStage, epoch: int) -> None:
        begin(self, epoch)
        if epoch:
            asked.append(int((self.p_right[:, rows] <= 0.5).sum()))

    monkeypatch.setattr(DivideMixStage, "begin_epoch", look)
    ground.setup.loop.run_stage(stage)
    cost, images, one = ground.setup.loop.costs["rival"], len(rows), count_flops(stage.pair.networks[0])
    assert stage.warmup_epochs == 1
    assert len(asked) == 3
    # One epoch of one view, three of two; the images are looked at unchanged before each of those three.
    assert cost.images == images * (1 + 3 * 2 + 3)
    passes = images * (1 * 3 + 3 * 2 * (1 + 3) + 3) * 2 + 2 * sum(asked)
    torch.testing.assert_close(cost.flops, float(passes * one), rtol=1e-9, atol=0)


def test_dividemix_finds_wrong_labels(make_ground: MakeGround, make_data: MakeData) -> None:
    data = make_data(240)
    ground = make_ground(data=data)
    stage = DivideMixStage(DivideMixConfig(warmup=0.5), ground)
    ground.setup.loop.run_stage(stage)
    rows = ground.setup.labelled_train
    true = data.images.uniform.mean((2, 3)).argmax(1)  # type: ignore[union-attr]
    right = torch.from_numpy(data.labels[rows] == true[rows])
    for p_right in stage.p_right[:, rows]:
        assert float(p_right[right].mean()) > float(p_right[~right].mean()) + 0.5
    predicted = ground.setup.predict(stage.evaluated).classes()
    assert np.mean(predicted == true) > 0.9


@pytest.mark.parametrize(
    "bad",
    [
        {"warmup": 1.0},
        {"ramp": -0.1},
        {"threshold": 1.0},
        {"temperature": 0.0},
        {"alpha": 0.0},
        {"unlabelled_weight": -1.0},
        {"prior_weight": math.nan},
        {"entropy_weight": math.inf},
    ],
)
def test_dividemix_refuses_settings_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"dividemix: .*{next(iter(bad))}"):
        DivideMixConfig(**bad)


# --- both ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "config"), [(CoTeachingStage, HALF), (DivideMixStage, DivideMixConfig())])
def test_a_stop_in_the_middle_of_an_epoch_changes_no_bit(
    method: Callable[[Any, Ground], RivalStage], config: Any, make_ground: MakeGround, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    def train(directory: Path, stop_at: int = 0) -> RivalStage:
        training = dataclasses.replace(TRAINING, ema_decay=0.9)
        ground = make_ground(directory=directory, training=training)
        ground.setup.loop.checkpoint_seconds = 0.0 if stop_at else 300.0
        stage = method(config, ground)
        step, taken = stage.after_step, []

        def count_steps() -> None:
            step()
            taken.append(1)
            if len(taken) == stop_at:
                raise Stop

        stage.after_step = count_steps  # type: ignore[method-assign]
        ground.setup.loop.run_stage(stage)
        return stage

    whole = train(tmp_path / "whole")
    assert len(whole.batches) == 3
    with pytest.raises(Stop):
        train(tmp_path / "part", stop_at=8)  # the second step of the third epoch, past both warm-ups
    resumed = train(tmp_path / "part")
    for name, module in whole.modules.items():
        for key, value in module.state_dict().items():
            torch.testing.assert_close(resumed.modules[name].state_dict()[key], value, rtol=0, atol=0)
    assert resumed.tracker.scores == whole.tracker.scores
    for name in ("p_right", "seen", "noise_rate"):
        if hasattr(whole, name):
            torch.testing.assert_close(getattr(resumed, name), getattr(whole, name), rtol=0, atol=0)
