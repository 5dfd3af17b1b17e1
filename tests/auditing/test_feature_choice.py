"""Which features are taken: by what is asked for, with clear words where that cannot be had."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from lauter.auditing import feature_choice
from lauter.auditing.feature_choice import FeatureConfig, choose_features, locate_store
from lauter.auditing.self_supervised import SelfSupervisedConfig
from lauter.data import Dataset, ResidentImages
from lauter.distillation.stored import write_features
from lauter.errors import ConfigError, DataError, ModelError
from lauter.models import InputSpec, create_network, save_network, wrap_module
from lauter.noisy.pretrain import PretrainConfig
from lauter.training.processes import Processes
from lauter.training.runtime import Runtime, RuntimeConfig

COUNT, SMALL = 20, "mobilenetv3_small_050"

Choose = Callable[..., Any]


@pytest.fixture(scope="module")
def data() -> Dataset:
    generator = np.random.default_rng(0)
    return Dataset(
        name="squares",
        images=ResidentImages(generator.integers(0, 256, (COUNT, 3, 16, 16), dtype=np.uint8)),
        labels=generator.integers(0, 3, COUNT),
        class_names=("a", "b", "c"),
        ids=np.array([f"image-{row}" for row in range(COUNT)]),
    )


@pytest.fixture
def choose(tmp_path: Path, data: Dataset) -> Choose:
    """Choose features of ``data``, with a store of this test's own."""
    runtime = Runtime(RuntimeConfig(device="cpu", precision="32", workers=0))

    def make(spec: Any, processes: Processes | None = None, **settings: Any) -> Any:
        config = FeatureConfig(**{"store": str(tmp_path / "store"), "dtype": "float32", **settings})
        return choose_features(spec, data, runtime, config=config, processes=processes)

    return make


def test_a_timm_backbone_with_a_local_weights_file(tmp_path: Path, data: Dataset, choose: Choose) -> None:
    """As timm saves it, classifier and all; the features are what that classifier would be given."""
    torch.manual_seed(0)
    model = timm.create_model(SMALL, num_classes=7).eval()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    found = choose(f"timm:{SMALL}", weights=str(tmp_path / "weights.safetensors"), image_size=32)
    assert found.source == f"timm:{SMALL} with weights.safetensors, 32 px"
    pixels = torch.from_numpy(np.asarray(data.images.uniform)).float()
    images = torch.nn.functional.interpolate(pixels, (32, 32), mode="bilinear", antialias=True)
    mean = 255 * torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = 255 * torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        expected = model.forward_head(model.forward_features((images - mean) / std), pre_logits=True)
    np.testing.assert_allclose(found.values, expected.numpy(), rtol=1e-3, atol=1e-4)
    again = choose(f"timm:{SMALL}", weights=str(tmp_path / "weights.safetensors"), image_size=32)
    assert (again.key, again.computed, found.computed) == (found.key, 0, COUNT)


def test_a_network_file_and_the_network_itself_are_the_same(tmp_path: Path, choose: Choose) -> None:
    torch.manual_seed(0)
    network = create_network("resnet8", 3, image_size=16).eval()
    save_network(network, tmp_path / "teacher.safetensors", class_names=("a", "b", "c"))
    first, second = choose(tmp_path / "teacher.safetensors"), choose(network)
    assert first.source == "resnet8 of teacher.safetensors, 16 px"
    assert second.source == "resnet8, 16 px"
    assert (first.key, second.computed) == (second.key, 0)
    with pytest.raises(ModelError, match=r"is a folder; name the network's file"):
        choose(tmp_path)
    with pytest.raises(ConfigError, match=r"for a backbone that is given by name.*'32'|32"):
        choose(tmp_path / "teacher.safetensors", image_size=32)
    with pytest.raises(ConfigError, match=r"the network 'resnet8'; leave 'w.pt' out"):
        choose(network, weights="w.pt")


@pytest.mark.parametrize("suffix", [".npy", ".safetensors", ".parquet"])
def test_a_features_file_is_joined_by_ids(tmp_path: Path, data: Dataset, choose: Choose, suffix: str) -> None:
    values = torch.randn(COUNT + 2, 5, generator=torch.Generator().manual_seed(0))
    order = np.random.default_rng(0).permutation(COUNT + 2)
    names = np.array([*data.ids, "extra-0", "extra-1"])
    write_features(tmp_path / f"f{suffix}", names[order], values[order])
    found = choose(str(tmp_path / f"f{suffix}"))
    np.testing.assert_array_equal(found.values, values[:COUNT].numpy())
    assert found.source == f"features file f{suffix}"
    write_features(tmp_path / f"g{suffix}", names[3:], values[3:])
    with pytest.raises(DataError, match=r"lacks 3 of the 20 images \(image-0, image-1, image-2\)"):
        choose(tmp_path / f"g{suffix}")


