"""wrap_module: any module from images to features."""

import pytest
import torch
from torch import nn

from lauter.errors import ModelError
from lauter.models import InputSpec, wrap_module

SPEC = InputSpec(8)


def features_of(size: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, size, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_a_module_becomes_a_network() -> None:
    module = features_of(6)
    network = wrap_module(module, 6, 4, SPEC)
    pixels = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    output = network(pixels)
    assert network.name == "custom"
    assert output.logits.shape == (3, 4)
    torch.testing.assert_close(output.features, module(network.normalise(pixels)))


def test_a_given_head_is_used() -> None:
    head = nn.Linear(6, 4)
    assert wrap_module(features_of(6), 6, 4, SPEC, head=head).head is head


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (features_of(5), r"features \[2, 6\] for 2 images with feature_size 6, gave \[2, 5\]"),
        (nn.Conv2d(3, 6, 3), "pool its maps over their positions"),
        (nn.Sequential(features_of(6), nn.Flatten(0)), r"gave \[12\]"),
    ],
)
def test_wrong_features_are_named_at_first_use(module: nn.Module, message: str) -> None:
    network = wrap_module(module, 6, 4, SPEC)
    with pytest.raises(ModelError, match=message):
        network(torch.zeros(2, 3, 8, 8))


def test_a_tuple_is_no_features() -> None:
    class Pair(nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return images, images

    with pytest.raises(ModelError, match="gave a tuple"):
        wrap_module(Pair(), 6, 4, SPEC)(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize(
    ("feature_size", "num_classes", "head", "message"),
    [
        (0, 4, None, "feature_size must be positive, not 0"),
        (6, -1, None, "num_classes must be 0"),
        (6, 4, nn.Linear(5, 4), "head maps 5 features to 4 classes; feature_size is 6 and num_classes 4"),
        (6, 4, nn.Linear(6, 3), "head maps 6 features to 3 classes"),
    ],
)
def test_wrong_sizes_are_refused(
    feature_size: int, num_classes: int, head: nn.Module | None, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        wrap_module(features_of(6), feature_size, num_classes, SPEC, head=head)


def test_a_wrapped_module_shows_no_maps() -> None:
    with pytest.raises(ModelError, match="shows no feature maps"):
        wrap_module(features_of(6), 6, 4, SPEC)(torch.zeros(2, 3, 8, 8), want_maps=True)
