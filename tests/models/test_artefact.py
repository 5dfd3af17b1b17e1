"""Networks on disk: saved and built again bit for bit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import lauter
from lauter.errors import ModelError
from lauter.models import (
    EmbeddedHead,
    InputSpec,
    Network,
    copy_teacher_head,
    create_network,
    load_network,
    read_metadata,
    save_network,
    wrap_module,
)

NAMES = ("cat", "dög", "a,b")


def pixels() -> Tensor:
    return torch.randint(
        0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def trained(name: str, num_classes: int = 3, **options: Any) -> Network:
    """A network whose running statistics have moved from their start."""
    torch.manual_seed(0)
    network = create_network(name, num_classes, **options)
    network.train()(pixels())
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def assert_same(found: Network, expected: Network) -> None:
    weights = expected.state_dict()
    assert found.state_dict().keys() == weights.keys()
    for key, value in found.state_dict().items():
        torch.testing.assert_close(value, weights[key], rtol=0, atol=0)
    assert (found.name, found.num_classes, found.input_spec) == (
        expected.name,
        expected.num_classes,
        expected.input_spec,
    )
    with torch.no_grad():
        torch.testing.assert_close(found(pixels()).logits, expected.eval()(pixels()).logits)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet8", {}),
        ("ShuffleV2", {"image_size": 40}),
        ("timm:mobilenetv3_small_050", {"image_size": 48}),
        ("torchvision:mobilenet_v3_small", {"image_size": 48}),
    ],
)
def test_round_trip(tmp_path: Path, name: str, options: dict[str, int]) -> None:
    network = trained(name, **options)
    save_network(network, tmp_path / "runs" / "student.safetensors", class_names=NAMES)
    found, class_names = load_network(tmp_path / "runs" / "student.safetensors")
    assert class_names == NAMES
    assert not found.training
    assert_same(found, network)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["student.safetensors"]


def heads(teacher: Network) -> dict[str, tuple[nn.Module | None, int]]:
    return {
        "none": (None, 0),
        "embedded": (EmbeddedHead(64, 11, 3), 3),
        "embedding alone": (EmbeddedHead(64, 11, 0), 0),
        "no bias": (nn.Linear(64, 3, bias=False), 3),
        "embedded, no bias": (EmbeddedHead(64, 11, 3, nn.Linear(11, 3, bias=False)), 3),
        "teacher's": (copy_teacher_head(teacher, 64), 3),
    }


@pytest.mark.parametrize(
    "kind", ["none", "embedded", "embedding alone", "no bias", "embedded, no bias", "teacher's"]
)
def test_heads_round_trip(tmp_path: Path, kind: str) -> None:
    network = trained("resnet8", 0)
    head, num_classes = heads(create_network("wrn_16_2", 3))[kind]
    network = Network(network.backbone, num_classes, InputSpec(32, (0.1, 0.2, 0.3)), head, "resnet8")
    save_network(network, tmp_path / "a.safetensors", class_names=NAMES[:num_classes])
    found, class_names = load_network(tmp_path / "a.safetensors")
    assert class_names == NAMES[:num_classes]
    assert type(found.head) is type(network.head)
    assert_same(found, network)


def test_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_network(trained("resnet8"), path, class_names=NAMES, extra={"beta": "6"})
    metadata = read_metadata(path)
    assert metadata["name"] == "resnet8"
    assert metadata["num_classes"] == "3"
    assert json.loads(metadata["class_names"]) == list(NAMES)
    assert json.loads(metadata["input_spec"])["size"] == 32
    assert json.loads(metadata["head"]) == {"kind": "linear", "bias": True}
    assert metadata["lauter_version"] == lauter.__version__
    assert metadata["beta"] == "6"


def test_loading_leaves_the_random_state(tmp_path: Path) -> None:
    save_network(trained("resnet8"), tmp_path / "a.safetensors", class_names=NAMES)
    torch.manual_seed(9)
    expected = torch.rand(4)
    torch.manual_seed(9)
    load_network(tmp_path / "a.safetensors")
    torch.testing.assert_close(torch.rand(4), expected, rtol=0, atol=0)


def test_loading_large_images_gives_no_advice(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="made for images"):
        network = create_network("resnet8", 3, image_size=128)
    save_network(network, tmp_path / "a.safetensors", class_names=NAMES)
    found, _ = load_network(tmp_path / "a.safetensors")
    assert found.input_spec.size == 128


def custom(head: nn.Module | None = None) -> Network:
    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return wrap_module(module, 6, 3, InputSpec(32), head=head)


@pytest.mark.parametrize("head", [None, nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))])
def test_custom_network_loads_into_the_one_passed(tmp_path: Path, head: nn.Module | None) -> None:
    network = custom(head)
    path = tmp_path / "a.safetensors"
    save_network(network, path, class_names=NAMES)
    with pytest.raises(ModelError, match=r"custom network.*load_network\(path, network="):
        load_network(path)
    fresh = custom(None if head is None else nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)))
    found, class_names = load_network(path, network=fresh)
    assert found is fresh
    assert class_names == NAMES
    assert_same(found, network)


def test_a_passed_network_must_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_network(custom(), path, class_names=NAMES)
    with pytest.raises(ModelError, match=r"3 classes.*passed has 4 classes"):
        load_network(path, network=create_network("resnet8", 4))
    with pytest.raises(ModelError, match="missing"):
        load_network(path, network=Network(create_network("resnet8", 0).backbone, 3, InputSpec(32)))
    with pytest.raises(ModelError, match=r"size=32.*size=40"):
        load_network(path, network=Network(create_network("resnet8", 0).backbone, 3, InputSpec(40)))


@pytest.mark.parametrize(
    ("name", "class_names", "extra", "message"),
    [
        ("a.safetensors", ("a",), None, "1 class names for a network of 3 classes"),
        ("a.pt", NAMES, None, r"saved as \.safetensors"),
        ("a.safetensors", NAMES, {"head": "mine", "name": "mine"}, "may not use the keys head, name"),
    ],
)
def test_what_is_not_saved(
    tmp_path: Path, name: str, class_names: tuple[str, ...], extra: dict[str, str] | None, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        save_network(create_network("resnet8", 3), tmp_path / name, class_names=class_names, extra=extra)
    assert not (tmp_path / name).exists()


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is missing"):
        load_network(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_cut_file(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.safetensors"
    save_network(create_network("resnet8", 3), path, class_names=NAMES)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match="is damaged"):
        load_network(path)


def test_plain_safetensors_are_not_an_artefact(tmp_path: Path) -> None:
    save_file(create_network("resnet8", 3).state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="not written by save_network"):
        load_network(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"num_classes": "many"},
        {"input_spec": "[]"},
        {"input_spec": '{"size": 0, "mean": [0, 0, 0], "std": [1, 1, 1]}'},
        {"class_names": "{"},
        {"head": None},
        {"head": "{}"},
        {"head": '{"kind": "embedded"}'},
        {"head": '{"kind": "convolution"}'},
        {"head": "[]"},
    ],
)
def test_damaged_metadata(tmp_path: Path, change: dict[str, str | None]) -> None:
    path = tmp_path / "a.safetensors"
    save_network(create_network("resnet8", 3), path, class_names=NAMES)
    metadata = read_metadata(path) | change
    save_file(load_file(path), path, {key: value for key, value in metadata.items() if value is not None})
    with pytest.raises(ModelError, match="damaged"):
        load_network(path)


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_network(create_network("resnet8", 3), path, class_names=NAMES)
    weights = load_file(path)
    del weights["backbone.stem.0.weight"]
    save_file(weights, path, read_metadata(path))
    with pytest.raises(ModelError, match=r"1 missing: backbone\.stem\.0\.weight"):
        load_network(path)
