"""DistillStage: trains a student on what a teacher shows, by any method."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from lauter.data.batches import Batch, ImageBatches
from lauter.distillation.method import Method, Seen, check_needs
from lauter.distillation.mimic import MimicConfig
from lauter.distillation.teacher import Teacher
from lauter.errors import ConfigError
from lauter.losses.classification import count_log_prior, cross_entropy, mean_over
from lauter.losses.geometry import angle, norm_ratio
from lauter.models import EmbeddedHead, Network, Output, count_flops
from lauter.models.network import lift_half
from lauter.training.tracking import TrackedStage, Tracker

_ANGLE, _RATIO = "followed angle", "followed norm_ratio"


class DistillStage(TrackedStage):
    """A student learns from its teacher on every image, and classifies where a label is believed.

    Args:
        student: with its final head (see :func:`lauter.distillation.heads.fit_student_head`).
        teacher: shows what the method reads.
        method: the loss terms and what they keep or train.
        targets: [N] kept and corrected labels, -1 where there is none to learn.
        batches: the images that teach.
        config: lengths, optimiser, average, prior correction; the losses are the method's.
        tracker: follows the student.
        name: of the stage.
        embedding_only: train nothing but the embedding of the student's head, without classification; the
            backbone is frozen, its batch normalisation in eval mode.

    Raises:
        ModelError: the teacher does not show what the method reads.
        ConfigError: ``embedding_only`` and the head has no embedding.
    """

    shares: ClassVar[bool] = True

    def __init__(
        self,
        student: Network,
        teacher: Teacher,
        method: Method,
        targets: Tensor,
        batches: ImageBatches,
        config: MimicConfig,
        tracker: Tracker,
        name: str = "distill",
        *,
        embedding_only: bool = False,
    ) -> None:
        check_needs(method, teacher.shows, teacher.name)
        if embedding_only and not isinstance(student.head, EmbeddedHead):
            raise ConfigError(
                "the embedding cannot be trained alone, since the student's head has none; "
                "take head embedded or teacher, or embedding_epochs 0"
            )
        passes = 1 if embedding_only else 3  # a backward pass costs about two forward ones
        super().__init__(
            name,
            config.embedding_epochs if embedding_only else config.epochs,
            batches,
            student,
            tracker,
            0.0 if embedding_only else config.ema_decay,
            modules={"method": method},
            weights=method.weights,
            flops_per_image=passes * count_flops(student) + teacher.flops_per_image,
        )
        self.student, self.teacher, self.method = student, teacher, method
        self.embedding_only = embedding_only
        self.classifies = method.weights.get("classification", 0.0) > 0 and not embedding_only
        self.targets = targets.to(batches.device)
        self.log_prior = None
        if config.prior_correction:
            self.log_prior = count_log_prior(self.targets[batches.index], student.num_classes)
        self._angles: list[Tensor] = []
        self._ratios: list[Tensor] = []
        trained: nn.Module = student
        if embedding_only and isinstance(student.head, EmbeddedHead):
            trained = student.head.embedding
        parameters = [*trained.parameters(), *method.parameters()]
        self.train_with([entry for entry in parameters if entry.requires_grad], config.optimizer)

    def begin_epoch(self, epoch: int) -> None:
        """Teacher and frozen parts stay in eval mode, whatever else is set to training."""
        super().begin_epoch(epoch)
        if self.embedding_only:
            self.student.backbone.eval()
        self.teacher.begin_epoch()
        self.method.begin_epoch(epoch)
        self._angles.clear()
        self._ratios.clear()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The method's terms on every image; classification where a label is believed."""
        seen = self.method.prepare(self.teacher.see(batch))
        output = self._answer(batch)
        if self.method.by_image:
            terms = self._compare(output, seen, batch.own)
            terms = dict(zip(terms, batch.gather(*terms.values()), strict=True))
        else:
            output, seen = gather_shown(output, seen, batch)
            with batch.group.same_draws():
                terms = self._compare(output, seen, batch.index)
        for name, kept in ((_ANGLE, self._angles), (_RATIO, self._ratios)):
            if name in terms:
                kept.append(terms.pop(name).detach())
        if self.classifies:
            known = self.targets[batch.index] >= 0
            terms["classification"] = mean_over(terms["classification"], known.float())
        return terms

    def _compare(self, output: Output, seen: Seen, index: Tensor) -> dict[str, Tensor]:
        """The method's terms, and by image what is followed and what classification costs."""
        targets = self.targets[index]
        followed: dict[str, Tensor] = {}
        if seen.features is not None and seen.features.shape == output.features.shape:
            features = output.features.detach()
            followed = {_ANGLE: angle(features, seen.features), _RATIO: norm_ratio(features, seen.features)}
        terms: dict[str, Tensor] = {**self.method(output, seen, index, targets), **followed}
        if self.classifies:
            terms["classification"] = cross_entropy(output.logits, targets, log_prior=self.log_prior)
        return terms

    def _answer(self, batch: Batch) -> Output:
        """The student's logits, its features in the teacher's space, and the maps that the method reads."""
        with torch.set_grad_enabled(not self.embedding_only):
            features, maps = self.student.features(batch.images, "maps" in self.method.needs)
        head = self.student.head
        if isinstance(head, EmbeddedHead):
            embedded = head.embed(features)
            return Output(lift_half(head.classify(embedded)), lift_half(embedded), maps)
        return Output(lift_half(head(features)), features, maps)

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Follow the student; say how near its features are to the teacher's."""
        metrics = super().end_epoch(epoch)
        levels = torch.tensor([0.1, 0.5, 0.9])
        for name, parts in (("angle", self._angles), ("norm_ratio", self._ratios)):
            seen = torch.cat(parts).float().cpu().quantile(levels).tolist() if parts else []
            metrics |= {
                f"{name}_{level}": value for level, value in zip(("p10", "p50", "p90"), seen, strict=False)
            }
        return metrics


def gather_shown(output: Output, seen: Seen, batch: Batch) -> tuple[Output, Seen]:
    """What student and teacher show of the parts of all processes, put together."""
    if batch.group.size == 1:
        return output, seen
    single = [part for part in (seen.features, seen.logits, seen.bits) if part is not None]
    whole = iter(batch.gather(output.logits, output.features, *output.maps, *single, *seen.maps))
    gathered = Output(next(whole), next(whole), tuple(next(whole) for _ in output.maps))
    features, logits, bits = (
        None if part is None else next(whole) for part in (seen.features, seen.logits, seen.bits)
    )
    return gathered, Seen(features, logits, tuple(whole), bits)
