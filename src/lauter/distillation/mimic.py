"""Mimicking: which loss compares the features, with which hashes.

Formulas and recipes follow Wang, Ge and Wu (2021), arXiv 2011.01424 (LSHFM), where not marked as ours.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lauter.data.counters import derive_seed
from lauter.distillation.method import Lesson, Method, Part, Seen, require_shown
from lauter.distillation.source import SourceConfig
from lauter.errors import ConfigError
from lauter.losses import mimic
from lauter.losses.directions import cosine, norm_gap
from lauter.losses.hashing import draw_hash_weights, hash_bias, std_from_classifier, std_from_features
from lauter.losses.inputs import lift
from lauter.losses.projections import projection_l1, projection_l2
from lauter.models import Output
from lauter.training.schedule import OptimizerConfig

MimicLoss = Literal[
    "l2", "lsh", "lshl2", "lsh_expected", "projection_l1", "projection_l2", "direction", "norm"
]
LOSSES: tuple[MimicLoss, ...] = get_args(MimicLoss)
HASHED = frozenset({"lsh", "lshl2", "projection_l1", "projection_l2"})
"""Losses that draw hash weights."""
SMALL_SIDE = 64
"""Up to this side in pixels, images count as CIFAR's in the paper's rules; above it as ImageNet's."""


@dataclass(frozen=True)
class MimicConfig:
    """Distillation by mimicking features: gamma * classification + beta * mimic.

    Attributes:
        loss: l2, lsh, lshl2 or lsh_expected (the closed form of lsh with infinitely many hashes; ours). For
            analysis: projection_l1 and projection_l2 regress the projections that lsh hashes; direction and
            norm compare one part of the features each.
        epochs: passes over the images.
        embedding_epochs: passes before them that train the head's embedding alone, by mimicking; the backbone
            is frozen meanwhile. For students that start from pretrained weights.
        batch_size: images in a step.
        beta: weight of the mimic term; 0 takes the paper's: 6 for images of up to 64 pixels, 5 above.
        gamma: weight of the classification term, on kept and corrected labels; 0 trains without a label.
        prior_correction: whether the class frequencies are taken out of the classification term (logit
            adjustment), so that rare classes count as much as frequent ones.
        hashes: N; 0 takes 32 for each teacher feature up to 64 pixels, and 2048 in all above (the paper's).
        bias: zero, mean or median: what the hashes are centred on.
        std: of the hash weights; 0 takes that of the teacher's classifier, or sets it from the features.
        correct_only: whether only images whose teacher agrees with their label mimic (the default of the
            paper's public code). This trusts the labels; leave it off where they are doubtful.
        head: own, embedded (a linear embedding, always there where the sizes differ) or teacher (its
            classifier, frozen; with gamma 0 no label is learnt from).
        dropped_images: whether images whose label was dropped, and unlabelled ones, still teach by mimicking
            (ours; False mimics on kept and corrected images only).
        optimizer: how the weights move.
        source: where the teacher's features come from: the teacher as it runs, or a bank on disk.
        ema_decay: of the weight average that becomes the student; 0 takes the weights themselves.
    """

    loss: MimicLoss = "lshl2"
    epochs: int = 40
    embedding_epochs: int = 0
    batch_size: int = 128
    beta: float = 0.0
    gamma: float = 1.0
    prior_correction: bool = True
    hashes: int = 0
    bias: Literal["zero", "mean", "median"] = "mean"
    std: float = 0.0
    correct_only: bool = False
    head: Literal["own", "embedded", "teacher"] = "own"
    dropped_images: bool = True
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=0.1, warmup=0.03))
    source: SourceConfig = field(default_factory=SourceConfig)
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ConfigError(f"mimic loss must be one of {', '.join(LOSSES)}, not {self.loss!r}")
        if self.bias not in ("zero", "mean", "median"):
            raise ConfigError(f"mimic bias must be zero, mean or median, not {self.bias!r}")
        if self.head not in ("own", "embedded", "teacher"):
            raise ConfigError(f"student head must be own, embedded or teacher, not {self.head!r}")
        if self.loss == "lsh_expected" and self.bias == "median":
            raise ConfigError("lsh_expected is closed for bias zero and mean only; choose one, or loss lsh")
        if self.epochs < 1 or self.batch_size < 1 or self.hashes < 0 or self.embedding_epochs < 0:
            raise ConfigError(
                f"mimic needs epochs and batch_size of 1 or more, hashes and embedding_epochs of 0 or more, "
                f"not {self.epochs}, {self.batch_size}, {self.hashes}, {self.embedding_epochs}"
            )
        if self.beta < 0 or self.gamma < 0 or self.std < 0:
            raise ConfigError(
                f"mimic beta, gamma and std must be 0 or more, not {self.beta}, {self.gamma}, {self.std}"
            )
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay must be in [0, 1), not {self.ema_decay}")


