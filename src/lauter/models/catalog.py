"""Networks by name: the CIFAR zoo, timm, torchvision."""

import difflib
import warnings
from dataclasses import replace
from pathlib import Path

from lauter.errors import ModelError
from lauter.models.cifar.zoo import CIFAR_ZOO
from lauter.models.network import InputSpec, Network
from lauter.models.timm_models import build_timm_network
from lauter.models.torchvision_models import build_torchvision_network
from lauter.models.weights import load_weights, read_weights
from lauter.models.wrapping import check_num_classes

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)
"""Per-channel mean and standard deviation of CIFAR-10's training images."""
CIFAR_SIZE = 32
SMALLEST_ZOO_SIZE = 8
"""Below this side, pooling leaves some zoo networks no pixel."""
LARGEST_ZOO_SIZE = 96
"""Above this side a zoo network sees too small a part of the picture at once, and is slow."""


def create_network(
    name: str,
    num_classes: int,
    *,
    image_size: int | None = None,
    pretrained: bool = False,
    weights: str | Path | None = None,
    load_head: bool = True,
) -> Network:
    """Build a network by its name.

    Fresh weights are drawn from torch's global generator; seed it around the call for the same ones again.

    Args:
        name: a zoo name (see ``CIFAR_ZOO``), ``timm:NAME`` or ``torchvision:NAME``.
        num_classes: K; 0 for a headless network.
        image_size: side in pixels that the network resizes its input to. None: what the weights file states,
            else the model's own (32 for the zoo).
        pretrained: download the weights that timm or torchvision offer. Their classifier becomes the head
            where it has ``num_classes`` classes; otherwise the head is fresh.
        weights: a local file instead: .safetensors, or .pt / .pth with a state dict, of this network or of
            the timm or torchvision model under it. Every key and shape must match.
        load_head: False leaves the head fresh and takes the backbone alone from ``weights``.

    Returns:
        A Network in training mode.

    Raises:
        ModelError: the name is unknown (the message names near ones), the size does not suit the model, or
            the weights cannot be had or do not fit.
    """
    check_num_classes(num_classes)
    if pretrained and weights is not None:
        raise ModelError(f"pretrained=True and weights={str(weights)!r} contradict each other; choose one")
    stored = None if weights is None else read_weights(weights)
    stored_spec = None if stored is None else stored.input_spec
    if stored_spec is not None and image_size is None:
        image_size = stored_spec.size
    network = build_network(name, num_classes, image_size, pretrained)
    warn_if_small_network(name, image_size)
    if stored_spec is not None and stored_spec != replace(network.input_spec, size=stored_spec.size):
        raise ModelError(
            f"weights file {str(weights)!r} was trained on pixels normalised by {stored_spec.mean} and "
            f"{stored_spec.std}, {name} normalises otherwise; open the file with load_network"
        )
    if stored is not None:
        load_weights(network, stored, load_head)
    return network


def build_network(
    name: str, num_classes: int, image_size: int | None = None, pretrained: bool = False
) -> Network:
    """Build a network by its name, as :func:`create_network` does, without files and without advice."""
    if image_size is not None and image_size < 1:
        raise ModelError(f"image_size must be positive, not {image_size}")
    source, colon, rest = name.partition(":")
    if colon and source == "timm":
        return build_timm_network(rest, num_classes, image_size, pretrained)
    if colon and source == "torchvision":
        return build_torchvision_network(rest, num_classes, image_size, pretrained)
    if name not in CIFAR_ZOO:
        raise ModelError(
            f"no network is called {name!r}; {near_names(name)}, or take 'timm:NAME' or 'torchvision:NAME'"
        )
    if pretrained:
        raise ModelError(f"{name}: no pretrained weights are offered; pass weights=FILE, or pretrained=False")
    size = CIFAR_SIZE if image_size is None else image_size
    if size < SMALLEST_ZOO_SIZE:
        raise ModelError(f"{name}: image_size must be at least {SMALLEST_ZOO_SIZE}, not {size}")
    return Network(CIFAR_ZOO[name](), num_classes, InputSpec(size, CIFAR_MEAN, CIFAR_STD), name=name)


def near_names(name: str) -> str:
    """Zoo names near a misspelt one, whatever its case; else all of them."""
    folded = {known.lower(): known for known in CIFAR_ZOO}
    near = [folded[match] for match in difflib.get_close_matches(name.lower(), folded, n=5, cutoff=0.5)]
    return f"near it: {', '.join(near)}" if near else f"the zoo has {', '.join(CIFAR_ZOO)}"


def warn_if_small_network(name: str, image_size: int | None) -> None:
    """Warn where a zoo network, made for 32-pixel images, is set to images above 96 pixels."""
    if name in CIFAR_ZOO and image_size is not None and image_size > LARGEST_ZOO_SIZE:
        teacher, student = default_networks(image_size)
        warnings.warn(
            f"{name} is made for images of about 32 pixels; at {image_size} it is slow and weak. "
            f"Better suited: {student!r} or {teacher!r}, or a smaller image_size",
            UserWarning,
            stacklevel=3,
        )


def default_networks(image_size: int) -> tuple[str, str]:
    """Teacher and student to begin with, for images of this side.

    Up to 64 pixels ``resnet20`` and ``resnet8`` of the CIFAR zoo, small enough to train without an
    accelerator; above, ``timm:resnet34`` and ``timm:resnet18``, the usual pair for photographs. Both pairs
    share their family and feature size, so that the student needs no embedding.

    Args:
        image_size: side of the images in pixels.

    Returns:
        Names of the teacher and of the student for :func:`create_network`.
    """
    return ("resnet20", "resnet8") if image_size <= 64 else ("timm:resnet34", "timm:resnet18")
