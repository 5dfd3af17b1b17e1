"""The zoo's names and what builds them."""

from collections.abc import Callable
from functools import partial

from lauter.models.cifar.mobilenet_v2 import mobilenet_v2
from lauter.models.cifar.resnet import resnet
from lauter.models.cifar.resnet50 import resnet50
from lauter.models.cifar.shufflenet_v1 import shufflenet_v1
from lauter.models.cifar.shufflenet_v2 import shufflenet_v2
from lauter.models.cifar.staged import StagedBackbone
from lauter.models.cifar.vgg import vgg
from lauter.models.cifar.wide_resnet import wide_resnet

CIFAR_ZOO: dict[str, Callable[[], StagedBackbone]] = {
    "resnet8": partial(resnet, 8),
    "resnet14": partial(resnet, 14),
    "resnet20": partial(resnet, 20),
    "resnet32": partial(resnet, 32),
    "resnet44": partial(resnet, 44),
    "resnet56": partial(resnet, 56),
    "resnet110": partial(resnet, 110),
    "resnet8x4": partial(resnet, 8, (32, 64, 128, 256)),
    "resnet32x4": partial(resnet, 32, (32, 64, 128, 256)),
    "ResNet50": resnet50,
    "wrn_16_1": partial(wide_resnet, 16, 1),
    "wrn_16_2": partial(wide_resnet, 16, 2),
    "wrn_40_1": partial(wide_resnet, 40, 1),
    "wrn_40_2": partial(wide_resnet, 40, 2),
    "vgg8": partial(vgg, 8),
    "vgg11": partial(vgg, 11),
    "vgg13": partial(vgg, 13),
    "vgg16": partial(vgg, 16),
    "vgg19": partial(vgg, 19),
    "MobileNetV2": mobilenet_v2,
    "ShuffleV1": shufflenet_v1,
    "ShuffleV2": shufflenet_v2,
}
"""Backbone builders by the CRD benchmark's names. Each call draws fresh weights from torch's generator."""
