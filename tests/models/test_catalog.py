"""create_network: names, sizes and what is refused."""

import warnings

import pytest
import torch

from lauter.errors import ModelError
from lauter.models import CIFAR_ZOO, InputSpec, create_network, default_networks


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "MobileNetV2"])
def test_zoo_network_by_name(name: str) -> None:
    network = create_network(name, 7)
    assert network.name == name
    assert network.training
    assert network.input_spec == InputSpec(32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    assert network(torch.zeros(2, 3, 32, 32)).logits.shape == (2, 7)


def test_image_size_becomes_the_input_size() -> None:
    network = create_network("resnet8", 7, image_size=48)
    assert network.input_spec.size == 48
    assert network.normalise(torch.zeros(1, 3, 32, 32)).shape == (1, 3, 48, 48)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet21", "resnet20"),
        ("RESNET8", "resnet8"),
        ("mobilenet_v2", "MobileNetV2"),
        ("wrn-40-2", "wrn_40_2"),
        ("zzzzzz", "the zoo has resnet8"),
        ("timm:resnet19", "resnet18"),
        ("timm:zzzzzzzzzzzzzzz", "near it: nothing"),
        ("torchvision:resnet19", "resnet18"),
        ("torchvision:fasterrcnn_resnet50_fpn", "no classification model"),
        ("tim:resnet18", "timm:NAME"),
        ("timm:resnet18.nowhere", "resnet18.a1_in1k"),
    ],
)
def test_unknown_names_are_answered_with_near_ones(name: str, near: str) -> None:
    with pytest.raises(ModelError, match=near):
        create_network(name, 10)


def test_negative_class_count() -> None:
    with pytest.raises(ModelError, match="num_classes must be 0"):
        create_network("resnet8", -1)


@pytest.mark.parametrize("size", [0, -3, 7])
def test_too_small_images(size: int) -> None:
    with pytest.raises(ModelError, match=f"not {size}"):
        create_network("resnet8", 10, image_size=size)


def test_the_zoo_offers_no_pretrained_weights() -> None:
    with pytest.raises(ModelError, match="no pretrained weights are offered"):
        create_network("resnet8", 10, pretrained=True)


def test_two_sources_of_weights_contradict_each_other() -> None:
    with pytest.raises(ModelError, match="contradict"):
        create_network("timm:resnet18", 10, pretrained=True, weights="weights.pt")


def test_large_images_bring_advice() -> None:
    with pytest.warns(UserWarning, match="resnet8 is made for images of about 32.*timm:resnet18") as caught:
        create_network("resnet8", 10, image_size=97)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create_network("resnet8", 10, image_size=96)


@pytest.mark.parametrize(("size", "zoo"), [(28, True), (64, True), (65, False), (224, False)])
def test_default_networks(size: int, zoo: bool) -> None:
    teacher, student = default_networks(size)
    assert teacher != student
    assert (teacher in CIFAR_ZOO) is zoo
    assert (student in CIFAR_ZOO) is zoo
    with torch.device("meta"):
        if zoo:
            assert CIFAR_ZOO[teacher]().feature_size == CIFAR_ZOO[student]().feature_size
