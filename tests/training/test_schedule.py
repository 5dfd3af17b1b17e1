"""Optimisers and schedules against values by hand."""

import math

import pytest
import torch
from torch import nn

from lauter.errors import ConfigError
from lauter.training.schedule import OptimizerConfig, lr_factor, make_optimizer, set_lr


def draw_parameters(count: int = 3) -> list[nn.Parameter]:
    return [nn.Parameter(torch.full((2,), float(i + 1))) for i in range(count)]


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 1.0), (25, 0.8535533905932737), (50, 0.5), (75, 0.14644660940672627), (100, 0.0), (110, 0.0)],
)
def test_cosine(step: int, expected: float) -> None:
    assert lr_factor(OptimizerConfig(), step, 100) == pytest.approx(expected, abs=1e-12)


def test_steps_fall_at_the_milestones_of_the_crd_recipe() -> None:
    config = OptimizerConfig(schedule="step")  # 240 epochs: after 150, 180 and 210
    expected = {0: 1.0, 149: 1.0, 150: 0.1, 179: 0.1, 180: 0.01, 209: 0.01, 210: 0.001, 239: 0.001}
    for epoch, factor in expected.items():
        assert lr_factor(config, epoch, 240) == pytest.approx(factor, rel=1e-12)


def test_constant() -> None:
    config = OptimizerConfig(schedule="constant")
    assert [lr_factor(config, step, 10) for step in range(10)] == [1.0] * 10


def test_warmup_rises_in_equal_steps_and_then_the_schedule_starts_at_its_top() -> None:
    for schedule in ("constant", "cosine", "step"):
        config = OptimizerConfig(schedule=schedule, warmup=0.1, milestones=(0.5,))  # type: ignore[arg-type]
        rise = [lr_factor(config, step, 40) for step in range(5)]
        assert rise == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0], abs=1e-12)
    cosine = OptimizerConfig(warmup=0.1)
    assert lr_factor(cosine, 4 + 18, 40) == pytest.approx(0.5, abs=1e-12)
    assert lr_factor(cosine, 4 + 9, 40) == pytest.approx(0.5 + 0.5 * math.cos(math.pi / 4), abs=1e-12)


def test_groups_scale_the_lr() -> None:
    config = OptimizerConfig(lr=0.4, schedule="constant", warmup=0.1)
    first, second, third = draw_parameters()
    optimizer = make_optimizer(
        [{"params": [first], "lr_scale": 0.1}, {"params": [second, third], "weight_decay": 0.0}], config
    )
    for step, factor in ((0, 0.5), (5, 1.0)):
        set_lr(optimizer, config, step, 10)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
            [0.04 * factor, 0.4 * factor]
        )
    assert [group["weight_decay"] for group in optimizer.param_groups] == [5e-4, 0.0]


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_parameters_alone_make_one_group(kind: str) -> None:
    config = OptimizerConfig(kind=kind, lr=0.3, weight_decay=0.2)  # type: ignore[arg-type]
    parameters = draw_parameters()
    for given in (parameters, iter(parameters), tuple(parameters)):
        optimizer = make_optimizer(given, config)  # type: ignore[arg-type]
        (group,) = optimizer.param_groups
        assert len(group["params"]) == 3
        assert all(one is two for one, two in zip(group["params"], parameters, strict=True))
        assert group["weight_decay"] == 0.2
        assert isinstance(optimizer, torch.optim.SGD if kind == "sgd" else torch.optim.AdamW)


def test_sgd_with_nesterov_against_the_formula() -> None:
    config = OptimizerConfig(lr=0.1, momentum=0.9, weight_decay=0.01)
    parameter = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = make_optimizer([parameter], config)
    weight, velocity = 2.0, 0.0
    for step in range(3):
        set_lr(optimizer, config, step, 3)
        optimizer.zero_grad()
        (parameter**2).sum().backward()
        optimizer.step()
        gradient = 2 * weight + 0.01 * weight
        velocity = 0.9 * velocity + gradient
        weight -= 0.1 * lr_factor(config, step, 3) * (gradient + 0.9 * velocity)
    torch.testing.assert_close(parameter.detach(), torch.tensor([weight], dtype=torch.float64))


def test_without_momentum_sgd_has_no_nesterov() -> None:
    optimizer = make_optimizer(draw_parameters(), OptimizerConfig(momentum=0.0))
    assert not optimizer.param_groups[0]["nesterov"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"kind": "lion"}, "kind must be sgd or adamw, not 'lion'"),
        ({"schedule": "linear"}, "schedule must be cosine, step or constant, not 'linear'"),
        ({"lr": 0.0}, "lr must be above 0, not 0.0"),
        ({"lr": math.nan}, "lr must be above 0, not nan"),
        ({"momentum": 1.0}, "momentum must be in"),
        ({"weight_decay": -1.0}, "weight_decay and clip 0 or more"),
        ({"clip": -1.0}, "weight_decay and clip 0 or more"),
        ({"warmup": 1.0}, "warmup must be a share of the stage"),
        ({"milestones": (0.5, 150)}, "milestones must be shares of the stage"),
        ({"gamma": 0.0}, "gamma in"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OptimizerConfig(**setting)  # type: ignore[arg-type]
