"""Networks from timm: ``timm:NAME``."""

import difflib
from typing import Any, cast

import timm
import torch
from timm.data.config import resolve_model_data_config
from timm.layers.linear import Linear as CastingLinear
from torch import Tensor, nn

from lauter.errors import ModelError
from lauter.models.network import InputSpec, Network
from lauter.models.wrapping import ModuleBackbone, check_backbone, send_probe

HEAD_REFUSED = (
    "{}: its pretrained classifier is not one linear layer and cannot become the head; take num_classes=0 "
    "for the pretrained features alone, or another model"
)


class TimmBackbone(ModuleBackbone):
    """A timm model without its classifier; features are what the classifier would be given."""

    def forward(self, images: Tensor, want_maps: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Normalised images [B, 3, H, W] -> features [B, D] and, where asked for, timm's intermediate maps.

        Raises:
            ModelError: maps are wanted of a model that shows none.
        """
        model: Any = self.module
        maps: tuple[Tensor, ...] = ()
        if not want_maps:
            last = model.forward_features(images)
        elif hasattr(model, "forward_intermediates"):
            last, intermediates = model.forward_intermediates(images)
            maps = tuple(intermediates)
        else:
            raise ModelError(f"{self.name}: this timm model shows no feature maps")
        features: Tensor = model.forward_head(last, pre_logits=True)
        return features, maps


def build_timm_network(name: str, num_classes: int, image_size: int | None, pretrained: bool) -> Network:
    """Build a Network from timm.

    With ``pretrained`` and as many classes as the weights were trained for, the pretrained linear classifier
    becomes the head; otherwise the head is fresh.

    Args:
        name: timm's name, with or without the tag of its weights (``resnet18.a1_in1k``).
        num_classes: K; 0 for a headless network.
        image_size: side of the input in pixels; None for the model's own.
        pretrained: download the weights.

    Returns:
        A Network with the model's own normalisation.

    Raises:
        ModelError: timm has no such model, it does not take this size, or its weights cannot be had.
    """
    full_name = f"timm:{name}"
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.4)
        raise ModelError(f"timm has no model {name!r}; near it: {', '.join(near) or 'nothing'}")
    if pretrained and not timm.is_model_pretrained(name):
        raise ModelError(
            f"timm has no pretrained weights for {name!r}; pass pretrained=False or weights=FILE"
        )
    config: Any
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tagged = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        raise ModelError(
            f"timm has no weights tagged {name!r}; it has {', '.join(tagged) or 'none'}"
        ) from error
    # Transformers are built for one size; other models take what comes and know no such argument.
    fixed = config.fixed_input_size and image_size not in (None, config.input_size[-1])
    options: dict[str, Any] = {"img_size": image_size} if fixed else {}
    keep_head = pretrained and num_classes == config.num_classes
    try:
        model: Any = timm.create_model(
            name, pretrained=pretrained, num_classes=num_classes if keep_head else 0, **options
        )
    except Exception as error:
        cause = "its weights cannot be had" if pretrained else f"it cannot be built for side {image_size}"
        way_out = "; pass weights=FILE with a local copy" if pretrained else ""
        raise ModelError(f"{full_name}: {cause} ({type(error).__name__}: {error}){way_out}") from error

    data_config = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    height, width = data_config["input_size"][1:]
    if image_size is None and height != width:
        raise ModelError(f"{full_name}: expects {height}x{width} pixels; give a square image_size")
    input_spec = InputSpec(
        height if image_size is None else image_size, tuple(data_config["mean"]), tuple(data_config["std"])
    )
    head, expected_logits = None, torch.empty(0)
    if keep_head:
        expected_logits = send_probe(model, model, full_name, input_spec.size)
        head = as_linear(model.get_classifier(), full_name)
        model.reset_classifier(0)
    classifiers = model.pretrained_cfg.get("classifier") or ()
    backbone = TimmBackbone(
        model,
        getattr(model, "head_hidden_size", None) or model.num_features,
        full_name,
        (classifiers,) if isinstance(classifiers, str) else classifiers,
    )
    features = check_backbone(backbone, input_spec)
    # A few models (VOLO) make their logits of more than the layer that they call their classifier.
    if head is not None and not torch.allclose(head(features), expected_logits, rtol=1e-3, atol=1e-3):
        raise ModelError(HEAD_REFUSED.format(full_name))
    return Network(backbone, num_classes, input_spec, head, full_name)


def as_linear(classifier: nn.Module, name: str) -> nn.Linear:
    """A timm classifier as a plain ``nn.Linear`` with the same weights.

    Raises:
        ModelError: it is something else, or more, than one linear layer.
    """
    if type(classifier) not in (nn.Linear, CastingLinear):
        raise ModelError(HEAD_REFUSED.format(name))
    layer = cast(nn.Linear, classifier)
    head = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    head.load_state_dict(layer.state_dict())
    return head
