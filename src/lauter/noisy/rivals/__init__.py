"""Rivals of the noisy recipe, one file each: other ways to learn from labels of which some are wrong."""

from collections.abc import Callable
from typing import Any

from lauter.errors import ConfigError
from lauter.noisy.rivals.ce import CrossEntropyConfig, CrossEntropyStage, LabelSmoothingConfig, PriorConfig
from lauter.noisy.rivals.confident import ConfidentConfig, learn_confidently
from lauter.noisy.rivals.coteaching import CoTeachingConfig, CoTeachingStage
from lauter.noisy.rivals.dividemix import DivideMixConfig, DivideMixStage
from lauter.noisy.rivals.elr import ELRConfig, ELRStage
from lauter.noisy.rivals.gce import GCEConfig, GCEStage
from lauter.noisy.rivals.mixup import MixupConfig, MixupStage
from lauter.noisy.rivals.pencil import PencilConfig, PencilStage
from lauter.noisy.rivals.rival import Ground, RivalStage
from lauter.noisy.rivals.rrl import RRLConfig, RRLStage
from lauter.noisy.rivals.sce import SCEConfig, SCEStage
from lauter.training.tracking import TrackedStage

METHODS: dict[str, tuple[type[Any], Callable[[Any, Ground], RivalStage]]] = {
    "ce": (CrossEntropyConfig, CrossEntropyStage),
    "ce-prior": (PriorConfig, CrossEntropyStage),
    "ls": (LabelSmoothingConfig, CrossEntropyStage),
    "gce": (GCEConfig, GCEStage),
    "sce": (SCEConfig, SCEStage),
    "mixup": (MixupConfig, MixupStage),
    "elr": (ELRConfig, ELRStage),
    "pencil": (PencilConfig, PencilStage),
    "coteaching": (CoTeachingConfig, CoTeachingStage),
    "dividemix": (DivideMixConfig, DivideMixStage),
    "rrl": (RRLConfig, RRLStage),
    "confident": (ConfidentConfig, learn_confidently),
}
"""Config and method by name. A method makes its last stage, ready to run, and runs earlier ones itself."""


def train_rival(name: str, ground: Ground, config: Any = None) -> TrackedStage:
    """Train by one of ``METHODS``.

    Args:
        name: one of ``METHODS``.
        ground: images, given labels, network, length.
        config: its settings, of the class in ``METHODS``; the defaults where None.

    Returns:
        The finished stage; its ``evaluated`` network is the result.

    Raises:
        ConfigError: there is no such method.
    """
    if name not in METHODS:
        raise ConfigError(f"method must be one of {', '.join(METHODS)}, not {name!r}")
    config_class, make = METHODS[name]
    stage = make(config_class() if config is None else config, ground)
    ground.setup.loop.run_stage(stage)
    return stage
