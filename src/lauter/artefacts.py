"""Artefacts that outlive a run: a model that lauter loads, and ONNX checked against PyTorch."""

import importlib.util
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lauter.data.dataset import Dataset, Images
from lauter.errors import ConfigError, ModelError
from lauter.files import atomic_path
from lauter.models import Network
from lauter.models.artefact import load_network, read_metadata
from lauter.training.predict import predict
from lauter.training.runtime import Runtime

MULTI_LABEL = {"task": "multi-label"}
"""What stands beside the weights of a network whose classes do not exclude each other."""


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A network with the names of its classes.

    Attributes:
        network: in eval mode; takes raw-scale pixels [B, 3, H, W], uint8 or float on 0..255.
        class_names: K names by label.
        multi_label: whether an image may have several of the classes, or none.
    """

    network: Network
    class_names: tuple[str, ...]
    multi_label: bool = False

    def predict(self, data: Dataset, runtime: Runtime | None = None) -> pd.DataFrame:
        """Class and probability of every image.

        Returns:
            Columns id, class, probability, in the order of ``data``. Of a multi-label model one row for every
            image and class, with the probability that the class is there.
        """
        return self.predict_images(data.images, data.ids, runtime)

    def predict_images(
        self, images: Images, ids: np.typing.NDArray[np.str_], runtime: Runtime | None = None
    ) -> pd.DataFrame:
        """The same for bare images with their ids."""
        size = self.network.input_spec.size
        seen = predict(self.network, images, runtime or Runtime(), image_size=size)
        if self.multi_label:
            each = {"id": np.repeat(ids, len(self.class_names)), "class": [*self.class_names] * len(ids)}
            return pd.DataFrame({**each, "probability": seen.logits.sigmoid().flatten().numpy()})
        confidence, best = seen.logits.softmax(1).max(1)
        names = np.array(self.class_names, dtype=object)
        return pd.DataFrame({"id": ids, "class": names[best.numpy()], "probability": confidence.numpy()})


def load(path: str | Path) -> TrainedModel:
    """Open a saved model: a .safetensors file, or a run directory, whose student is taken.

    Raises:
        ModelError: there is no such file, or it is damaged.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "student.safetensors"
        if not path.exists():
            raise ModelError(f"{path.parent} holds no student.safetensors: the run is not finished")
    network, class_names = load_network(path)
    network.eval().requires_grad_(False)
    multi_label = read_metadata(path).get("task") == MULTI_LABEL["task"]
    return TrainedModel(network, class_names, multi_label)


def can_export_onnx() -> bool:
    """Whether the export extra is installed."""
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))


class _Logits(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(pixels).logits
        return logits


def export_onnx(network: Network, path: str | Path, pixels: Tensor) -> float:
    """Write a network as ONNX and check it against PyTorch on real images.

    The graph takes raw-scale pixels, float32 [B, 3, S, S] on 0..255 with any B, and gives logits [B, K]:
    normalisation is inside.

    Args:
        network: to export; put on the CPU and into eval mode as a side effect.
        path: where the .onnx file shall stand.
        pixels: [B, 3, S, S] real images at the network's input size, for the check.

    Returns:
        The largest absolute difference of a logit between ONNX Runtime and PyTorch in float32.

    Raises:
        ConfigError: the export extra is not installed.
        ModelError: the two disagree by more than rounding; nothing is written.
    """
    if not can_export_onnx():
        raise ConfigError("ONNX needs the export extra: pip install 'lauter[export]'")
    import onnxruntime

    wrapped = _Logits(network.cpu().eval())
    images = pixels[:64].float().cpu()
    with atomic_path(path) as temporary:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's own deprecations
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            try:
                program = torch.onnx.export(
                    wrapped,
                    (images[:1].repeat(2, 1, 1, 1),),  # an example of one image would fix the batch at one
                    dynamo=True,
                    verbose=False,
                    input_names=["pixels"],
                    output_names=["logits"],
                    dynamic_shapes={"pixels": {0: torch.export.Dim("batch", min=1)}},
                )
            except Exception as error:  # the exporter raises anything, by operator
                reason = " ".join(str(error).split())[:300]
                raise ModelError(f"{network.name} cannot be exported to ONNX: {reason}") from error
        if program is None:
            raise ModelError(f"{network.name} cannot be exported to ONNX: the exporter gave no program")
        temporary.write_bytes(program.model_proto.SerializeToString())
        session = onnxruntime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        found = session.run(None, {"pixels": images.numpy()})[0]
        with torch.no_grad():
            expected = wrapped(images).numpy()
        difference = float(np.abs(found - expected).max())
        allowed = 1e-3 * max(1.0, float(np.abs(expected).max()))
        if difference > allowed:
            raise ModelError(
                f"ONNX Runtime and PyTorch differ by {difference:.2g} on real images "
                f"(allowed {allowed:.2g}); {path} was not written"
            )
    return difference
