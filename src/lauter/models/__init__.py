"""Networks: backbone and head, the catalogue of names, weights on disk, folding, cost."""

from lauter.models.artefact import load_network, read_metadata, save_network
from lauter.models.catalog import create_network, default_networks, warn_if_small_network
from lauter.models.cifar import CIFAR_ZOO
from lauter.models.cost import count_flops, count_parameters
from lauter.models.folding import EmbeddedHead, copy_teacher_head, fold_head
from lauter.models.network import Backbone, InputSpec, Network, NoHead, Output
from lauter.models.wrapping import wrap_module

__all__ = [
    "CIFAR_ZOO",
    "Backbone",
    "EmbeddedHead",
    "InputSpec",
    "Network",
    "NoHead",
    "Output",
    "copy_teacher_head",
    "count_flops",
    "count_parameters",
    "create_network",
    "default_networks",
    "fold_head",
    "load_network",
    "read_metadata",
    "save_network",
    "warn_if_small_network",
    "wrap_module",
]
