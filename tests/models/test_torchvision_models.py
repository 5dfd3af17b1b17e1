"""torchvision:NAME: features are the classifier's input, sizes and weights are as asked for or refused."""

from typing import Any

import pytest
import torch
import torchvision.models

from lauter.errors import ModelError
from lauter.models import InputSpec, create_network
from lauter.models.wrapping import ModuleBackbone

SMALL = "mobilenet_v3_small"


@pytest.mark.parametrize(
    ("name", "path", "feature_size"),
    [(SMALL, "classifier.3", 1024), ("resnet18", "fc", 512), ("shufflenet_v2_x0_5", "fc", 1024)],
)
def test_features_are_the_classifiers_input(name: str, path: str, feature_size: int) -> None:
    torch.manual_seed(0)
    original = torchvision.models.get_model(name, num_classes=6).eval()
    network = create_network(f"torchvision:{name}", 6, image_size=64).eval()
    assert network.feature_size == feature_size
    backbone = network.backbone
    assert isinstance(backbone, ModuleBackbone)
    weights = original.state_dict()
    backbone.module.load_state_dict({key: weights[key] for key in backbone.module.state_dict()})
    network.head.load_state_dict(original.get_submodule(path).state_dict())
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, maps = backbone(images)
        torch.testing.assert_close(network.head(features), original(images), rtol=1e-4, atol=1e-5)
    assert maps == ()


def test_normalisation_and_size_are_the_default_weights() -> None:
    network = create_network(f"torchvision:{SMALL}", 3)
    assert network.name == f"torchvision:{SMALL}"
    assert network.input_spec == InputSpec(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_no_maps() -> None:
    network = create_network(f"torchvision:{SMALL}", 3, image_size=32).eval()
    with pytest.raises(ModelError, match=r"shows no feature maps; .*timm:NAME"):
        network(torch.zeros(1, 3, 32, 32), want_maps=True)


def test_a_model_without_linear_classifier_is_refused() -> None:
    with pytest.raises(ModelError, match="does not end in a linear layer"):
        create_network("torchvision:squeezenet1_1", 10)


def test_a_size_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelError, match="torchvision:vit_b_32: it cannot be built for side 40"):
        create_network("torchvision:vit_b_32", 10, image_size=40)


def test_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.models, "get_model", fail)
    with pytest.raises(
        ModelError, match=r"its weights cannot be had \(OSError: no route to host\); pass weights=FILE"
    ):
        create_network("torchvision:resnet18", 10, pretrained=True)


@pytest.mark.parametrize("num_classes", [1000, 5])
def test_pretrained_head_is_kept_where_the_class_count_agrees(
    monkeypatch: pytest.MonkeyPatch, num_classes: int
) -> None:
    create, classifiers = torchvision.models.get_model, []

    def draw(name: str, weights: str) -> Any:
        assert weights == "DEFAULT"
        model = create(name)
        classifiers.append(model.classifier[3])
        return model

    monkeypatch.setattr(torchvision.models, "get_model", draw)
    network = create_network(f"torchvision:{SMALL}", num_classes, image_size=32, pretrained=True).eval()
    assert (network.head is classifiers[0]) is (num_classes == 1000)
    assert network(torch.zeros(1, 3, 32, 32)).logits.shape == (1, num_classes)
