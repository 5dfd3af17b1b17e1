"""SCE: symmetric cross-entropy, which adds a bounded part that tolerates wrong labels."""

import math
from dataclasses import dataclass

from torch import Tensor

from lauter.data.batches import Batch
from lauter.errors import ConfigError
from lauter.losses.robust import symmetric_cross_entropy
from lauter.noisy.rivals.rival import Ground, RivalStage


@dataclass(frozen=True)
class SCEConfig:
    """Symmetric cross-entropy.

    Attributes:
        alpha: weight of cross-entropy (the source's 0.1 for CIFAR-10).
        beta: weight of the reverse part (the source's 1 for CIFAR-10).
        log_zero: what the logarithm of 0 is taken to be; the authors' code clips at 1e-4, which is -9.21.
    """

    alpha: float = 0.1
    beta: float = 1.0
    log_zero: float = -4.0

    def __post_init__(self) -> None:
        if not (0 <= self.alpha < math.inf and 0 <= self.beta < math.inf):
            raise ConfigError(
                f"sce: alpha and beta must be finite weights of 0 or more, not {self.alpha} and {self.beta}"
            )
        if not -math.inf < self.log_zero <= 0:
            raise ConfigError(f"sce: log_zero must be finite and 0 or below, not {self.log_zero}")


class SCEStage(RivalStage):
    """Symmetric cross-entropy on the given labels.

    Source: Wang et al. (2019), arXiv 1908.06112, with its weights for CIFAR-10. Departures: length, optimiser
    and schedule are those of every method.

    Args:
        config: the weights.
        ground: what every method gets.
    """

    def __init__(self, config: SCEConfig, ground: Ground) -> None:
        super().__init__(ground)
        self.config = config

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The term ``classification`` [B]."""
        output, labels = self.see(batch)
        config = self.config
        values = symmetric_cross_entropy(
            output.logits, labels, alpha=config.alpha, beta=config.beta, log_zero=config.log_zero
        )
        return {"classification": values}
