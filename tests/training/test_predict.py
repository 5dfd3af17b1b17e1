"""The inference pass: in the order asked for, whatever the batches, and nothing else changes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lauter.data.dataset import ResidentImages
from lauter.data.views import ViewRecipe, render_view
from lauter.models import Network
from lauter.training.predict import predict
from lauter.training.runtime import Runtime

MakeNetwork = Callable[[int], Network]


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """The same pixels, read one by one."""

    pixels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def uniform(self) -> None:
        return None

    def read(self, index: int) -> NDArray[np.uint8]:
        return self.pixels[index]


@pytest.fixture
def network(make_network: MakeNetwork) -> Network:
    """With statistics of its own, so that eval and training mode differ."""
    network = make_network(0)
    norm = network.backbone.module[1]
    norm.running_mean.fill_(0.3)
    norm.running_var.fill_(2.0)
    return network


def test_predictions_are_those_of_the_network_in_eval_mode(
    network: Network, images: ResidentImages, runtime: Runtime
) -> None:
    found = predict(network, images, runtime)
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(images.pixels))
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.features, expected.features)
    np.testing.assert_array_equal(found.classes(), expected.logits.argmax(1).numpy())
    assert not found.logits.requires_grad


def test_the_index_decides_rows_and_order(network: Network, images: ResidentImages, runtime: Runtime) -> None:
    whole = predict(network, images, runtime)
    index = np.array([5, 5, 23, 0, 11])
    found = predict(network, images, runtime, index=index, batch_size=2)
    torch.testing.assert_close(found.logits, whole.logits[index])
    torch.testing.assert_close(found.features, whole.features[index])


@pytest.mark.parametrize("batch_size", [1, 5, 24, 100])
def test_the_batch_size_does_not_matter(
    network: Network, images: ResidentImages, runtime: Runtime, batch_size: int
) -> None:
    found = predict(network, images, runtime, batch_size=batch_size)
    expected = predict(network, images, runtime)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.features, expected.features, rtol=1e-5, atol=1e-5)


def test_streamed_images_give_the_same(network: Network, images: ResidentImages, runtime: Runtime) -> None:
    found = predict(network, StreamedImages(images.pixels), runtime)
    torch.testing.assert_close(found.logits, predict(network, images, runtime).logits)


def test_a_view_may_be_asked_for(network: Network, images: ResidentImages, runtime: Runtime) -> None:
    recipe, index = ViewRecipe(pad=2, flip=0.5), np.arange(3, 20)
    found = predict(network, images, runtime, index=index, batch_size=4, view=(recipe, 7, 2))
    pixels = torch.from_numpy(images.pixels[index])
    rendered = ResidentImages(render_view(pixels, recipe, 7, index, 2).numpy())
    torch.testing.assert_close(found.logits, predict(network, rendered, runtime).logits)


def test_the_size_of_the_pictures_may_be_given(
    network: Network, images: ResidentImages, runtime: Runtime
) -> None:
    """Pictures of 16 x 16 are made, and the network resizes them to its own 8."""
    found = predict(network, images, runtime, image_size=16)
    assert not torch.allclose(found.logits, predict(network, images, runtime).logits)


def test_every_part_keeps_its_mode(network: Network, images: ResidentImages, runtime: Runtime) -> None:
    network.train()
    frozen = network.backbone.module[1].eval()
    modes = {name: module.training for name, module in network.named_modules()}
    statistics = frozen.running_mean.clone()
    predict(network, images, runtime)
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert network.training
    assert not frozen.training
    torch.testing.assert_close(frozen.running_mean, statistics, rtol=0, atol=0)
    network.eval()
    predict(network, images, runtime)
    assert not any(module.training for module in network.modules())


def test_the_mode_returns_after_an_error_too(network: Network, runtime: Runtime) -> None:
    class Unreadable(StreamedImages):
        def read(self, index: int) -> NDArray[np.uint8]:
            raise OSError("gone")

    network.train()
    with pytest.raises(OSError, match="gone"):
        predict(network, Unreadable(np.zeros((3, 3, 8, 8), np.uint8)), runtime)
    assert all(module.training for module in network.modules())


def test_no_image_gives_no_row(network: Network, images: ResidentImages, runtime: Runtime) -> None:
    found = predict(network, images, runtime, index=np.zeros(0, dtype=np.int64))
    assert found.logits.shape == (0, 3)
    assert found.features.shape == (0, 6)
    assert found.classes().shape == (0,)
