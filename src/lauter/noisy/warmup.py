"""Warm-up: the head alone, on frozen features, prior-corrected.

A network that only moves its head cannot memorise wrong labels; its predictions are the first beliefs.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from lauter.data.batches import Batch, FeatureBatches
from lauter.data.dataset import Int64s
from lauter.errors import ConfigError
from lauter.evaluation.metrics import balanced_agreement
from lauter.losses.classification import cross_entropy, mean_over
from lauter.training.schedule import OptimizerConfig
from lauter.training.stage import Stage


@dataclass(frozen=True)
class WarmupConfig:
    """Training of the head on frozen features.

    Attributes:
        epochs: the most passes over the stored features (cheap: no image is looked at again).
        patience: epochs without a better agreement on the noisy hold-out after which it ends.
        batch_size: rows in a step.
        optimizer: how the head moves.
    """

    epochs: int = 60
    patience: int = 15
    batch_size: int = 256
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(kind="adamw", lr=0.01, weight_decay=1e-3)
    )

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.patience < 1 or self.batch_size < 1:
            raise ConfigError(
                f"warm-up needs epochs, patience and batch_size of 1 or more, "
                f"not {self.epochs}, {self.patience}, {self.batch_size}"
            )


class WarmupStage(Stage):
    """Prior-corrected cross-entropy of a linear head on stored features.

    Args:
        head: maps features [B, D] to logits [B, K].
        features: float32 [N, D] of all images.
        labels: [N] given labels, -1 for none.
        train: rows to learn from (labelled ones are taken).
        holdout: rows of the noisy hold-out.
        log_prior: [K].
        config: epochs, patience, optimiser.
        seed: decides the order.
    """

    def __init__(
        self,
        head: nn.Module,
        features: Tensor,
        labels: Int64s,
        train: Int64s,
        holdout: Int64s,
        log_prior: Tensor,
        config: WarmupConfig,
        seed: int,
    ) -> None:
        batches = FeatureBatches(features, train[labels[train] >= 0], config.batch_size, seed=seed)
        super().__init__("warmup", config.epochs, batches, {"head": head})
        self.head, self.features = head, features
        self.labels = torch.from_numpy(labels).to(features.device)
        self.holdout = torch.from_numpy(holdout).to(features.device)
        self.log_prior = log_prior.to(features.device)
        self.patience = config.patience
        self.scores: list[float] = []
        self.train_with(head.parameters(), config.optimizer)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Logit-adjusted cross-entropy against the given labels."""
        labels = self.labels[batch.index]
        values = cross_entropy(self.head(batch.images), labels, log_prior=self.log_prior)
        return {"classification": mean_over(values, torch.ones_like(values))}

    @torch.no_grad()
    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Agreement with the given labels of the hold-out, classes weighing the same."""
        if not len(self.holdout):
            return {}
        logits = self.head(self.features[self.holdout])
        given = self.labels[self.holdout].cpu().numpy()
        self.scores.append(balanced_agreement(logits.argmax(1).cpu().numpy(), given, logits.shape[1]))
        return {"agreement_with_given": self.scores[-1]}

    def finished(self, epoch: int) -> bool:
        """Whether the hold-out has not improved for ``patience`` epochs."""
        return bool(self.scores) and epoch - int(np.argmax(self.scores)) >= self.patience

    def state(self) -> dict[str, list[float]]:
        """The hold-out's scores so far."""
        return {"scores": self.scores}

    def load_state(self, state: dict[str, list[float]]) -> None:
        """Take back what :meth:`state` gave."""
        self.scores = state["scores"]
