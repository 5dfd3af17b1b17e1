"""timm:NAME: features are the classifier's input, sizes and weights are as asked for or refused."""

from typing import Any

import pytest
import timm
import torch

from lauter.errors import ModelError
from lauter.models import InputSpec, Network, create_network
from lauter.models.wrapping import ModuleBackbone

SMALL = "mobilenetv3_small_050"


def images(side: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "side", "feature_size", "maps"),
    [
        (SMALL, 64, 1024, 5),  # num_features is 288: a layer stands between pooling and classifier
        ("resnet18", 64, 512, 5),
        ("vit_tiny_patch16_224", 64, 192, 12),
    ],
)
def test_features_are_the_classifiers_input(name: str, side: int, feature_size: int, maps: int) -> None:
    torch.manual_seed(0)
    options = {"img_size": side} if name.startswith("vit") else {}
    original = timm.create_model(name, num_classes=6, **options).eval()
    network = create_network(f"timm:{name}", 6, image_size=side).eval()
    assert network.feature_size == feature_size
    backbone = network.backbone
    assert isinstance(backbone, ModuleBackbone)
    weights = original.state_dict()
    backbone.module.load_state_dict({key: weights[key] for key in backbone.module.state_dict()})
    network.head.load_state_dict(original.get_classifier().state_dict())
    with torch.no_grad():
        features, none = backbone(images(side))
        again, shown = backbone(images(side), want_maps=True)
        torch.testing.assert_close(network.head(features), original(images(side)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(again, features)
    assert none == ()
    assert len(shown) == maps
    assert all(stage.ndim == 4 for stage in shown)


def test_normalisation_and_size_are_the_models_own() -> None:
    network = create_network("timm:vit_tiny_patch16_224", 3)
    assert network.name == "timm:vit_tiny_patch16_224"
    assert network.input_spec == InputSpec(224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert create_network(f"timm:{SMALL}", 3).input_spec == InputSpec(224)


def test_headless() -> None:
    network = create_network(f"timm:{SMALL}", 0, image_size=32)
    assert network.eval()(torch.zeros(2, 3, 32, 32)).logits.shape == (2, 0)


def test_a_size_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelError, match="timm:levit_128s: does not take images of side 50"):
        create_network("timm:levit_128s", 10, image_size=50)
    with pytest.raises(ModelError, match="timm:nest_tiny: it cannot be built for side 50"):
        create_network("timm:nest_tiny", 10, image_size=50)
    assert create_network("timm:levit_128s", 10, image_size=224).input_spec.size == 224


def test_a_model_without_pretrained_weights() -> None:
    assert not timm.is_model_pretrained("resnet10t.nowhere")
    name = next(name for name in timm.list_models("resnet*") if not timm.is_model_pretrained(name))
    with pytest.raises(ModelError, match="no pretrained weights"):
        create_network(f"timm:{name}", 10, pretrained=True)


def test_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(
        ModelError,
        match=r"timm:resnet18: its weights cannot be had \(OSError: no route to host\); pass weights=FILE",
    ):
        create_network("timm:resnet18", 10, pretrained=True)


def offline(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let 'pretrained' models come with drawn weights, and keep a copy of their classifiers."""
    create, classifiers = timm.create_model, []

    def draw(name: str, pretrained: bool, num_classes: int, **options: Any) -> Any:
        assert pretrained
        model = create(name, pretrained=False, num_classes=num_classes, **options)
        classifiers.append(model.get_classifier())
        return model

    monkeypatch.setattr(timm, "create_model", draw)
    return classifiers


def test_pretrained_head_is_kept_where_the_class_count_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    classifiers = offline(monkeypatch)
    network = create_network(f"timm:{SMALL}", 1000, image_size=32, pretrained=True)
    assert type(network.head) is torch.nn.Linear
    torch.testing.assert_close(network.head.weight, classifiers[0].weight, rtol=0, atol=0)
    torch.testing.assert_close(network.head.bias, classifiers[0].bias, rtol=0, atol=0)
    assert not [key for key in network.backbone.state_dict() if "classifier" in key]


def test_pretrained_head_is_fresh_where_it_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    network = create_network(f"timm:{SMALL}", 5, image_size=32, pretrained=True)
    assert network.eval()(torch.zeros(2, 3, 32, 32)).logits.shape == (2, 5)


def test_pretrained_head_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    with pytest.raises(ModelError, match="not one linear layer"):
        create_network("timm:levit_128s", 1000, pretrained=True)


def test_pretrained_head_that_is_not_the_whole_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def draw(name: str, pretrained: bool, num_classes: int) -> Any:
        model = create(name, pretrained=False, num_classes=num_classes)
        plain = model.forward
        model.forward = lambda images: plain(images) + 1
        return model

    monkeypatch.setattr(timm, "create_model", draw)
    with pytest.raises(ModelError, match="not one linear layer"):
        create_network(f"timm:{SMALL}", 1000, image_size=32, pretrained=True)


def test_a_model_without_maps_says_so() -> None:
    network: Network = create_network(f"timm:{SMALL}", 3, image_size=32)
    backbone: Any = network.backbone
    inner = backbone.module
    backbone.module = torch.nn.Module()
    backbone.module.forward_features = inner.forward_features
    backbone.module.forward_head = inner.forward_head
    with pytest.raises(ModelError, match="shows no feature maps"):
        network(torch.zeros(1, 3, 32, 32), want_maps=True)
