"""PENCIL: labels are distributions that are learnt by gradient beside the network."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from lauter.data.batches import Batch
from lauter.errors import ConfigError
from lauter.losses.classification import cross_entropy
from lauter.losses.robust import entropy, label_compatibility, label_divergence
from lauter.noisy.rivals.rival import Ground, RivalStage

Phase = Literal["backbone", "joint", "fine-tuning"]

_SOURCE_BATCH = 128
_SOURCE_JOINT_EPOCHS = 130


@dataclass(frozen=True)
class PencilConfig:
    """PENCIL.

    The source sets alpha, beta and label_rate by the kind and the rate of the noise, which no method is told
    here; the values are those that it takes for symmetric noise of a middle rate on CIFAR-10.

    Attributes:
        backbone: share of the epochs that learn the given labels by cross-entropy (the source's 70 of 320).
        joint: share of the epochs that learn network and labels together (the source's 130 of 320); the rest
            learns the labels found.
        alpha: weight of staying with the given label (0.1).
        beta: weight of the entropy of the predictions (0.8).
        label_rate: lambda, how fast labels move: their rate for the mean loss of 128 images over 130 joint
            epochs (400).
        sharpness: logit of the given label before labels move, beside 0 for all others (10).
        squashed: whether the softmax of the labels is taken twice where they are held to the given ones, as
            in the authors' code. The paper's formula takes it once; with alpha of 1 / K or more it can then
            correct no label.
    """

    backbone: float = 70 / 320
    joint: float = 130 / 320
    alpha: float = 0.1
    beta: float = 0.8
    label_rate: float = 400.0
    sharpness: float = 10.0
    squashed: bool = True

    def __post_init__(self) -> None:
        if not (self.backbone >= 0 and self.joint > 0 and self.backbone + self.joint < 1):
            raise ConfigError(
                "pencil: backbone (0 or more) and joint (above 0) are shares of the epochs of sum below 1, "
                f"not {self.backbone} and {self.joint}"
            )
        for name in ("alpha", "beta", "label_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"pencil: {name} must be finite and 0 or more, not {getattr(self, name)}")
        if not 0 < self.sharpness < math.inf:
            raise ConfigError(f"pencil: sharpness must be finite and above 0, not {self.sharpness}")

    def split(self, epochs: int) -> tuple[int, int]:
        """The first joint epoch and the first one of fine-tuning, 0-based.

        Raises:
            ConfigError: the joint phase is shorter than an epoch.
        """
        first = round(self.backbone * epochs)
        last = round((self.backbone + self.joint) * epochs)
        if first == last:
            raise ConfigError(
                f"pencil: a joint share of {self.joint} leaves no epoch of {epochs} to learn labels in; "
                "raise it or train longer"
            )
        return first, last


class PencilStage(RivalStage):
    r"""Three phases: cross-entropy on the given labels; network and labels together; the labels found.

    In the joint phase the loss of an image is

    .. math:: \tfrac{1}{K} \operatorname{KL}(p \,\|\, d) + \alpha \, \ell_\text{compatibility}(d, \tilde y)
              + \tfrac{\beta}{K} H(p), \qquad d = \operatorname{softmax}(y)

    and its label logits y take a step of plain gradient descent whenever it is seen; in fine-tuning the first
    term alone is left and labels stand still. The step does not depend on the batch size.

    Source: Yi and Wu (2019), arXiv 1903.07788. Departures: length, batches and optimiser are those of every
    method. The learning rate is constant up to a third of fine-tuning, then falls to a tenth twice, as in the
    source; but its height is the common one, and is the same in all phases. The label rate grows as the joint
    phase gets shorter than the source's 130 epochs, so that labels can move as far.

    Attributes:
        label_logits: float32 [N, K]; the labels found are their softmax.
        phase: backbone, joint or fine-tuning.

    Args:
        config: shares of the phases, weights, label rate.
        ground: what every method gets.

    Raises:
        ConfigError: the training is too short for a joint phase.
    """

    def __init__(self, config: PencilConfig, ground: Ground) -> None:
        self.first_joint, self.first_fine = config.split(ground.training.epochs)
        fine = config.backbone + config.joint
        milestones = ((2 * fine + 1) / 3, (fine + 2) / 3)
        optimizer = replace(ground.training.optimizer, schedule="step", milestones=milestones, gamma=0.1)
        per_class = 1 / ground.setup.data.num_classes
        super().__init__(
            replace(ground, training=replace(ground.training, optimizer=optimizer)),
            weights={
                "divergence": per_class,
                "compatibility": config.alpha,
                "entropy": config.beta * per_class,
            },
        )
        self.config = config
        self.phase: Phase = "backbone"
        self.label_logits = torch.zeros(len(self.labels), self.num_classes, device=self.device)
        labelled = (self.labels >= 0).nonzero()[:, 0]
        self.label_logits[labelled, self.labels[labelled]] = config.sharpness
        joint_epochs = self.first_fine - self.first_joint
        self.label_rate = config.label_rate / _SOURCE_BATCH * _SOURCE_JOINT_EPOCHS / joint_epochs
        self._taught: tuple[Tensor, Tensor] | None = None

    def begin_epoch(self, epoch: int) -> None:
        """Enter the epoch's phase."""
        super().begin_epoch(epoch)
        if epoch < self.first_joint:
            self.phase = "backbone"
        else:
            self.phase = "joint" if epoch < self.first_fine else "fine-tuning"

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The phase's terms [B]: ``classification``; ``divergence``, with two more in the joint phase."""
        output, labels = self.see(batch)
        if self.phase == "backbone":
            return {"classification": cross_entropy(output.logits, labels)}
        rows = self.label_logits[batch.index]
        if self.phase == "fine-tuning":
            return {"divergence": label_divergence(output.logits, rows)}
        # A leaf of the batch's rows alone: a parameter of all N would get a gradient of [N, K] at every step.
        self._taught = batch.index, rows.requires_grad_()
        return {
            "divergence": label_divergence(output.logits, rows),
            "compatibility": label_compatibility(rows, labels, squashed=self.config.squashed),
            "entropy": entropy(output.logits),
        }

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the batch's labels along their gradient, and the weight average."""
        super().after_step()
        if self._taught is None:
            return
        index, rows = self._taught
        self._taught = None
        if rows.grad is not None:
            # The gradient is that of a mean over the batch; a label moves by that of its own image.
            self.label_logits[index] = rows - self.label_rate * len(index) * rows.grad

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Follow the network; ``corrected`` is the share of training labels that became another class."""
        metrics = super().end_epoch(epoch)
        rows = torch.from_numpy(self.ground.setup.labelled_train).to(self.device)
        corrected = self.label_logits[rows].argmax(1) != self.labels[rows]
        return {**metrics, "corrected": float(corrected.float().mean())}

    def state(self) -> dict[str, Any]:
        """The label logits, beside what every rival keeps."""
        return {"label_logits": self.label_logits, **super().state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        super().load_state(state)
        self.label_logits = state["label_logits"].to(self.device)
