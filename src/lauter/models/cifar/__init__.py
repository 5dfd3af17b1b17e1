"""The CIFAR zoo: the small networks of the CRD benchmark, one family per file."""

from lauter.models.cifar.staged import StagedBackbone
from lauter.models.cifar.zoo import CIFAR_ZOO

__all__ = ["CIFAR_ZOO", "StagedBackbone"]
