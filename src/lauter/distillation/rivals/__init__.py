"""Rivals of feature mimicking, one file each, and plain training: what a student can be compared with."""

from collections.abc import Callable
from typing import Any, cast

from lauter.distillation.method import Lesson, Method
from lauter.distillation.rivals.attention import AttentionTransfer, AttentionTransferConfig
from lauter.distillation.rivals.crd import CRD, CRDConfig
from lauter.distillation.rivals.dist import DIST, DISTConfig
from lauter.distillation.rivals.dkd import DKD, DKDConfig
from lauter.distillation.rivals.fitnet import FitNet, FitNetConfig
from lauter.distillation.rivals.kd import KD, KDConfig
from lauter.distillation.rivals.nd import ND, NDConfig
from lauter.distillation.rivals.none import NoTeacher, NoTeacherConfig
from lauter.distillation.rivals.pkt import PKT, PKTConfig
from lauter.distillation.rivals.rkd import RKD, RKDConfig
from lauter.distillation.rivals.simkd import SimKD, SimKDConfig
from lauter.distillation.rivals.sp import SP, SPConfig
from lauter.distillation.rivals.srd import SRD, SRDConfig
from lauter.distillation.rivals.timm_l2 import L2, L2Config
from lauter.errors import ConfigError

METHODS: dict[str, tuple[type[Any], type[Method]]] = {
    "none": (NoTeacherConfig, NoTeacher),
    "kd": (KDConfig, KD),
    "dkd": (DKDConfig, DKD),
    "dist": (DISTConfig, DIST),
    "fitnet": (FitNetConfig, FitNet),
    "attention": (AttentionTransferConfig, AttentionTransfer),
    "sp": (SPConfig, SP),
    "pkt": (PKTConfig, PKT),
    "rkd": (RKDConfig, RKD),
    "crd": (CRDConfig, CRD),
    "srd": (SRDConfig, SRD),
    "simkd": (SimKDConfig, SimKD),
    "nd": (NDConfig, ND),
    "timm_l2": (L2Config, L2),
}
"""Config and method by name; every config has defaults, which are its source's."""


def build_rival(name: str, lesson: Lesson, config: Any = None) -> Method:
    """Build a method by its name.

    Args:
        name: one of ``METHODS``.
        lesson: what it may know of teacher and student.
        config: its settings, of the class in ``METHODS``; the defaults where None.

    Raises:
        ConfigError: there is no such method.
        ModelError: teacher or student lack what it needs.
    """
    if name not in METHODS:
        raise ConfigError(f"method must be one of {', '.join(METHODS)}, not {name!r}")
    config_class, method_class = METHODS[name]
    # Every method in the table is built from its config and a lesson; the base class is not.
    build = cast(Callable[[Any, Lesson], Method], method_class)
    return build(config_class() if config is None else config, lesson)
