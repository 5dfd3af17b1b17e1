"""Network: normalisation, resizing, heads."""

import pytest
import torch
from torch import nn

from lauter.errors import ModelError
from lauter.models import InputSpec, Network, NoHead, create_network


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return create_network("resnet8", 4).eval()


def test_normalise_by_the_formula(network: Network) -> None:
    pixels = torch.randint(
        0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    images = network.normalise(pixels)
    assert images.is_contiguous(memory_format=torch.channels_last)
    for b, c, y, x in ((0, 0, 0, 0), (1, 2, 31, 5), (1, 1, 7, 30)):
        expected = (int(pixels[b, c, y, x]) / 255 - network.input_spec.mean[c]) / network.input_spec.std[c]
        assert float(images[b, c, y, x]) == pytest.approx(expected, abs=1e-5)


def test_uint8_and_float_pixels_are_the_same(network: Network) -> None:
    pixels = torch.randint(
        0, 256, (2, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(network(pixels).logits, network(pixels.float()).logits, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(64, 64), (20, 45)])
def test_other_sizes_are_resized(network: Network, shape: tuple[int, int]) -> None:
    pixels = torch.full((1, 3, *shape), 90, dtype=torch.uint8)
    same = torch.full((1, 3, 32, 32), 90, dtype=torch.uint8)
    torch.testing.assert_close(network.normalise(pixels), network.normalise(same))


def test_headless_network_gives_logits_without_columns() -> None:
    network = create_network("resnet8", 0)
    output = network(torch.zeros(2, 3, 32, 32))
    assert isinstance(network.head, NoHead)
    assert output.logits.shape == (2, 0)
    assert output.features.shape == (2, 64)


def test_backbone_without_feature_size_is_refused() -> None:
    with pytest.raises(ModelError, match="wrap_module"):
        Network(nn.Identity(), 3, InputSpec(32))


@pytest.mark.parametrize(("size", "std"), [(0, (1.0, 1.0, 1.0)), (32, (1.0, 0.0, 1.0))])
def test_bad_input_spec(size: int, std: tuple[float, float, float]) -> None:
    with pytest.raises(ModelError, match="positive"):
        InputSpec(size, std=std)
