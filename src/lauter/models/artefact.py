"""A network as one safetensors file that says what it is: saved atomically, built again bit for bit."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from lauter import __version__
from lauter.errors import ModelError
from lauter.files import atomic_path
from lauter.models.catalog import build_network
from lauter.models.folding import EmbeddedHead
from lauter.models.network import InputSpec, Network, NoHead
from lauter.models.weights import StoredWeights, load_weights, parse_input_spec, read_weights, stored_tensors

FORMAT = "lauter-network-1"
CUSTOM_HEAD = {"kind": "custom"}
"""Description of a head that only the caller can build."""


def save_network(
    network: Network,
    path: str | Path,
    *,
    class_names: tuple[str, ...],
    extra: dict[str, str] | None = None,
) -> None:
    """Write a network's weights with all that is needed to build it again.

    Args:
        network: saved as it is; which weights are frozen and whether it is training are not kept.
        path: where the .safetensors file shall stand; written whole or not at all.
        class_names: K names by label; empty for a headless network.
        extra: further text to keep beside the weights, read back by :func:`read_metadata`.

    Raises:
        ModelError: the number of names is not the number of classes, an ``extra`` key is taken, or the path
            does not end in .safetensors.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ModelError(f"a network is saved as .safetensors, not {str(path)!r}")
    if len(class_names) != network.num_classes:
        raise ModelError(f"{len(class_names)} class names for a network of {network.num_classes} classes")
    metadata = {
        "format": FORMAT,
        "name": network.name,
        "num_classes": str(network.num_classes),
        "input_spec": json.dumps(asdict(network.input_spec)),
        "class_names": json.dumps(class_names),
        "head": json.dumps(describe_head(network.head)),
        "lauter_version": __version__,
    }
    taken = sorted(metadata.keys() & (extra or {}).keys())
    if taken:
        raise ModelError(f"extra metadata may not use the keys {', '.join(taken)}")
    content = sort_header(save(stored_tensors(network), metadata | (extra or {})))
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def sort_header(content: bytes) -> bytes:
    """A .safetensors file's bytes with its metadata in order: safetensors writes it in a random one.

    So that the same weights make the same file, and files can be compared by their hashes.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + content[end:]


def load_network(path: str | Path, network: Network | None = None) -> tuple[Network, tuple[str, ...]]:
    """Build a saved network again, with exactly the weights that were saved; nothing is downloaded.

    Torch's random state is the same afterwards.

    Args:
        path: a file of :func:`save_network`.
        network: load into this one and return it: the only way for a ``custom`` network or head.

    Returns:
        The network in eval mode, and its class names.

    Raises:
        ModelError: the file is missing, damaged, not one of :func:`save_network`, or does not fit
            ``network``; or the network is ``custom`` and none was passed.
    """
    stored = read_weights(path)
    about = read_description(stored)
    if network is None:
        network = rebuild_network(about, stored.path)
    elif (network.num_classes, network.input_spec) != (about["num_classes"], about["input_spec"]):
        raise ModelError(
            f"{str(path)!r} holds a network of {about['num_classes']} classes and {about['input_spec']}; "
            f"the one passed has {network.num_classes} classes and {network.input_spec}"
        )
    load_weights(network, stored)
    return network.eval(), about["class_names"]


def read_metadata(path: str | Path) -> dict[str, str]:
    """All text that stands beside the weights in a .safetensors file, ``extra`` included."""
    return read_weights(path).metadata


def describe_head(head: nn.Module) -> dict[str, Any]:
    """A head's kind and sizes, enough to build it again; kind ``custom`` cannot be."""
    if isinstance(head, NoHead):
        return {"kind": "none"}
    if type(head) is nn.Linear:
        return {"kind": "linear", "bias": head.bias is not None}
    if isinstance(head, EmbeddedHead):
        return {
            "kind": "embedded",
            "student_size": head.embedding.in_features,
            "teacher_size": head.embedding.out_features,
            "bias": getattr(head.classifier, "bias", None) is not None,
        }
    return CUSTOM_HEAD


def build_head(description: dict[str, Any], feature_size: int, num_classes: int) -> nn.Module | None:
    """The head that :func:`describe_head` described; None for the one a Network makes itself."""
    kind = description["kind"]
    if kind == "linear" and not description["bias"]:
        return nn.Linear(feature_size, num_classes, bias=False)
    if kind == "embedded":
        teacher_size = description["teacher_size"]
        classifier = nn.Linear(teacher_size, num_classes, bias=description["bias"]) if num_classes else None
        return EmbeddedHead(description["student_size"], teacher_size, num_classes, classifier)
    if kind in ("linear", "none"):
        return None
    raise ValueError(f"no head is of kind {kind!r}")


def read_description(stored: StoredWeights) -> dict[str, Any]:
    """The metadata of :func:`save_network`, parsed."""
    metadata = stored.metadata
    if metadata.get("format") != FORMAT:
        raise ModelError(
            f"{str(stored.path)!r} was not written by save_network (format {metadata.get('format')!r}, "
            f"expected {FORMAT!r}); load plain weights with create_network(NAME, K, weights=FILE)"
        )
    try:
        return {
            "name": metadata["name"],
            "num_classes": int(metadata["num_classes"]),
            "input_spec": parse_input_spec(metadata["input_spec"]),
            "class_names": tuple(json.loads(metadata["class_names"])),
            "head": json.loads(metadata["head"]),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{str(stored.path)!r}: its metadata is damaged ({type(error).__name__}: {error})"
        ) from error


def rebuild_network(about: dict[str, Any], path: Path) -> Network:
    """The network that a file describes, with fresh weights."""
    spec: InputSpec = about["input_spec"]
    if about["name"] == "custom" or about["head"] == CUSTOM_HEAD:
        raise ModelError(
            f"{str(path)!r} holds a custom network, which cannot be built from its name; build it as before "
            "and pass it: load_network(path, network=...)"
        )
    # Fresh weights are drawn and then overwritten; the caller's random state must not notice.
    with torch.random.fork_rng(devices=[]):
        bare = build_network(about["name"], 0, spec.size)
        try:
            head = build_head(about["head"], bare.feature_size, about["num_classes"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{str(path)!r}: its head's description is damaged ({error})") from error
        return Network(bare.backbone, about["num_classes"], spec, head, about["name"])
