"""Local weight files: loaded whole and exactly, or refused with the reason."""

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision.models
from safetensors.torch import save_file
from torch import Tensor

from lauter.errors import ModelError
from lauter.models import InputSpec, Network, create_network, save_network

SMALL = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def trained() -> Network:
    torch.manual_seed(5)
    return create_network("resnet8", 4)


def write(path: Path, tensors: dict[str, Tensor], **around: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(around or tensors, path)
    return path


def assert_same(found: Network, expected: Network) -> None:
    weights = expected.state_dict()
    assert found.state_dict().keys() == weights.keys()
    for key, value in found.state_dict().items():
        torch.testing.assert_close(value, weights[key], rtol=0, atol=0)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_exact_weights(tmp_path: Path, trained: Network, suffix: str) -> None:
    path = write(tmp_path / f"weights{suffix}", trained.state_dict())
    assert_same(create_network("resnet8", 4, weights=path), trained)
    assert_same(create_network("resnet8", 4, weights=str(path)), trained)


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_weights_nested_in_a_checkpoint(tmp_path: Path, trained: Network, key: str) -> None:
    path = write(tmp_path / "weights.pt", {}, **{key: trained.state_dict(), "epoch": 3})
    assert_same(create_network("resnet8", 4, weights=path), trained)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_timm_models_own_file(tmp_path: Path, suffix: str) -> None:
    original = timm.create_model(SMALL, num_classes=6).eval()
    path = write(tmp_path / f"weights{suffix}", original.state_dict())
    network = create_network(f"timm:{SMALL}", 6, image_size=32, weights=path).eval()
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(network(pixels).logits, original(network.normalise(pixels)))


def test_a_torchvision_models_own_file(tmp_path: Path) -> None:
    original = torchvision.models.mobilenet_v3_small(num_classes=6).eval()
    path = write(tmp_path / "weights.pth", original.state_dict())
    network = create_network("torchvision:mobilenet_v3_small", 6, image_size=32, weights=path).eval()
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(network(pixels).logits, original(network.normalise(pixels)))


def test_another_class_count(tmp_path: Path, trained: Network) -> None:
    path = write(tmp_path / "weights.pt", trained.state_dict())
    with pytest.raises(
        ModelError, match="a head of 4 classes, the network one of 10; pass num_classes=4, or load_head"
    ):
        create_network("resnet8", 10, weights=path)
    network = create_network("resnet8", 10, weights=path, load_head=False).eval()
    assert network(torch.zeros(2, 3, 32, 32)).logits.shape == (2, 10)
    for key, value in network.backbone.state_dict().items():
        torch.testing.assert_close(value, trained.backbone.state_dict()[key], rtol=0, atol=0)


def test_another_class_count_in_a_timm_file(tmp_path: Path) -> None:
    path = write(tmp_path / "weights.pt", timm.create_model(SMALL, num_classes=6).state_dict())
    with pytest.raises(ModelError, match="a head of 6 classes, the network one of 3"):
        create_network(f"timm:{SMALL}", 3, image_size=32, weights=path)


def test_headless_file_and_network_with_a_head(tmp_path: Path, trained: Network) -> None:
    path = write(
        tmp_path / "w.pt", {k: v for k, v in trained.state_dict().items() if k.startswith("backbone.")}
    )
    with pytest.raises(ModelError, match=r"2 missing: head\.weight, head\.bias"):
        create_network("resnet8", 4, weights=path)
    create_network("resnet8", 4, weights=path, load_head=False)


def test_disagreeing_keys_are_listed(tmp_path: Path, trained: Network) -> None:
    weights = trained.state_dict()
    del weights["backbone.stem.0.weight"]
    weights["backbone.stem.1.weight"] = torch.zeros(3)
    for i in range(7):
        weights[f"backbone.extra.{i}"] = torch.zeros(1)
    path = write(tmp_path / "weights.pt", weights)
    with pytest.raises(ModelError) as caught:
        create_network("resnet8", 4, weights=path)
    message = str(caught.value)
    assert "1 missing: backbone.stem.0.weight" in message
    assert "7 unexpected: backbone.extra.0, " in message
    assert "backbone.extra.4 and 2 more" in message
    assert "1 of another shape: backbone.stem.1.weight [3] for [16]" in message


def test_weights_of_another_network_change_nothing(tmp_path: Path, trained: Network) -> None:
    path = write(tmp_path / "weights.pt", trained.state_dict())
    with pytest.raises(ModelError, match="does not fit 'wrn_16_1'"):
        create_network("wrn_16_1", 4, weights=path)


@pytest.mark.parametrize("name", ["gone.pt", "gone.safetensors"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=re.escape(str(tmp_path / name)) + "' is missing"):
        create_network("resnet8", 4, weights=tmp_path / name)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\x80\x04\x95" + bytes(40)])
def test_damaged_file(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is damaged"):
        create_network("resnet8", 4, weights=path)


def test_another_suffix(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"must end in \.safetensors, \.pt or \.pth"):
        create_network("resnet8", 4, weights=tmp_path / "weights.bin")


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, {"state_dict": {"a": 1}}])
def test_a_file_without_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ModelError, match="holds no state dict"):
        create_network("resnet8", 4, weights=tmp_path / "weights.pt")


class Anything:
    """Stands for code that a pickle could run."""


def test_a_file_with_more_than_weights_is_not_run(tmp_path: Path) -> None:
    torch.save({"a": Anything()}, tmp_path / "weights.pt")
    with pytest.raises(ModelError, match="not of weights alone"):
        create_network("resnet8", 4, weights=tmp_path / "weights.pt")


def test_an_artefact_brings_its_input_size(tmp_path: Path) -> None:
    saved = create_network("resnet8", 2, image_size=40)
    save_network(saved, tmp_path / "a.safetensors", class_names=("a", "b"))
    assert create_network("resnet8", 2, weights=tmp_path / "a.safetensors").input_spec == saved.input_spec
    assert (
        create_network("resnet8", 2, image_size=48, weights=tmp_path / "a.safetensors").input_spec.size == 48
    )


def test_an_artefact_of_another_normalisation_is_refused(tmp_path: Path, trained: Network) -> None:
    other = Network(trained.backbone, 4, InputSpec(32, (0.1, 0.2, 0.3)), trained.head, "resnet8")
    save_network(other, tmp_path / "a.safetensors", class_names=tuple("abcd"))
    with pytest.raises(ModelError, match="normalises otherwise"):
        create_network("resnet8", 4, weights=tmp_path / "a.safetensors")


def test_a_damaged_input_spec(tmp_path: Path, trained: Network) -> None:
    save_file(trained.state_dict(), tmp_path / "a.safetensors", {"input_spec": "{"})
    with pytest.raises(ModelError, match="input_spec is damaged"):
        create_network("resnet8", 4, weights=tmp_path / "a.safetensors")