class Mimic(Method):
    """The mimic loss with what it keeps fixed: hash weights and bias, or std and centre.

    Weights, bias and centre are saved with the run; std and unit follow from the same teacher again.

    The features of a teacher without a classifier have no natural unit: they are scaled by a power of two to
    a mean variance near 1 (ours), so that beta and the learning rate mean the same for every such teacher.
    The scaling loses no bit, so hashes of scaled and of plain features are equal.

    Args:
        config: which loss.
        lesson: teacher's features for bias, std and unit; its classifier where it has one.
    """

    weight: Tensor
    bias: Tensor
    center: Tensor

    def __init__(self, config: MimicConfig, lesson: Lesson) -> None:
        beta = config.beta or choose_beta(lesson.image_size)
        super().__init__({"mimic": beta, "classification": config.gamma})
        self.loss, self.bias_kind = config.loss, config.bias
        self.correct_only = config.correct_only
        self.by_image = not config.correct_only  # which takes a mean over the batch
        self.needs = read_parts(config, banked="bits" in lesson.teacher_shows)
        self.std, self.scale = 0.0, 1.0
        self._half_weight: Tensor | None = None
        features = lesson.teacher_features if lesson.hash_features is None else lesson.hash_features
        if lesson.teacher_head is None:
            self.scale = choose_scale(features)
        features = self.scale * features
        if config.loss not in HASHED and config.loss != "lsh_expected":
            return
        center = features.mean(0) if config.bias == "mean" else torch.zeros(lesson.teacher_size)
        self.std = config.std or choose_std(lesson.teacher_head, features, center)
        self.register_buffer("center", center)
        if config.loss == "lsh_expected":
            return
        hashes = config.hashes or choose_hashes(lesson.teacher_size, lesson.image_size)
        seed = lesson.seed if config.source.seed is None else config.source.seed
        if "bits" in lesson.teacher_shows:
            seed = config.source.bank_seed  # the same for students of any seed
        generator = torch.Generator().manual_seed(derive_seed(seed, "hashes"))
        weight = draw_hash_weights(hashes, lesson.teacher_size, self.std, generator)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", hash_bias(config.bias, weight, features))

    @property
    def hashes(self) -> tuple[Tensor, Tensor] | None:
        """Weights [N, D] and bias [N] that hash the teacher's features as it shows them; None without any."""
        kept = dict(self.named_buffers())
        return (self.scale * kept["weight"], kept["bias"]) if "weight" in kept else None

    def prepare(self, seen: Seen) -> Seen:
        """The teacher's features in the unit in which they are mimicked."""
        if seen.features is None or self.scale == 1.0:
            return seen
        return seen._replace(features=self.scale * seen.features)

    def forward(self, student: Output, teacher: Seen, index: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The term ``mimic``: [B], or a scalar where only images that the teacher gets right mimic."""
        values = self._compare(student.features, teacher)
        if self.correct_only:
            logits = require_shown(teacher.logits, "logits", "correct_only")
            values = mimic.mean_over_correct(values, logits, targets)
        return {"mimic": values}

    def _compare(self, student: Tensor, teacher: Seen) -> Tensor:
        if self.loss in ("lsh", "lshl2"):
            return self._hash(student, teacher)
        wanted = require_shown(teacher.features, "features", self.loss)
        if self.loss == "l2":
            return mimic.l2(student, wanted)
        if self.loss == "lsh_expected":
            return mimic.lsh_expected(student, wanted, std=self.std, center=self.center)
        if self.loss == "direction":
            return cosine(student, wanted)
        if self.loss == "norm":
            return norm_gap(student, wanted)
        function = projection_l1 if self.loss == "projection_l1" else projection_l2
        return function(student, wanted, self.weight, self.bias)

    def _hash(self, student: Tensor, teacher: Seen) -> Tensor:
        """Against the teacher's bits where it shows them, else against the bits of its features."""
        bits = teacher.bits
        if bits is None:
            wanted = require_shown(teacher.features, "features", self.loss)
            bits = mimic.hash_bits(wanted, self.weight, self.bias)
        (student,) = lift(student)  # once for both, so that the gradients of half precision add up in float32
        hashed = mimic.lsh_from_bits(student, bits, self.weight, self.bias, half_weight=self._halve_weight())
        if self.loss == "lsh":
            return hashed
        return hashed + mimic.l2(student, require_shown(teacher.features, "features", "lshl2"))

    def _halve_weight(self) -> Tensor | None:
        """The weights in the precision that the network runs in, where that is bfloat16; made once."""
        kind = self.weight.device.type
        if not torch.is_autocast_enabled(kind) or torch.get_autocast_dtype(kind) != torch.bfloat16:
            return None
        if self._half_weight is None or self._half_weight.device != self.weight.device:
            self._half_weight = self.weight.bfloat16()
        return self._half_weight


def read_parts(config: MimicConfig, *, banked: bool) -> frozenset[Part]:
    """What mimicking reads of its teacher: a live one's features, a bank's bits where hashes are compared."""
    hashed = banked and config.loss in ("lsh", "lshl2")
    parts: set[Part] = {"bits"} if hashed else {"features"}
    if config.loss == "lshl2":
        parts.add("features")
    if config.correct_only:
        parts.add("logits")
    return frozenset(parts)


def choose_beta(image_size: int) -> float:
    """Weight of the mimic term: the paper's 6 for images of CIFAR's size, 5 above."""
    return 6.0 if image_size <= SMALL_SIDE else 5.0


def choose_hashes(teacher_size: int, image_size: int) -> int:
    """Number of hashes N: the paper's 32 D for images of CIFAR's size, 2048 above."""
    return 32 * teacher_size if image_size <= SMALL_SIDE else 2048


def choose_std(teacher_head: nn.Module | None, features: Tensor, center: Tensor) -> float:
    """Standard deviation of the hash weights: the teacher's classifier's, or from the features (ours)."""
    if isinstance(teacher_head, nn.Linear):
        return std_from_classifier(teacher_head.weight)
    return std_from_features(features, center=center)


def choose_scale(features: Tensor) -> float:
    """The power of two that brings the mean variance of features [M, D] nearest to 1; 1 where they have none.

    Example:
        >>> choose_scale(torch.tensor([[0.0], [0.02]]))
        128.0

    Source: ours.
    """
    variance = float(features.double().var(0, correction=0).mean())
    return 2.0 ** -round(0.5 * math.log2(variance)) if variance > 0 else 1.0
