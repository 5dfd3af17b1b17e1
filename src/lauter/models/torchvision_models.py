"""Networks from torchvision: ``torchvision:NAME``."""

import difflib
from typing import Any

import torchvision.models
from torch import nn

from lauter.errors import ModelError
from lauter.models.network import InputSpec, Network
from lauter.models.wrapping import ModuleBackbone, check_backbone


def build_torchvision_network(
    name: str, num_classes: int, image_size: int | None, pretrained: bool
) -> Network:
    """Build a Network from a classification model of torchvision.

    Its last linear layer is taken off; what that layer was given are the features. With ``pretrained`` and as
    many classes as the weights were trained for, that layer becomes the head; otherwise the head is fresh.

    Args:
        name: torchvision's name, for example ``resnet18``.
        num_classes: K; 0 for a headless network.
        image_size: side of the input in pixels; None for the side that the model's weights were trained at.
        pretrained: download the default weights.

    Returns:
        A Network with the normalisation of the model's default weights.

    Raises:
        ModelError: torchvision has no such model, it does not end in a linear layer, it does not take this
            size, or its weights cannot be had.
    """
    full_name = f"torchvision:{name}"
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=5, cutoff=0.4)
        raise ModelError(
            f"torchvision has no classification model {name!r}; near it: {', '.join(near) or 'nothing'}"
        )
    transforms = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    size = transforms.crop_size[0] if image_size is None else image_size
    input_spec = InputSpec(size, tuple(transforms.mean), tuple(transforms.std))
    try:
        model = torchvision.models.get_model(
            name, weights="DEFAULT" if pretrained else None, **builder_options(name, size, pretrained)
        )
    except Exception as error:
        cause = "its weights cannot be had" if pretrained else f"it cannot be built for side {size}"
        way_out = "; pass weights=FILE with a local copy" if pretrained else ""
        raise ModelError(f"{full_name}: {cause} ({type(error).__name__}: {error}){way_out}") from error

    linears = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linears:
        raise ModelError(f"{full_name}: does not end in a linear layer, so it has no features before one")
    path, classifier = linears[-1]
    model.set_submodule(path, nn.Identity())
    backbone = ModuleBackbone(model, classifier.in_features, full_name, (path,))
    check_backbone(backbone, input_spec)
    keep_head = pretrained and num_classes == classifier.out_features
    return Network(backbone, num_classes, input_spec, classifier if keep_head else None, full_name)


def builder_options(name: str, size: int, pretrained: bool) -> dict[str, Any]:
    """What some of torchvision's builders must be told besides the weights."""
    if name.startswith("vit_"):
        return {"image_size": size}
    if name == "maxvit_t":
        return {"input_size": (size, size)}
    if name in ("googlenet", "inception_v3"):
        # Without the side classifiers, so that the output is one tensor in training too.
        return {"aux_logits": False, "init_weights": not pretrained}
    return {}
