"""ELR: early-learning regularisation, which holds a network to what it said before it learnt by heart."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lauter.data.batches import Batch
from lauter.errors import ConfigError
from lauter.losses.classification import cross_entropy
from lauter.losses.robust import early_learning, move_targets
from lauter.noisy.rivals.rival import Ground, RivalStage


@dataclass(frozen=True)
class ELRConfig:
    """Early-learning regularisation.

    Attributes:
        weight: of the regulariser (lambda, the source's 3 for CIFAR-10).
        momentum: share of an image's target that stays when it is seen again (beta, the source's 0.7 for
            CIFAR-10).
    """

    weight: float = 3.0
    momentum: float = 0.7

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ConfigError(f"elr: weight must be finite and 0 or more, not {self.weight}; 3 is usual")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"elr: momentum must be in [0, 1), not {self.momentum}; 0.7 is usual")


class ELRStage(RivalStage):
    """Cross-entropy on the given labels, and the early-learning regulariser.

    An image's target moves to the present prediction first, then the loss is taken of it.

    Source: Liu et al. (2020), arXiv 2007.00151, the method with one network (not ELR+), with its values for
    CIFAR-10. Departures: length, optimiser and schedule are those of every method (the source restarts a
    cosine every 10 epochs); the targets average plain probabilities, where the authors' code keeps each 1e-4
    away from 0 and 1 first.

    Attributes:
        targets: float32 [N, K] running averages of the predictions, zeros for images not seen yet.

    Args:
        config: weight and momentum.
        ground: what every method gets.
    """

    def __init__(self, config: ELRConfig, ground: Ground) -> None:
        super().__init__(ground, weights={"early_learning": config.weight})
        self.config = config
        self.targets = torch.zeros(len(ground.setup.data), self.num_classes, device=self.device)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``classification`` [B] and ``early_learning`` [B]; the targets of the batch move."""
        output, labels = self.see(batch)
        probs = output.logits.detach().softmax(1)
        targets = move_targets(self.targets[batch.index], probs, momentum=self.config.momentum)
        self.targets[batch.index] = targets
        return {
            "classification": cross_entropy(output.logits, labels),
            "early_learning": early_learning(output.logits, targets),
        }

    def state(self) -> dict[str, Any]:
        """The targets, beside what every rival keeps."""
        return {"targets": self.targets, **super().state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        super().load_state(state)
        self.targets = state["targets"].to(self.device)
