"""Weight files: read without running code, compared key by key, loaded whole or not at all."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lauter.errors import ModelError
from lauter.models.network import InputSpec, Network
from lauter.models.wrapping import ModuleBackbone

SHOWN_KEYS = 5
"""How many keys of each kind of disagreement an error lists."""
NESTED_KEYS = ("state_dict", "model")
"""Where training scripts are known to put the weights in a .pt file."""


@dataclass(frozen=True)
class StoredWeights:
    """A weight file's content.

    Attributes:
        path: the file.
        tensors: weights by key.
        metadata: what stands beside them; empty for .pt and .pth.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def input_spec(self) -> InputSpec | None:
        """Input size and normalisation that the file states; None where it states none.

        Raises:
            ModelError: what it states cannot be read.
        """
        if "input_spec" not in self.metadata:
            return None
        try:
            return parse_input_spec(self.metadata["input_spec"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"weights file {str(self.path)!r}: its input_spec is damaged ({error})"
            ) from error


def parse_input_spec(text: str) -> InputSpec:
    """An InputSpec from its JSON; KeyError, TypeError or ValueError where it is none."""
    fields = json.loads(text)
    return InputSpec(int(fields["size"]), tuple(fields["mean"]), tuple(fields["std"]))


def read_weights(path: str | Path) -> StoredWeights:
    """Read a weight file.

    Args:
        path: .safetensors, or .pt / .pth with a state dict (read with ``weights_only=True``).

    Returns:
        Tensors on the host, and metadata.

    Raises:
        ModelError: the file is missing, of another kind, damaged, or holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"weights file {str(path)!r} is missing")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                keys = file.keys()
                return StoredWeights(path, {key: file.get_tensor(key) for key in keys}, file.metadata() or {})
        except (SafetensorError, OSError) as error:
            raise ModelError(f"weights file {str(path)!r} is damaged: {error}") from error
    if path.suffix not in (".pt", ".pth"):
        raise ModelError(f"weights file {str(path)!r} must end in .safetensors, .pt or .pth")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"weights file {str(path)!r} is damaged or not of weights alone ({type(error).__name__}: {error})"
        ) from error
    return StoredWeights(path, find_state_dict(content, path))


def find_state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what a .pt file held: the whole of it, or under one of ``NESTED_KEYS``."""
    nested = [content[key] for key in NESTED_KEYS if isinstance(content, Mapping) and key in content]
    for candidate in (content, *nested):
        if (
            isinstance(candidate, Mapping)
            and candidate
            and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in candidate.items())
        ):
            return dict(candidate)
    raise ModelError(f"weights file {str(path)!r} holds no state dict (a mapping from names to tensors)")


def load_weights(network: Network, stored: StoredWeights, load_head: bool = True) -> None:
    """Load a file's weights into a network, or raise and leave the network as it was.

    Keys may be the network's own (``backbone.``..., ``head.``...), or those of the model that a backbone of
    timm, torchvision or :func:`lauter.models.wrap_module` wraps.

    Args:
        network: changed in place.
        stored: from :func:`read_weights`.
        load_head: False leaves the head as it is, whatever the file holds.

    Raises:
        ModelError: the head in the file has another class count, or a key is missing, unexpected or of
            another shape; the message lists the first few of each.
    """
    tensors = as_network_keys(stored.tensors, network)
    expected = network.state_dict()
    if load_head:
        check_class_count(tensors, network, stored.path)
    else:
        tensors = {key: value for key, value in tensors.items() if not key.startswith("head.")}
        tensors |= {key: value for key, value in expected.items() if key.startswith("head.")}
    faults = {
        "missing": [key for key in expected if key not in tensors],
        "unexpected": [key for key in tensors if key not in expected],
        "of another shape": [
            f"{key} {list(tensors[key].shape)} for {list(value.shape)}"
            for key, value in expected.items()
            if key in tensors and tensors[key].shape != value.shape
        ],
    }
    if any(faults.values()):
        listed = "; ".join(f"{len(keys)} {kind}: {list_keys(keys)}" for kind, keys in faults.items() if keys)
        raise ModelError(f"weights file {str(stored.path)!r} does not fit {network.name!r}: {listed}")
    network.load_state_dict(tensors)


def as_network_keys(tensors: Mapping[str, Tensor], network: Network) -> dict[str, Tensor]:
    """Rename the keys of a wrapped model's own file to the network's; others stay as they are."""
    backbone = network.backbone
    if any(key.startswith("backbone.") for key in tensors) or not isinstance(backbone, ModuleBackbone):
        return dict(tensors)
    renamed = {}
    for key, value in tensors.items():
        owner, _, leaf = key.rpartition(".")
        # Two classifiers (one of them distilled) are no single head: their keys count as unexpected.
        is_head = backbone.classifier_names == (owner,)
        renamed[f"head.{leaf}" if is_head else f"backbone.module.{key}"] = value
    return renamed


def check_class_count(tensors: Mapping[str, Tensor], network: Network, path: Path) -> None:
    """Raise a ModelError if the file's head has another class count than the network's."""
    for key in ("head.weight", "head.classifier.weight"):
        found = len(tensors[key]) if key in tensors and tensors[key].ndim == 2 else network.num_classes
        if found != network.num_classes:
            raise ModelError(
                f"weights file {str(path)!r} has a head of {found} classes, the network one of "
                f"{network.num_classes}; pass num_classes={found}, or load_head=False to load the rest"
            )


def list_keys(keys: list[str]) -> str:
    """The first few keys, and how many more there are."""
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return ", ".join(keys[:SHOWN_KEYS]) + more


def stored_tensors(module: nn.Module) -> dict[str, Tensor]:
    """A module's state dict as a file wants it: on the host, contiguous, no two tensors sharing memory."""
    return {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in module.state_dict().items()
    }
