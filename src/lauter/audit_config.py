"""The settings of an audit; presets only fill them in."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from lauter.auditing.evidence import EvidenceConfig
from lauter.auditing.feature_choice import FeatureConfig
from lauter.auditing.judging import JudgingConfig
from lauter.config import load_preset
from lauter.errors import ConfigError
from lauter.noisy.pretrain import PretrainConfig
from lauter.noisy.robust import RobustConfig
from lauter.noisy.warmup import WarmupConfig
from lauter.training.runtime import RuntimeConfig

SET_ABOVE = (
    "judging.precision",
    "judging.budget",
    "extraction.learning.seed",
    "extraction.learning.image_size",
    "extraction.learning.augment",
)
"""Settings of groups that an audit's own settings of the same name decide."""


@dataclass(frozen=True)
class TrainingPathConfig:
    """The longer path: the noisy recipe, two networks that judge the labels which the other one learnt.

    Attributes:
        network: its name; chosen by picture size where empty.
        pretrain: self-supervised pretraining, shared by both.
        warmup: the head alone.
        robust: the whole network on kept and corrected labels.
    """

    network: str = ""
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    robust: RobustConfig = field(default_factory=RobustConfig)


@dataclass(frozen=True)
class AuditConfig:
    """How labels are audited.

    Attributes:
        path: features (frozen ones: minutes) or training (the noisy recipe, cross-fitted in two folds:
            longer).
        features: which features: simclr (learnt from these images, labels unused), a backbone with
            pretrained weights such as timm:NAME or torchvision:NAME, or a file of a network or of features.
        precision: the error budget: expected share of right decisions among the labels that are relabelled,
            and among those that are dropped. What is less sure is asked about.
        budget: images that a person is willing to look at.
        images: whether pictures are searched for faults, near-duplicates and leaks between splits.
        pictures: of doubtful images in the report, at most.
        augment: none, digits (no flips) or objects: the views that networks trained here learn from.
        image_size: side of the pictures in pixels at which networks are trained here; 0: automatic.
        seed: of everything drawn.
        extraction: how features are computed and kept.
        evidence: how features become beliefs.
        judging: further settings of the judging.
        training: the settings of the path training.
        runtime: device, precision, threads.
    """

    path: Literal["features", "training"] = "features"
    features: str = "simclr"
    precision: float = 0.95
    budget: int = 200
    images: bool = True
    pictures: int = 2000
    augment: Literal["none", "digits", "objects"] = "objects"
    image_size: int = 0
    seed: int = 0
    extraction: FeatureConfig = field(default_factory=FeatureConfig)
    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)
    judging: JudgingConfig = field(default_factory=JudgingConfig)
    training: TrainingPathConfig = field(default_factory=TrainingPathConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        if self.path not in ("features", "training"):
            raise ConfigError(f"path must be features or training, not {self.path!r}")
        if self.augment not in ("none", "digits", "objects"):
            raise ConfigError(f"augment must be none, digits or objects, not {self.augment!r}")
        if self.pictures < 0:
            raise ConfigError(f"pictures must be 0 or more, not {self.pictures}")
        if self.image_size and not 8 <= self.image_size <= 1024:
            raise ConfigError(f"image_size must be 8 to 1024 pixels (0: automatic), not {self.image_size}")
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, not {self.seed}")
        if self.path == "features" and self.augment == "none" and self.features == "simclr":
            raise ConfigError(
                "features are learnt by telling views of an image from those of others, so augment none "
                "teaches nothing; take digits or objects, or name a backbone or a file with --features"
            )
        for place in SET_ABOVE:
            self._refuse_in_group(place)
        self.resolved_judging()  # precision and budget are in their ranges

    def resolved_judging(self) -> JudgingConfig:
        """The settings of the judging, with the audit's precision and budget."""
        return dataclasses.replace(self.judging, precision=self.precision, budget=self.budget)

    def resolved_extraction(self) -> FeatureConfig:
        """The settings of the features, with the audit's seed, picture size and views."""
        learning = dataclasses.replace(
            self.extraction.learning,
            seed=self.seed,
            image_size=self.image_size,
            augment="digits" if self.augment == "digits" else "objects",
        )
        return dataclasses.replace(self.extraction, learning=learning)

    def _refuse_in_group(self, place: str) -> None:
        """Refuse a setting that was changed where it decides nothing."""
        *groups, name = place.split(".")
        part: Any = self
        for group in groups:
            part = getattr(part, group)
        if (value := getattr(part, name)) != getattr(type(part)(), name):
            raise ConfigError(f"{place} is decided by {name} of the audit: set {name} to {value!r} instead")


def load_audit_preset(name: str) -> AuditConfig:
    """The settings of a preset: how long networks are trained where the audit trains any.

    Args:
        name: quick, standard or thorough, with the lengths of :func:`lauter.load_preset`.

    Raises:
        ConfigError: there is no such preset.
    """
    fit, config = load_preset(name), AuditConfig()
    learning = config.extraction.learning
    pretrain = dataclasses.replace(learning.pretrain, epochs=fit.pretrain.epochs)
    learning = dataclasses.replace(learning, pretrain=pretrain)
    training = TrainingPathConfig(pretrain=fit.pretrain, warmup=fit.warmup, robust=fit.robust)
    extraction = dataclasses.replace(config.extraction, learning=learning)
    return dataclasses.replace(config, extraction=extraction, training=training)
