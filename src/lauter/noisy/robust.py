"""Robust training: the whole network, on labels that are judged anew after every epoch."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from lauter.data.batches import Batch, ImageBatches
from lauter.errors import ConfigError
from lauter.losses.classification import cross_entropy, mean_over
from lauter.losses.robust import penalise_prior
from lauter.models import Network, count_flops
from lauter.noisy.foes import FoesConfig, learn_mixed, show_and_guess
from lauter.noisy.judge import Judge, JudgeConfig
from lauter.training.schedule import OptimizerConfig
from lauter.training.tracking import TrackedStage, Tracker


@dataclass(frozen=True)
class RobustConfig:
    """Training on kept and corrected labels.

    Attributes:
        epochs: passes over the images.
        batch_size: images in a step.
        optimizer: how the weights move.
        ema_decay: of the weight average that becomes the teacher; 0 takes the weights themselves.
        prior_correction: whether the class frequencies are taken out of what is learnt.
        judge: how labels are judged.
        foes: parts of other methods, off by default, to be measured.
    """

    epochs: int = 40
    batch_size: int = 128
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=0.1, warmup=0.03))
    ema_decay: float = 0.995
    prior_correction: bool = True
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    foes: FoesConfig = field(default_factory=FoesConfig)

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ConfigError(
                f"robust training needs epochs and batch_size of 1 or more, "
                f"not {self.epochs} and {self.batch_size}"
            )
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay must be in [0, 1), not {self.ema_decay}")


class RobustStage(TrackedStage):
    """Cross-entropy on kept and corrected labels, prior-corrected.

    The training pass itself shows the judge what the network believes: no extra pass over the training images
    is made for beliefs. Hold-out images are never trained on; what is believed of them comes from the pass
    that scores them.

    Attributes:
        judge: the network's judge.

    Args:
        network: pretrained, with a warmed-up head.
        judge: knows the data; follows the network.
        batches: the training images, as many views of each as ``config.foes.views``.
        config: everything else.
        tracker: follows the weight average.
        second: another such network with its judge, where ``config.foes.two_networks``: each of the two is
            taught what the other's judge decides. The first is the one that is evaluated and kept.
        name: of the stage.
    """

    shares: ClassVar[bool] = True

    def __init__(
        self,
        network: Network,
        judge: Judge,
        batches: ImageBatches,
        config: RobustConfig,
        tracker: Tracker,
        second: tuple[Network, Judge] | None = None,
        *,
        name: str = "robust",
    ) -> None:
        pairs = [(network, judge), *([] if second is None else [second])]
        super().__init__(
            name,
            config.epochs,
            batches,
            network,
            tracker,
            config.ema_decay,
            modules={} if second is None else {"second": second[0]},
            weights={"guess": config.foes.guess_weight, "prior": config.foes.prior_penalty},
            flops_per_image=len(pairs) * config.foes.passes * count_flops(network),
        )
        self.config = config
        self.judge = judge
        self._pairs = pairs
        self._epoch = 0
        for learner, _ in pairs:
            self.train_with(learner.parameters(), config.optimizer)

    def begin_epoch(self, epoch: int) -> None:
        """Note the epoch; modules go to training mode."""
        super().begin_epoch(epoch)
        self._epoch = epoch

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on what is taught; the judges see what the networks show."""
        judges = [judge for _, judge in self._pairs]
        terms: dict[str, Tensor] = {}
        for number, (network, judge) in enumerate(self._pairs):
            # With two networks the last judge is the other's, and the other way round.
            learnt = self._learn(network, judge, judges[-1 - number], batch)
            for name, value in learnt.items():
                terms[name] = terms[name] + value if name in terms else value
        return terms

    def _learn(self, network: Network, judge: Judge, heeded: Judge, batch: Batch) -> dict[str, Tensor]:
        foes = self.config.foes
        targets, weights = heeded.targets[batch.index], heeded.weights[batch.index]
        if foes.mixup:
            guesses = show_and_guess(network, batch, judge, heeded.log_prior, foes)
            progress = self._epoch / self.config.epochs
            return learn_mixed(network, batch, targets, weights, guesses, heeded.log_prior, foes, progress)
        output = network(batch.images)
        logits, features = batch.gather(output.logits, output.features.detach())
        judge.remember(batch.index, logits, features, heeded.log_prior)
        values = cross_entropy(logits, targets, log_prior=heeded.log_prior)
        terms = {"classification": mean_over(values, weights)}
        if foes.prior_penalty:
            terms["prior"] = penalise_prior(logits + heeded.log_prior)
        return terms

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Follow the network, then let every judge renew its beliefs.

        Of several processes the first one judges; the others take its state over.
        """
        seen = self.tracker.follow(self.evaluated)
        group = self.tracker.watch.runtime.group
        # Each was trained with the prior of the judge it heeds, which must be read before that one moves on.
        priors = [judge.log_prior for _, judge in reversed(self._pairs)]
        judged = self.judge.close_epoch(epoch, seen, priors[0]) if group.leads else {}
        for (network, judge), prior in zip(self._pairs[1:], priors[1:], strict=True):
            seen = self.tracker.watch.see_holdout(network)
            if group.leads:
                judge.close_epoch(epoch, seen, prior)
        return {self.tracker.measure: self.tracker.scores[-1], **judged}

    def state(self) -> dict[str, Any]:
        """What the judges know."""
        return {"judges": [judge.state() for _, judge in self._pairs], **super().state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        super().load_state(state)
        for (_, judge), known in zip(self._pairs, state["judges"], strict=True):
            judge.load_state(known)
