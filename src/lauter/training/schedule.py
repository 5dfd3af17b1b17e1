"""Optimisers and learning-rate schedules, as one frozen config and pure functions of progress."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from lauter.errors import ConfigError


@dataclass(frozen=True)
class OptimizerConfig:
    """How the weights of a stage move.

    Attributes:
        kind: sgd (with momentum) or adamw.
        lr: learning rate at its highest.
        momentum: of sgd.
        nesterov: whether sgd looks ahead.
        weight_decay: shrinkage per step, times lr.
        schedule: cosine (to 0), step (times gamma at each milestone) or constant.
        warmup: share of all steps in which lr rises linearly from 0.
        milestones: for step: shares of the stage's length at which lr falls.
        gamma: for step: the factor.
        clip: largest norm of the gradient over everything that the stage optimises; 0 does not clip.
    """

    kind: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    warmup: float = 0.0
    milestones: tuple[float, ...] = (0.625, 0.75, 0.875)
    gamma: float = 0.1
    clip: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("sgd", "adamw"):
            raise ConfigError(f"optimizer kind must be sgd or adamw, not {self.kind!r}")
        if self.schedule not in ("cosine", "step", "constant"):
            raise ConfigError(f"schedule must be cosine, step or constant, not {self.schedule!r}")
        if not self.lr > 0:
            raise ConfigError(f"lr must be above 0, not {self.lr}")
        if not 0 <= self.momentum < 1 or self.weight_decay < 0 or self.clip < 0:
            raise ConfigError(
                f"momentum must be in [0, 1), weight_decay and clip 0 or more, "
                f"not {self.momentum}, {self.weight_decay}, {self.clip}"
            )
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"warmup must be a share of the stage in [0, 1), not {self.warmup}")
        if not all(0 < share < 1 for share in self.milestones) or not 0 < self.gamma <= 1:
            raise ConfigError(
                f"milestones must be shares of the stage in (0, 1) and gamma in (0, 1], "
                f"not {self.milestones} and {self.gamma}"
            )


def lr_factor(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """Factor on lr at a step (0-based) of ``total_steps``.

    Example:
        >>> cosine = OptimizerConfig(schedule="cosine")
        >>> [round(lr_factor(cosine, step, 100), 3) for step in (0, 50, 100)]
        [1.0, 0.5, 0.0]
    """
    warmup_steps = config.warmup * total_steps
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    if config.schedule == "cosine":
        return 0.5 + 0.5 * math.cos(math.pi * min(progress, 1.0))
    if config.schedule == "step":
        return float(config.gamma ** sum(step >= share * total_steps for share in config.milestones))
    return 1.0


ParameterGroups = Iterable[nn.Parameter] | Iterable[dict[str, Any]]


def make_optimizer(parameters: ParameterGroups, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Build the optimiser; a group may carry ``lr_scale``, a factor on the config's lr."""
    listed = list(parameters)
    # Parameters alone make one group, whose tensors the optimiser steps together.
    given = [entry for entry in listed if isinstance(entry, dict)] or [{"params": listed}]
    groups = [{**group, "lr_scale": group.get("lr_scale", 1.0)} for group in given]
    if config.kind == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        weight_decay=config.weight_decay,
    )


def set_lr(optimizer: torch.optim.Optimizer, config: OptimizerConfig, step: int, total_steps: int) -> None:
    """Set every group's lr for a step."""
    factor = lr_factor(config, step, total_steps)
    for group in optimizer.param_groups:
        group["lr"] = config.lr * factor * group["lr_scale"]