def test_a_file_without_ids_is_taken_in_row_order_on_request(tmp_path: Path, choose: Choose) -> None:
    values = np.random.default_rng(0).normal(size=(COUNT, 4)).astype(np.float32)
    np.save(tmp_path / "f.npy", values)
    with pytest.raises(DataError, match="comes without ids"):
        choose(tmp_path / "f.npy")
    np.testing.assert_array_equal(choose(tmp_path / "f.npy", row_order=True).values, values)
    values[2, 1] = np.nan
    np.save(tmp_path / "f.npy", values)
    with pytest.raises(DataError, match=r"of 1 images are NaN.*image-2"):
        choose(tmp_path / "f.npy", row_order=True)
    with pytest.raises(DataError, match=r"g.npy' is missing"):
        choose(tmp_path / "g.npy", row_order=True)


def test_arrays_and_tensors(choose: Choose) -> None:
    values = np.random.default_rng(0).normal(size=(COUNT, 4)).astype(np.float32)
    assert choose(values).values is values
    np.testing.assert_array_equal(choose(torch.from_numpy(values)).values, values)
    half = choose(torch.from_numpy(values).bfloat16())
    np.testing.assert_allclose(half.values, values, rtol=1e-2)
    with pytest.raises(DataError, match="19 rows for 20 images"):
        choose(values[:-1])
    with pytest.raises(DataError, match="got int64"):
        choose(torch.ones(COUNT, 2, dtype=torch.int64))


@pytest.mark.parametrize(
    ("spec", "settings", "error", "message"),
    [
        (
            "timm:resnet181",
            {},
            ModelError,
            r"no model 'resnet181'; near it: resnet18.*'simclr', which needs no",
        ),
        ("dinov2", {}, ModelError, r"no network is called 'dinov2'.*or take 'timm:NAME'"),
        ("resnet20", {}, ModelError, r"no pretrained weights are offered.*from a local file, too"),
        ("resnet20", {"weights": "gone.pt"}, ModelError, r"'gone.pt' is missing"),
        ("gone.safetensors", {}, ModelError, r"'gone.safetensors' is missing"),
        ("resnet20", {"row_order": True}, ConfigError, r"row_order is for features files.*'resnet20'"),
        ("simclr", {"weights": "w.pt"}, ConfigError, r"the features are 'simclr'; leave 'w.pt' out"),
        (None, {"image_size": 64}, ConfigError, r"the features are 'simclr'; leave 64 out"),
    ],
)
def test_what_cannot_be_had_is_said(
    choose: Choose, spec: Any, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        choose(spec, **settings)


def test_without_network_the_message_says_what_else_will_do(
    choose: Choose, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(
        ModelError, match=r"cannot be had \(OSError: no route to host\).*features.weights FILE.*'simclr'"
    ):
        choose("timm:resnet18")


def test_processes_that_help_get_nothing(choose: Choose, tmp_path: Path) -> None:
    second = Processes(1, 2)
    assert choose(np.zeros((COUNT, 2), np.float32), second) is None
    write_features(tmp_path / "f.npy", ["a"], torch.zeros(1, 2))
    assert choose(tmp_path / "f.npy", second) is None
    network = wrap_module(torch.nn.Sequential(torch.nn.Flatten()), 3 * 64, 0, InputSpec(8))
    assert choose(network, second) is None
    assert len(choose(network, Processes(0, 2))) == COUNT
    with pytest.raises(ConfigError, match=r"learnt from the images by one process.*name a backbone"):
        choose(None, second)


def test_the_first_features_without_weights_are_learnt(choose: Choose) -> None:
    learning = SelfSupervisedConfig(
        network="resnet8", least_images=0, pretrain=PretrainConfig(epochs=1, batch_size=8, monitor_every=0)
    )
    found = choose(None, learning=learning)
    assert found.source == "simclr on these images (resnet8, 1 epochs), 16 px"
    assert found.values.shape == (COUNT, 64)
    assert found.seconds > found.extraction_seconds > 0
    again = choose("simclr", learning=learning)
    assert (again.key, again.computed) == (found.key, 0)
    np.testing.assert_array_equal(again.values, found.values)


def test_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAUTER_CACHE", str(tmp_path / "here"))
    assert locate_store() == tmp_path / "here"
    monkeypatch.delenv("LAUTER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert locate_store() == tmp_path / "lauter"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate_store() == tmp_path / ".cache" / "lauter"
    assert feature_choice.CACHE_VARIABLE == "LAUTER_CACHE"


@pytest.mark.parametrize(
    "changed", [{"dtype": "int8"}, {"batch_size": 0}, {"image_size": -1}, {"wait_seconds": 0.0}]
)
def test_settings_out_of_range_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"float16 or float32|features need image_size"):
        dataclasses.replace(FeatureConfig(), **changed)
