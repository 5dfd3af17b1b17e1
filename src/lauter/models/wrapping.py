"""Any module from images to features, as a Network."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lauter.errors import ModelError
from lauter.models.network import InputSpec, Network


class ModuleBackbone(nn.Module):
    """A module that maps normalised images to features [B, D]; it shows no maps.

    Args:
        module: normalised images [B, 3, H, W] -> features [B, D].
        feature_size: D.
        name: for error messages.
        classifier_names: where in the module's own weight files the classifier stands (``"fc"``), so that
            such a file can be loaded; empty where unknown.
    """

    feature_size: int

    def __init__(
        self, module: nn.Module, feature_size: int, name: str = "custom", classifier_names: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.module = module
        self.feature_size = feature_size
        self.name = name
        self.classifier_names = tuple(classifier_names)

    def forward(self, images: Tensor, want_maps: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Normalised images [B, 3, H, W] -> features [B, D] and no maps.

        Raises:
            ModelError: maps are wanted, or the module gives something else than [B, ``feature_size``].
        """
        if want_maps:
            raise ModelError(
                f"{self.name}: shows no feature maps; take a network of the CIFAR zoo or one of timm's "
                "('timm:NAME') where a method needs maps"
            )
        features = self.module(images)
        check_features(features, len(images), self.feature_size, self.name)
        return features, ()


def check_features(features: object, batch_size: int, feature_size: int, name: str) -> None:
    """Raise a ModelError unless ``features`` is a tensor [batch_size, feature_size]."""
    if not isinstance(features, Tensor):
        raise ModelError(f"{name}: must give a tensor of features [B, D], gave a {type(features).__name__}")
    if tuple(features.shape) != (batch_size, feature_size):
        advice = "; pool its maps over their positions first" if features.ndim == 4 else ""
        raise ModelError(
            f"{name}: must give features [{batch_size}, {feature_size}] for {batch_size} images with "
            f"feature_size {feature_size}, gave {list(features.shape)}{advice}"
        )


def send_probe(module: nn.Module, call: Callable[[Tensor], Tensor], name: str, side: int) -> Tensor:
    """Send one picture of this side through ``call``, with ``module`` in eval mode and without gradient.

    Raises:
        ModelError: it cannot be sent through.
    """
    training = module.training
    module.eval()
    picture = torch.linspace(-1, 1, 3 * side * side).view(1, 3, side, side)
    try:
        with torch.no_grad():
            return call(picture)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"{name}: does not take images of side {side} ({error})") from error
    finally:
        module.train(training)


def check_backbone(backbone: ModuleBackbone, input_spec: InputSpec) -> Tensor:
    """The features [1, D] of one picture; a ModelError if it is not taken or they are others."""
    features = send_probe(backbone, lambda picture: backbone(picture)[0], backbone.name, input_spec.size)
    check_features(features, 1, backbone.feature_size, backbone.name)
    return features


def wrap_module(
    module: nn.Module,
    feature_size: int,
    num_classes: int,
    input_spec: InputSpec,
    *,
    head: nn.Module | None = None,
) -> Network:
    """Make a Network of any module from images to features.

    Args:
        module: normalised images [B, 3, H, W] -> features [B, D], the input of the head. Its output is
            checked at every call.
        feature_size: D.
        num_classes: K; 0 for a headless network.
        input_spec: side and normalisation of the pixels that ``module`` expects.
        head: features [B, D] -> logits [B, K]; None for a fresh ``nn.Linear``.

    Returns:
        A Network named ``custom``: its weights can be saved, but to load them the module must be at hand.

    Raises:
        ModelError: a size is out of its range, or a linear ``head`` does not fit the sizes.
    """
    if feature_size < 1:
        raise ModelError(f"feature_size must be positive, not {feature_size}")
    check_num_classes(num_classes)
    if isinstance(head, nn.Linear) and (head.in_features, head.out_features) != (feature_size, num_classes):
        raise ModelError(
            f"the head maps {head.in_features} features to {head.out_features} classes; "
            f"feature_size is {feature_size} and num_classes {num_classes}"
        )
    return Network(ModuleBackbone(module, feature_size), num_classes, input_spec, head)


def check_num_classes(num_classes: int) -> None:
    """Raise a ModelError for a negative number of classes."""
    if num_classes < 0:
        raise ModelError(f"num_classes must be 0 (no head) or more, not {num_classes}")
