"""Co-teaching: two networks, each taught the images of a step that the other finds easy."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lauter.data.batches import Batch
from lauter.errors import ConfigError
from lauter.losses.classification import cross_entropy
from lauter.noisy.mixture import split_by_mixture
from lauter.noisy.rivals.rival import Ground, RivalStage


@dataclass(frozen=True)
class CoTeachingConfig:
    """Co-teaching.

    Attributes:
        warmup: share of the epochs, at least one of them, in which every image is taught; the noise rate is
            estimated at their end.
        ramp: share of the epochs in which what is left out then rises to the estimated noise rate. With the
            defaults and 40 epochs, that rate is reached after 10, the source's T_k.
        largest_rate: most that is ever left out, whatever the estimate.
    """

    warmup: float = 0.1
    ramp: float = 0.15
    largest_rate: float = 0.8

    def __post_init__(self) -> None:
        if not (0 <= self.warmup < 1 and 0 <= self.ramp < 1):
            raise ConfigError(
                f"coteaching: warmup and ramp must be shares of the epochs in [0, 1), "
                f"not {self.warmup} and {self.ramp}"
            )
        if not 0 <= self.largest_rate < 1:
            raise ConfigError(
                f"coteaching: largest_rate must be in [0, 1), so that something is taught, "
                f"not {self.largest_rate}"
            )


def schedule_kept_share(epoch: int, noise_rate: float, *, warmup: int, ramp: int) -> float:
    r"""Share of a step's images that are taught in an epoch.

    .. math:: R(t) = 1 - \min\left(\frac{t}{T_k} \tau, \tau\right), \qquad t = \max(0, e - W + 1)

    so that the last of the warm-up epochs is t = 0.

    Args:
        epoch: e, 0-based.
        noise_rate: tau.
        warmup: W, epochs in which all images are taught, 1 or more.
        ramp: T_k, epochs until only the share 1 - tau is left, 1 or more.

    Returns:
        R, within 1 - tau and 1.

    Example:
        >>> [round(schedule_kept_share(epoch, 0.4, warmup=1, ramp=2), 3) for epoch in range(4)]
        [1.0, 0.8, 0.6, 0.6]
    """
    time = max(0, epoch - warmup + 1)
    return 1 - min(time / ramp, 1) * noise_rate


def pick_small_losses(losses: Tensor, share: float) -> Tensor:
    """Where the smallest losses of a step stand.

    Args:
        losses: [B], detached here.
        share: of the B that is picked, rounded to whole images; one at least.

    Returns:
        int64 positions, by rising loss; where losses are equal the first ones.
    """
    count = max(1, round(share * len(losses)))
    return losses.detach().argsort(stable=True)[:count]


class CoTeachingStage(RivalStage):
    r"""Two networks; in each step either learns what the other finds easy.

    .. math:: \ell = \frac{1}{|S_2|} \sum_{b \in S_2} \operatorname{CE}(x^1_b, \tilde y_b)
              + \frac{1}{|S_1|} \sum_{b \in S_1} \operatorname{CE}(x^2_b, \tilde y_b)

    where S_j are the R(t) B images with the smallest losses of network j (:func:`schedule_kept_share`). The
    first network is evaluated; it alone has a weight average, where one is asked for.

    Source: Han et al. (2018), arXiv 1804.06872. Departures: the source is told the noise rate tau. Here no
    method is, so tau is estimated, once, at the end of the warm-up epochs: the share of the upper part of a
    mixture (:func:`lauter.noisy.mixture.split_by_mixture`) of the losses that each image had when it was last
    trained on, averaged over the two networks. On clean labels such an estimate is above 0: a part of what
    is hard is left out. Warm-up and ramp are shares of the epochs, optimiser and schedule those of every
    method.

    Attributes:
        noise_rate: tau; 0 until it is estimated.
        seen: float32 [N] loss of each image when it was last trained on, mean of both networks.
        warmup_epochs: W.
        ramp_epochs: T_k.
        kept_share: R in the present epoch.

    Args:
        config: warm-up, ramp, cap.
        ground: what every method gets.
    """

    def __init__(self, config: CoTeachingConfig, ground: Ground) -> None:
        second = ground.build("second")
        # Each image goes through both networks, forward and backward; what is left out has gradients of 0.
        super().__init__(ground, modules={"second": second}, passes=2 * 3)
        self.second = second
        self.train_with(second.parameters(), ground.training.optimizer)
        self.config = config
        self.warmup_epochs = max(1, round(config.warmup * self.epochs))
        self.ramp_epochs = max(1, round(config.ramp * self.epochs))
        self.noise_rate = 0.0
        self.kept_share = 1.0
        self.seen = torch.zeros(len(self.labels), device=self.device)

    def begin_epoch(self, epoch: int) -> None:
        """Set the share of images that are taught."""
        super().begin_epoch(epoch)
        self.kept_share = schedule_kept_share(
            epoch, self.noise_rate, warmup=self.warmup_epochs, ramp=self.ramp_epochs
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``first`` and ``second``, one value per image that the other network picks."""
        output, labels = self.see(batch)
        first = cross_entropy(output.logits, labels)
        (logits,) = batch.gather(self.second(batch.images).logits)
        second = cross_entropy(logits, labels)
        self.seen[batch.index] = (first.detach() + second.detach()) / 2
        return {
            "first": first[pick_small_losses(second, self.kept_share)],
            "second": second[pick_small_losses(first, self.kept_share)],
        }

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Estimate the noise rate at the end of the warm-up."""
        metrics = super().end_epoch(epoch)
        if epoch + 1 == self.warmup_epochs:
            self.noise_rate = self._estimate_noise_rate()
        return {**metrics, "noise_rate": self.noise_rate, "kept": self.kept_share}

    def _estimate_noise_rate(self) -> float:
        rows = self.ground.setup.labelled_train
        posterior = split_by_mixture(self.seen.double().cpu().numpy()[rows])
        return min(1 - float(posterior.mean()), self.config.largest_rate)

    def state(self) -> dict[str, Any]:
        """The losses seen, the estimate, tracker and average."""
        return {"seen": self.seen, "noise_rate": self.noise_rate, **super().state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        super().load_state(state)
        self.seen = state["seen"].to(self.device)
        self.noise_rate = state["noise_rate"]
