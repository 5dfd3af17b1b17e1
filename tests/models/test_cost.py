"""Parameters and operations."""

import pytest
import timm
import torch
import torchvision.models
from torch import nn

from lauter.errors import ModelError
from lauter.models import InputSpec, count_flops, count_parameters, create_network, wrap_module


def resnet_operations(depth: int, side: int, classes: int) -> int:
    """Twice the multiplications of a CIFAR ResNet, layer by layer."""
    total = side * side * 16 * 3 * 9
    before = 16
    for stage, width in enumerate((16, 32, 64)):
        if stage:
            side //= 2
            total += side * side * width * before  # projected shortcut
        for block in range((depth - 2) // 6):
            total += side * side * width * (before if block == 0 else width) * 9
            total += side * side * width * width * 9
        before = width
    return 2 * (total + 64 * classes)


@pytest.mark.parametrize("depth", [8, 20])
@pytest.mark.parametrize("size", [None, 32, 64])
def test_resnet_operations_by_hand(depth: int, size: int | None) -> None:
    assert count_flops(create_network(f"resnet{depth}", 10), size) == resnet_operations(depth, size or 32, 10)


def test_size_defaults_to_the_networks_own() -> None:
    assert count_flops(create_network("resnet8", 10, image_size=64)) == resnet_operations(8, 64, 10)


def transformer_operations(width: int, depth: int, mlp: int, tokens: int, patch: int, classes: int) -> int:
    """Twice the multiplications of a vision transformer; attention is two products of tokens x tokens."""
    block = tokens * (4 * width * width + 2 * width * mlp) + 2 * tokens * tokens * width
    return 2 * ((tokens - 1) * 3 * patch * patch * width + depth * block + width * classes)


def test_attention_is_counted_in_timm_models() -> None:
    network = create_network("timm:vit_tiny_patch16_224", 10, image_size=64)
    assert count_flops(network) == transformer_operations(192, 12, 768, 17, 16, 10)


@pytest.mark.parametrize("frozen", [False, True])
def test_attention_is_counted_in_torchvision_models(frozen: bool) -> None:
    module = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32
    )
    module.heads = nn.Identity()
    network = wrap_module(module.requires_grad_(not frozen), 16, 10, InputSpec(32))
    fastpath = torch.backends.mha.get_fastpath_enabled()
    assert count_flops(network) == transformer_operations(16, 2, 32, 17, 8, 10)
    assert torch.backends.mha.get_fastpath_enabled() == fastpath


def test_counting_changes_nothing() -> None:
    network = create_network("resnet8", 10).train()
    frozen = network.get_submodule("backbone.stem").eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    count_flops(network)
    assert network.training
    assert network.head.training
    assert not frozen.training
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


@pytest.mark.parametrize("size", [0, -1])
def test_bad_size(size: int) -> None:
    with pytest.raises(ModelError, match=f"positive, not {size}"):
        count_flops(create_network("resnet8", 10), size)


def test_a_size_the_backbone_does_not_take() -> None:
    network = create_network("timm:vit_tiny_patch16_224", 10, image_size=64).train()
    with pytest.raises(ModelError, match="does not take images of side 65"):
        count_flops(network, 65)
    assert network.training


def test_frozen_parameters_are_counted() -> None:
    network = create_network("resnet8", 10)
    expected = 83_892 - 90 * 65
    assert count_parameters(network) == expected
    assert count_parameters(network.requires_grad_(False)) == expected
    original = timm.create_model("mobilenetv3_small_050", num_classes=3)
    network = create_network("timm:mobilenetv3_small_050", 3, image_size=32)
    assert count_parameters(network) == sum(p.numel() for p in original.parameters())
