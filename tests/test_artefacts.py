"""Saved models and ONNX: the same numbers as PyTorch, at any batch size, or nothing is written."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import lauter
from lauter import artefacts
from lauter.artefacts import can_export_onnx, export_onnx, load
from lauter.errors import ConfigError, ModelError
from lauter.models import create_network
from lauter.pipeline import FitResult


def run_onnx(path: Path, pixels: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == ["pixels"]
    assert [entry.name for entry in session.get_outputs()] == ["logits"]
    return torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0])


@pytest.mark.parametrize("batch", [1, 7])
def test_the_onnx_file_of_a_run_agrees_at_any_batch_size(
    finished: FitResult, photos: Path, batch: int
) -> None:
    pixels = torch.from_numpy(lauter.open_dataset(photos).images.uniform[:batch]).float()
    with torch.no_grad():
        expected = lauter.load(finished.directory).network(pixels).logits
    found = run_onnx(finished.directory / "student.onnx", pixels)
    assert found.shape == (batch, 3)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    scale = float(expected.abs().max())
    assert finished.metrics["student"]["onnx_difference"] <= 1e-3 * max(1.0, scale)


def test_one_image_is_enough_to_export_any_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = create_network("resnet8", 4, image_size=8).eval()
    pixels = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    path = tmp_path / "deep" / "net.onnx"
    assert export_onnx(network, path, pixels[:1]) < 1e-3
    with torch.no_grad():
        torch.testing.assert_close(
            run_onnx(path, pixels.float()), network(pixels).logits, rtol=1e-3, atol=1e-3
        )
    assert [entry.name for entry in path.parent.iterdir()] == ["net.onnx"]  # weights are inside


def test_onnx_that_disagrees_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Liar:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def run(self, _: Any, inputs: dict[str, Any]) -> list[Any]:
            return [np.full((len(inputs["pixels"]), 4), 9.0, dtype=np.float32)]

    class Program:
        class model_proto:
            SerializeToString = staticmethod(lambda: b"graph")

    monkeypatch.setattr(onnxruntime, "InferenceSession", Liar)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: Program)
    network = create_network("resnet8", 4, image_size=8)
    with pytest.raises(ModelError, match=r"differ by \S+ on real images \(allowed \S+\); .* was not written"):
        export_onnx(network, tmp_path / "net.onnx", torch.zeros(2, 3, 8, 8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failure", ["no operator\nfor this", None])
def test_what_the_exporter_does_not_take_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str | None
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        if failure:
            raise RuntimeError(failure)

    monkeypatch.setattr(torch.onnx, "export", refuse)
    message = "no operator for this" if failure else "gave no program"
    with pytest.raises(ModelError, match=f"resnet8 cannot be exported to ONNX: .*{message}"):
        export_onnx(create_network("resnet8", 4), tmp_path / "net.onnx", torch.zeros(2, 3, 32, 32))
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_onnx_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_export_onnx()
    find = importlib.util.find_spec
    monkeypatch.setattr(
        artefacts.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name)
    )
    assert not can_export_onnx()
    with pytest.raises(ConfigError, match=r"needs the export extra: pip install 'lauter\[export\]'"):
        export_onnx(create_network("resnet8", 4), tmp_path / "net.onnx", torch.zeros(1, 3, 32, 32))
    assert list(tmp_path.iterdir()) == []


def test_a_file_or_a_run_is_opened(finished: FitResult) -> None:
    by_run = load(str(finished.directory))
    by_file = load(finished.directory / "student.safetensors")
    assert by_run.class_names == by_file.class_names == ("cat", "dog", "train")
    assert not by_run.network.training
    assert not any(parameter.requires_grad for parameter in by_run.network.parameters())
    torch.testing.assert_close(by_run.network.state_dict(), by_file.network.state_dict(), rtol=0, atol=0)


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no student\.safetensors: the run is not finished"):
        load(tmp_path)
    with pytest.raises(ModelError, match=r"gone\.safetensors' is missing"):
        load(tmp_path / "gone.safetensors")
    (tmp_path / "net.safetensors").write_bytes(b"half of it")
    with pytest.raises(ModelError, match="is damaged"):
        load(tmp_path / "net.safetensors")


def test_predictions_are_the_networks_softmax(finished: FitResult, photos: Path) -> None:
    data = lauter.open_dataset(photos).subset([5, 30, 17])
    model = load(finished.directory)
    table = model.predict(data)
    with torch.no_grad():
        logits = model.network(torch.from_numpy(data.images.uniform)).logits.double().numpy()
    for row, scores in enumerate(logits):
        weights = np.exp(scores - scores.max())
        best = int(scores.argmax())
        assert table["id"][row] == data.ids[row]
        assert table["class"][row] == model.class_names[best]
        # The pass may run in bf16, which keeps 8 bits.
        assert table["probability"][row] == pytest.approx(weights[best] / weights.sum(), abs=0.02)
