"""Cross-entropy on the given labels, plain or with smoothed labels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lauter.data.batches import Batch
from lauter.errors import ConfigError
from lauter.losses.classification import count_log_prior, cross_entropy
from lauter.noisy.rivals.rival import Ground, RivalStage


@dataclass(frozen=True)
class CrossEntropyConfig:
    """Cross-entropy.

    Attributes:
        label_smoothing: share of a label that is spread over all classes.
        prior_correction: whether the class frequencies are taken out of what is learnt (logit adjustment).
    """

    label_smoothing: float = 0.0
    prior_correction: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"ce: label_smoothing must be in [0, 1), not {self.label_smoothing}")


@dataclass(frozen=True)
class PriorConfig(CrossEntropyConfig):
    """Prior-corrected cross-entropy.

    Attributes:
        prior_correction: whether the class frequencies are taken out of what is learnt.
    """

    prior_correction: bool = True


@dataclass(frozen=True)
class LabelSmoothingConfig(CrossEntropyConfig):
    """Cross-entropy with smoothed labels.

    Attributes:
        label_smoothing: share of a label that is spread over all classes (0.1, the source's).
    """

    label_smoothing: float = 0.1


class CrossEntropyStage(RivalStage):
    """Cross-entropy on the given labels.

    Source of label smoothing: Szegedy et al. (2016), arXiv 1512.00567; of logit adjustment: Menon et al.
    (2021), arXiv 2007.07314. Departures: none.

    Args:
        config: smoothing.
        ground: what every method gets.
    """

    def __init__(self, config: CrossEntropyConfig, ground: Ground) -> None:
        super().__init__(ground)
        self.config = config
        taught = torch.from_numpy(ground.setup.data.labels[ground.setup.labelled_train])
        prior = count_log_prior(taught, self.num_classes).to(self.device)
        self.log_prior = prior if config.prior_correction else None

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The term ``classification`` [B]."""
        output, labels = self.see(batch)
        values = cross_entropy(
            output.logits, labels, log_prior=self.log_prior, label_smoothing=self.config.label_smoothing
        )
        return {"classification": values}
