"""Stage: what one part of a training run owns and does. The loop in ``loop.py`` runs any list of them.

A stage names its modules, its optimisers, its batches and its loss; momentum networks, queues, beliefs and
other state live in the stage too and are saved with it. Plain cross-entropy, the F&F recipe, feature
mimicking and every rival are stages; none has a loop of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from lauter.data.batches import Batch
from lauter.errors import ConfigError
from lauter.training.schedule import OptimizerConfig, ParameterGroups, make_optimizer


class BatchSource(Protocol):
    """Where a stage's batches come from: image, feature or any other batches, resumable by (epoch, step)."""

    def __len__(self) -> int: ...

    @property
    def images_per_epoch(self) -> int:
        """Images in an epoch."""
        ...

    def epoch(self, epoch: int, first_step: int = 0) -> Any:
        """Iterate the batches of an epoch from ``first_step`` on."""
        ...


@dataclass(frozen=True, eq=False)
class Trained:
    """An optimiser and the config that drives it."""

    optimizer: torch.optim.Optimizer
    config: OptimizerConfig


class Stage:
    """One part of a training run. Subclass, or use as it is with a loss of your own.

    Several processes may take its steps together. Each then sees its own part of every batch, and the loss is
    that of the whole: what networks give for the parts is put together (:meth:`Batch.gather`) before anything
    is averaged, compared or remembered. A stage that does so says it (``shares``); others are refused there.

    Attributes:
        shares: whether its loss is that of the whole batch when processes have parts of it.
        name: unique in the run; names its checkpoint and its lines in metrics.jsonl.
        epochs: how many; a stage may stop before (:meth:`finished`).
        batches: what it trains on.
        modules: every module it owns, trained or not; all are saved. Frozen ones stay in eval mode.
        trained: optimisers, in a fixed order.
        weights: factor of each loss term; 1 where a term is not named.
        flops_per_image: forward multiply-adds times two of everything a training image passes through,
            backward passes included; for the cost account.
        further_images: images counted beside those (:meth:`count`) since the loop last took them in.
        further_flops: their operations.
    """

    shares: ClassVar[bool] = False

    def __init__(
        self,
        name: str,
        epochs: int,
        batches: BatchSource,
        modules: Mapping[str, nn.Module],
        *,
        weights: Mapping[str, float] | None = None,
        flops_per_image: float = 0.0,
    ) -> None:
        self.name = name
        self.epochs = epochs
        self.batches = batches
        self.modules = dict(modules)
        self.trained: list[Trained] = []
        self.weights = dict(weights or {})
        self.flops_per_image = flops_per_image
        self.further_images = 0
        self.further_flops = 0.0

    def count(self, images: int, flops_per_image: float) -> None:
        """Add images to the cost account that pass through a network beside the step's own views."""
        self.further_images += images
        self.further_flops += images * flops_per_image

    def train_with(self, parameters: ParameterGroups, config: OptimizerConfig) -> None:
        """Add an optimiser over some parameters.

        Raises:
            ConfigError: it clips at another norm than an earlier one of this stage; the norm is a common one.
        """
        if config.clip and self.clip not in (0, config.clip):
            raise ConfigError(
                f"stage {self.name!r}: its optimisers clip at {self.clip} and {config.clip}, but the "
                f"gradient's norm is one over all of them; give them the same clip, or 0 to leave one out"
            )
        self.trained.append(Trained(make_optimizer(parameters, config), config))

    @property
    def clip(self) -> float:
        """Largest norm of the gradient over :meth:`clipped_parameters`; 0 does not clip."""
        return max((part.config.clip for part in self.trained), default=0.0)

    def clipped_parameters(self) -> list[Tensor]:
        """The parameters of every optimiser that asks for clipping."""
        groups = [group for part in self.trained if part.config.clip for group in part.optimizer.param_groups]
        return [parameter for group in groups for parameter in group["params"]]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Named loss terms, each [B] (averaged by the loop) or a scalar."""
        raise NotImplementedError(f"stage {self.name!r} defines no loss")

    def begin_epoch(self, epoch: int) -> None:
        """Run before the first step of an epoch, and again when an epoch is resumed in its middle."""
        for module in self.modules.values():
            module.train(any(parameter.requires_grad for parameter in module.parameters()))

    def after_step(self) -> None:
        """Run after the optimisers stepped: momentum networks, queues, weight averages."""

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Run after an epoch; what is returned is logged."""
        return {}

    def finished(self, epoch: int) -> bool:
        """Whether to stop after this epoch although epochs are left."""
        return False

    def state(self) -> dict[str, Any]:
        """Whatever besides modules and optimisers must survive a stop: tensors, numbers, lists, dicts.

        What the processor's memory held returns there, what an accelerator held returns to the run's device.
        """
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
