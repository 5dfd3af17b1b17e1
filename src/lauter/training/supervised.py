"""Supervised training with labels as they are: the baseline that everything else is set beside."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from lauter.data.batches import Batch, ImageBatches
from lauter.data.dataset import Int64s
from lauter.errors import ConfigError
from lauter.losses.classification import cross_entropy, mean_over
from lauter.models import Network, count_flops
from lauter.training.schedule import OptimizerConfig
from lauter.training.tracking import TrackedStage, Tracker


@dataclass(frozen=True)
class SupervisedConfig:
    """Plain cross-entropy.

    Attributes:
        epochs: passes over the images.
        batch_size: images in a step.
        optimizer: how the weights move.
        ema_decay: of the weight average that is evaluated; 0 evaluates the weights themselves.
    """

    epochs: int = 40
    batch_size: int = 128
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=0.1, warmup=0.03))
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ConfigError(
                f"epochs and batch_size must be 1 or more, not {self.epochs}, {self.batch_size}"
            )
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay must be in [0, 1), not {self.ema_decay}")


class SupervisedStage(TrackedStage):
    """Cross-entropy on labels, plain or prior-corrected.

    Args:
        name: of the stage.
        network: trained whole.
        labels: [N] the labels to learn, -1 for none.
        batches: which images.
        config: epochs, optimiser.
        tracker: follows the network.
        log_prior: [K] for prior-corrected (logit-adjusted) cross-entropy; plain where None.
    """

    shares: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        network: Network,
        labels: Int64s,
        batches: ImageBatches,
        config: SupervisedConfig,
        tracker: Tracker,
        log_prior: Tensor | None = None,
    ) -> None:
        super().__init__(
            name,
            config.epochs,
            batches,
            network,
            tracker,
            config.ema_decay,
            flops_per_image=3 * count_flops(network),
        )
        self.labels = torch.from_numpy(labels).to(batches.device)
        self.log_prior = None if log_prior is None else log_prior.to(batches.device)
        self.train_with(network.parameters(), config.optimizer)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, averaged over the labelled images of the batch."""
        labels = self.labels[batch.index]
        (logits,) = batch.gather(self.network(batch.images).logits)
        values = cross_entropy(logits, labels, log_prior=self.log_prior)
        return {"classification": mean_over(values, (labels >= 0).float())}
