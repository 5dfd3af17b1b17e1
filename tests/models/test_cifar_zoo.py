"""The CIFAR zoo: sizes as the benchmark states them, and networks that can be trained."""

import math

import pytest
import torch
from torch import Tensor, nn

from lauter.models import CIFAR_ZOO, InputSpec, Network, count_parameters
from lauter.models.cifar import StagedBackbone
from lauter.models.cifar.channel_shuffle import shuffle_channels
from lauter.models.cifar.resnet50 import Bottleneck
from lauter.models.cifar.staged import conv_bn

# Parameters with 100 classes and penultimate size, from the public networks of the CRD benchmark.
SIZES = {
    "resnet8": (83_892, 64),
    "resnet14": (181_108, 64),
    "resnet20": (278_324, 64),
    "resnet32": (472_756, 64),
    "resnet44": (667_188, 64),
    "resnet56": (861_620, 64),
    "resnet110": (1_736_564, 64),
    "resnet8x4": (1_233_540, 256),
    "resnet32x4": (7_433_860, 256),
    "ResNet50": (23_705_252, 2048),
    "wrn_16_1": (180_916, 64),
    "wrn_16_2": (703_284, 128),
    "wrn_40_1": (569_780, 64),
    "wrn_40_2": (2_255_156, 128),
    "vgg8": (3_965_028, 512),
    "vgg11": (9_277_284, 512),
    "vgg13": (9_462_180, 512),
    "vgg16": (14_774_436, 512),
    "vgg19": (20_086_692, 512),
    "MobileNetV2": (812_836, 1280),
    "ShuffleV1": (949_258, 960),
    "ShuffleV2": (1_355_528, 1024),
}
# Side and channels of each stage's output on 32-pixel images.
MAPS = {
    "resnet8": [(16, 32), (32, 16), (64, 8)],
    "resnet8x4": [(64, 32), (128, 16), (256, 8)],
    "ResNet50": [(256, 32), (512, 16), (1024, 8), (2048, 4)],
    "wrn_16_2": [(32, 32), (64, 16), (128, 8)],
    "vgg8": [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)],
    "MobileNetV2": [(12, 16), (16, 8), (48, 4), (160, 2)],
    "ShuffleV1": [(240, 16), (480, 8), (960, 4)],
    "ShuffleV2": [(116, 16), (232, 8), (464, 4)],
}
FAMILIES = ["resnet8", "ResNet50", "wrn_16_2", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2"]


@pytest.fixture(scope="module")
def backbones() -> dict[str, StagedBackbone]:
    """One of each family, its running statistics those of a batch, so that features differ between images."""
    torch.manual_seed(0)
    built = {name: CIFAR_ZOO[name]() for name in FAMILIES}
    for backbone in built.values():
        norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            backbone(torch.randn(16, 3, 32, 32))
        for norm in norms:
            norm.momentum = 0.0
    return built


@pytest.fixture
def images() -> Tensor:
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return images.contiguous(memory_format=torch.channels_last)


def test_the_zoo_is_the_benchmarks() -> None:
    assert set(CIFAR_ZOO) == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_parameters_and_feature_size(name: str) -> None:
    with torch.device("meta"):
        network = Network(CIFAR_ZOO[name](), 100, InputSpec(32), name=name)
        output = network(torch.zeros(2, 3, 32, 32))
    assert (count_parameters(network), network.feature_size) == SIZES[name]
    assert output.features.shape == (2, SIZES[name][1])
    assert output.logits.shape == (2, 100)


@pytest.mark.parametrize("name", MAPS)
def test_stage_maps(name: str) -> None:
    with torch.device("meta"):
        _, maps = CIFAR_ZOO[name]()(torch.zeros(2, 3, 32, 32), want_maps=True)
    assert [tuple(stage.shape) for stage in maps] == [(2, width, side, side) for width, side in MAPS[name]]


@pytest.mark.parametrize("name", [*FAMILIES, "vgg19", "wrn_40_2"])
@pytest.mark.parametrize("side", [8, 28, 48, 64])
def test_other_image_sizes(name: str, side: int) -> None:
    with torch.device("meta"):
        backbone = CIFAR_ZOO[name]()
        features, _ = backbone(torch.zeros(2, 3, side, side))
    assert features.shape == (2, backbone.feature_size)


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_are_the_stages_outputs_untouched(
    name: str, backbones: dict[str, StagedBackbone], images: Tensor
) -> None:
    """In-place activations must not write into a map after it was taken, nor into the images."""
    backbone = backbones[name].train()
    seen: list[Tensor] = []
    hooks = [
        stage.register_forward_hook(lambda module, args, output: seen.append(output.detach().clone()))
        for stage in backbone.stages
    ]
    before = images.clone()
    features, maps = backbone(images, want_maps=True)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(images, before, rtol=0, atol=0)
    assert len(maps) == len(seen)
    for taken, output in zip(maps, seen, strict=True):
        torch.testing.assert_close(taken, output, rtol=0, atol=0)
    plain, none = backbone(images)
    assert none == ()
    torch.testing.assert_close(plain, features)
    assert features.min() >= 0, "features stand after the last activation"


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_learns(name: str, backbones: dict[str, StagedBackbone], images: Tensor) -> None:
    network = Network(backbones[name], 5, InputSpec(32)).train()
    pixels = (images * 50 + 120).clamp(0, 255)
    loss = nn.functional.cross_entropy(network(pixels).logits, torch.tensor([0, 1, 2]))
    gradients = torch.autograd.grad(loss, tuple(network.parameters()))
    for (parameter, _), gradient in zip(network.named_parameters(), gradients, strict=True):
        assert gradient.isfinite().all(), parameter
        # A convolution's bias before a normalisation in training is taken out again.
        if not (name == "vgg8" and parameter.endswith("0.bias")):
            assert gradient.abs().max() > 0, parameter


@pytest.mark.parametrize("name", [name if name != "ResNet50" else "bottlenecks" for name in FAMILIES])
def test_a_gradient_is_the_slope_of_the_loss(name: str) -> None:
    """Against central differences in float64, along one drawn direction through all parameters."""
    generator = torch.Generator().manual_seed(2)
    torch.manual_seed(3)
    if name == "bottlenecks":
        stages = [Bottleneck(8, 4, stride=1), Bottleneck(16, 4, stride=2), Bottleneck(16, 4, stride=1)]
        backbone = StagedBackbone(conv_bn(3, 8, 3), stages, feature_size=16).double().eval()
    else:
        backbone = CIFAR_ZOO[name]().double().eval()
    images = torch.randn(1, 3, 16, 16, dtype=torch.float64, generator=generator)
    parameters = tuple(backbone.parameters())
    direction = [
        torch.randn(p.shape, dtype=p.dtype, generator=generator) * p.std()
        for p in parameters
        if p.numel() > 1
    ]
    target = torch.randn(backbone.feature_size, dtype=torch.float64, generator=generator)
    moved = [p for p in parameters if p.numel() > 1]

    def value() -> Tensor:
        return (backbone(images)[0] @ target).sum()

    slope = sum((g * d).sum() for g, d in zip(torch.autograd.grad(value(), moved), direction, strict=True))
    step, ends = 1e-7, []
    with torch.no_grad():
        for sign in (1, -1):
            for parameter, d in zip(moved, direction, strict=True):
                parameter += sign * step * d
            ends.append(value())
            for parameter, d in zip(moved, direction, strict=True):
                parameter -= sign * step * d
    torch.testing.assert_close((ends[0] - ends[1]) / (2 * step), slope, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_in_eval_mode_an_image_does_not_depend_on_its_neighbours(
    name: str, backbones: dict[str, StagedBackbone], images: Tensor
) -> None:
    backbone = backbones[name].eval()
    with torch.no_grad():
        together = backbone(images)[0]
        alone = torch.cat([backbone(images[i : i + 1])[0] for i in range(len(images))])
        flipped = backbone(images.flip(0))[0].flip(0)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together, flipped, rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.1, "different images have different features"


@pytest.mark.parametrize("name", FAMILIES)
def test_memory_format_changes_nothing(
    name: str, backbones: dict[str, StagedBackbone], images: Tensor
) -> None:
    backbone = backbones[name].eval()
    with torch.no_grad():
        last, maps = backbone(images, want_maps=True)
        first, _ = backbone(images.contiguous())
    torch.testing.assert_close(last, first, rtol=1e-4, atol=1e-5)
    for stage in maps:
        assert stage.is_contiguous(memory_format=torch.channels_last)


def test_features_are_float32_under_autocast(backbones: dict[str, StagedBackbone], images: Tensor) -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features, maps = backbones["resnet8"].eval()(images, want_maps=True)
    assert maps[-1].dtype == torch.bfloat16
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, maps[-1].double().mean((2, 3)).float())


def test_pooling_is_the_mean_over_positions(backbones: dict[str, StagedBackbone], images: Tensor) -> None:
    with torch.no_grad():
        features, maps = backbones["resnet8"].eval()(images, want_maps=True)
    for b in range(3):
        for d in (0, 17, 63):
            total = sum(float(maps[-1][b, d, y, x]) for y in range(8) for x in range(8))
            assert float(features[b, d]) == pytest.approx(total / 64, rel=1e-5)


@pytest.mark.parametrize("name", ["resnet8x4", "wrn_16_2", "vgg8", "MobileNetV2"])
def test_convolutions_start_with_fan_out_variance(name: str) -> None:
    torch.manual_seed(4)
    for module in CIFAR_ZOO[name]().modules():
        if isinstance(module, nn.Conv2d):
            expected = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            n = module.weight.numel()
            assert float(module.weight.detach().pow(2).mean().sqrt()) == pytest.approx(
                expected, rel=5 / math.sqrt(2 * n)
            )
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


def test_weights_follow_torchs_generator() -> None:
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(CIFAR_ZOO["ShuffleV2"]().state_dict())
    for key, value in drawn[0].items():
        torch.testing.assert_close(value, drawn[1][key], rtol=0, atol=0)
    assert any((value != drawn[2][key]).any() for key, value in drawn[0].items())


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_shuffle_deals_groups_out_in_turn(groups: int, memory_format: torch.memory_format) -> None:
    x = torch.randn(2, 12, 3, 4, generator=torch.Generator().manual_seed(0)).contiguous(
        memory_format=memory_format
    )
    size = 12 // groups
    expected = torch.empty_like(x)
    for position in range(size):
        for group in range(groups):
            expected[:, position * groups + group] = x[:, group * size + position]
    shuffled = shuffle_channels(x, groups)
    torch.testing.assert_close(shuffled, expected, rtol=0, atol=0)
    if memory_format == torch.channels_last:
        assert shuffled.is_contiguous(memory_format=torch.channels_last)
