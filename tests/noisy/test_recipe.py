"""The stages of the recipe on tiny images: they learn, they do not peek, and they resume."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lauter.data import Dataset
from lauter.models import create_network
from lauter.noisy.foes import FoesConfig
from lauter.noisy.judge import JudgeConfig
from lauter.noisy.pretrain import PretrainConfig
from lauter.noisy.recipe import NoisyConfig, pretrain, train_robustly
from lauter.noisy.robust import RobustConfig, RobustStage
from lauter.noisy.warmup import WarmupConfig
from lauter.training.setup import Setup

CONFIG = NoisyConfig(
    PretrainConfig(epochs=1, batch_size=32),
    WarmupConfig(epochs=4),
    RobustConfig(epochs=3, batch_size=32, judge=JudgeConfig(refresh_neighbours=2)),
)
FOES = {
    "mixup": FoesConfig(mixup=1.0),
    "two networks": FoesConfig(two_networks=True),
    "mixmatch": FoesConfig(mixup=4.0, rejected="mixmatch"),
    "prior penalty": FoesConfig(prior_penalty=1.0),
    "heavy augmentation": FoesConfig(heavy_augmentation=True),
    "all": FoesConfig(
        mixup=4.0, two_networks=True, rejected="mixmatch", prior_penalty=1.0, heavy_augmentation=True
    ),
}

Run = Callable[..., RobustStage]


@pytest.fixture
def run(make_setup: Callable[..., Setup]) -> Run:
    """Run the recipe on a data set; where there is a checkpoint, it goes on."""

    def run_recipe(data: Dataset, directory: Path | None = None, config: NoisyConfig = CONFIG) -> RobustStage:
        torch.manual_seed(0)
        network = create_network("resnet8", 3, image_size=16)
        return train_robustly(make_setup(data, directory), network, config)

    return run_recipe


def with_robust(**changes: Any) -> NoisyConfig:
    return dataclasses.replace(CONFIG, robust=dataclasses.replace(CONFIG.robust, **changes))


def test_the_recipe_finds_wrong_labels_and_suggests_for_unlabelled_images(
    run: Run, make_data: Callable[..., Dataset]
) -> None:
    data = make_data()
    judge = run(data).judge
    true = data.images.uniform.mean((2, 3)).argmax(1)  # type: ignore[union-attr]
    known = data.labelled
    wrong = (data.labels != true) & known
    assert judge.assessment.p_right[known & ~wrong].mean() > judge.assessment.p_right[wrong].mean() + 0.4
    assert np.mean(judge.suggested[~known] == true[~known]) > 0.8
    assert not judge.assessment.kept[~known].any()


@pytest.mark.parametrize("foes", [FoesConfig(), FOES["all"]], ids=["default", "all foes"])
def test_holdout_images_teach_nothing(foes: FoesConfig, run: Run, make_data: Callable[..., Dataset]) -> None:
    data = make_data()
    other = data.labels.copy()
    holdout = np.arange(len(data)) % 6 == 5
    other[holdout] = np.roll(other[holdout], 1)
    # Hold-out labels may end the warm-up and select an epoch; they must not move a weight otherwise.
    config = dataclasses.replace(with_robust(foes=foes), warmup=WarmupConfig(epochs=2))
    first, second = run(data, config=config), run(data.with_labels(other), config=config)
    for one, two in zip(first.network.parameters(), second.network.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert first.tracker.scores != second.tracker.scores


def test_every_part_can_be_switched_off(run: Run, make_data: Callable[..., Dataset]) -> None:
    data = make_data(60)
    for beliefs in ("ensemble", "neighbours"):
        judge = JudgeConfig(beliefs=beliefs, weighting="soft", refresh_neighbours=0)
        robust = RobustConfig(epochs=1, batch_size=32, ema_decay=0.0, prior_correction=False, judge=judge)
        stage = run(data, config=NoisyConfig(PretrainConfig(method="none"), WarmupConfig(epochs=1), robust))
        judged = stage.judge
        expected = judged.ensemble.probabilities if beliefs == "ensemble" else judged.votes
        np.testing.assert_array_equal(judged.beliefs, expected)
        torch.testing.assert_close(judged.log_prior, torch.zeros(3), rtol=0, atol=0)
        assert stage.evaluated is stage.network


def test_pretraining_is_drawn_from_the_seed_whatever_was_drawn_before(
    make_data: Callable[..., Dataset], make_setup: Callable[..., Setup]
) -> None:
    weights = []
    for draws in (0, 7):
        torch.manual_seed(1)
        network = create_network("resnet8", 3, image_size=16)
        torch.rand(draws)
        pretrain(make_setup(make_data(60)), network, CONFIG.pretrain)
        weights.append(network.backbone.state_dict())
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


@pytest.mark.parametrize("foes", FOES.values(), ids=FOES)
def test_a_foe_changes_what_is_learnt_and_is_counted(
    foes: FoesConfig, run: Run, make_data: Callable[..., Dataset], make_setup: Callable[..., Setup]
) -> None:
    data = make_data(60)
    config = with_robust(epochs=1)
    plain, changed = run(data, config=config), run(data, config=with_robust(epochs=1, foes=foes))
    weights = zip(plain.network.parameters(), changed.network.parameters(), strict=True)
    assert any(not torch.equal(one, two) for one, two in weights) or foes.two_networks
    networks = 2 if foes.two_networks else 1
    assert changed.flops_per_image == pytest.approx(
        networks * foes.passes / FoesConfig().passes * plain.flops_per_image
    )
    assert len(changed.trained) == networks


def test_two_networks_heed_each_other(run: Run, make_data: Callable[..., Dataset]) -> None:
    stage = run(make_data(60), config=with_robust(epochs=2, foes=FoesConfig(two_networks=True)))
    (first, judge), (second, other) = stage._pairs
    assert judge is stage.judge
    assert first is stage.network
    assert not np.array_equal(judge.beliefs, other.beliefs)
    batch = next(iter(stage.batches.epoch(0)))
    other.weights[:] = 0  # then the first network has nothing to learn, and the second has
    torch.testing.assert_close(stage._learn(first, judge, other, batch)["classification"], torch.tensor(0.0))
    assert stage._learn(second, other, judge, batch)["classification"] > 0


@pytest.mark.parametrize("foes", [FoesConfig(), FOES["all"]], ids=["default", "all foes"])
def test_a_stopped_recipe_ends_where_an_uninterrupted_one_does(
    foes: FoesConfig,
    run: Run,
    make_data: Callable[..., Dataset],
    make_setup: Callable[..., Setup],
    tmp_path: Path,
) -> None:
    data, config = make_data(), with_robust(foes=foes)
    whole = run(data, tmp_path / "whole", config)

    class Stop(Exception):
        pass

    original, calls = RobustStage.after_step, []

    def stop_in_the_middle(self: RobustStage) -> None:
        original(self)
        calls.append(1)
        if len(calls) == 6:
            raise Stop

    part = tmp_path / "part"
    setup = make_setup(data, part)
    setup.loop.checkpoint_seconds = 0.0
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RobustStage, "after_step", stop_in_the_middle)
        with pytest.raises(Stop):
            train_robustly(setup, create_network("resnet8", 3, image_size=16), config)
    resumed = run(data, part, config)
    for name, value in whole.evaluated.state_dict().items():
        torch.testing.assert_close(resumed.evaluated.state_dict()[name], value, rtol=0, atol=0)
    np.testing.assert_array_equal(resumed.judge.assessment.p_right, whole.judge.assessment.p_right)
    np.testing.assert_array_equal(resumed.judge.beliefs, whole.judge.beliefs)
