"""GCE: generalised cross-entropy, which weighs an image by how far its label is believed."""

from dataclasses import dataclass

from torch import Tensor

from lauter.data.batches import Batch
from lauter.errors import ConfigError
from lauter.losses.robust import generalised_cross_entropy
from lauter.noisy.rivals.rival import Ground, RivalStage


@dataclass(frozen=True)
class GCEConfig:
    """Generalised cross-entropy.

    Attributes:
        q: between cross-entropy (0) and the mean absolute error (1); the source's 0.7.
        threshold: labels that are believed less than this do not count; 0 lets all count. The source's
            truncated form takes 0.5.
        truncate_from: share of the training before the threshold holds (the source's 40 of 120 epochs).
    """

    q: float = 0.7
    threshold: float = 0.0
    truncate_from: float = 1 / 3

    def __post_init__(self) -> None:
        if not 0 <= self.q <= 1:
            raise ConfigError(f"gce: q must be within [0, 1], not {self.q}; 0.7 is usual")
        if not 0 <= self.threshold < 1:
            raise ConfigError(f"gce: threshold must be within [0, 1), not {self.threshold}; 0.5 is usual")
        if not 0 <= self.truncate_from <= 1:
            raise ConfigError(
                f"gce: truncate_from must be a share of the training within [0, 1], not {self.truncate_from}"
            )


class GCEStage(RivalStage):
    """Generalised cross-entropy on the given labels, truncated after a while where that was asked for.

    Source: Zhang and Sabuncu (2018), arXiv 1805.07836, with q for CIFAR-10. Departures: length, optimiser and
    schedule are those of every method; the truncated form looks at the step's own predictions, where the
    source passes over all images every ten epochs to choose the ones that count.

    Args:
        config: q and truncation.
        ground: what every method gets.
    """

    def __init__(self, config: GCEConfig, ground: Ground) -> None:
        super().__init__(ground)
        self.config = config
        self.threshold = 0.0

    def begin_epoch(self, epoch: int) -> None:
        """Let the threshold hold from its epoch on."""
        super().begin_epoch(epoch)
        late = epoch >= self.config.truncate_from * self.epochs
        self.threshold = self.config.threshold if late else 0.0

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The term ``classification`` [B]."""
        output, labels = self.see(batch)
        values = generalised_cross_entropy(output.logits, labels, q=self.config.q, threshold=self.threshold)
        return {"classification": values}
