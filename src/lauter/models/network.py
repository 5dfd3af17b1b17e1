"""Network: a backbone, a head and what the pair needs to know about its input."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lauter.errors import ModelError


class Output(NamedTuple):
    """What a network says about a batch.

    Attributes:
        logits: [B, K], float32.
        features: [B, D], float32: the input of the head, after the last activation and pooling.
        maps: feature maps [B, C_j, H_j, W_j] by depth, only where asked for.
    """

    logits: Tensor
    features: Tensor
    maps: tuple[Tensor, ...] = ()


class Backbone(Protocol):
    """What ``Network`` needs of a backbone: an ``nn.Module`` called like this, and its feature size."""

    feature_size: int

    def __call__(self, images: Tensor, want_maps: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return penultimate features [B, D] and, where asked for, the maps of the stages."""
        ...


@dataclass(frozen=True)
class InputSpec:
    """What a network expects of its input pixels; travels with its weights.

    Attributes:
        size: side of the square input in pixels.
        mean: per-channel mean that is subtracted, on the scale 0 to 1.
        std: per-channel standard deviation that divides, on the scale 0 to 1.
    """

    size: int
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.size < 1 or min(self.std) <= 0:
            raise ModelError(f"input size must be positive and std above 0, not {self.size} and {self.std}")


class Network(nn.Module):
    """Backbone + head. Takes raw-scale pixels, resizes and normalises for itself.

    Args:
        backbone: module with ``feature_size`` and ``forward(images, want_maps)``.
        head: maps features [B, D] to logits [B, K]; None makes a ``nn.Linear`` with ``num_classes``.
        num_classes: K; 0 with ``head=None`` gives a headless network whose logits have no columns.
        input_spec: size and normalisation.
        name: the catalogue name it can be built from again.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        input_spec: InputSpec,
        head: nn.Module | None = None,
        name: str = "custom",
    ) -> None:
        super().__init__()
        feature_size = getattr(backbone, "feature_size", None)
        if not isinstance(feature_size, int) or feature_size < 1:
            raise ModelError(
                f"backbone {name!r} states no feature_size; wrap it with lauter.models.wrap_module"
            )
        self.name = name
        self.backbone = backbone
        self.feature_size = feature_size
        self.num_classes = num_classes
        self.input_spec = input_spec
        if head is None:
            head = nn.Linear(feature_size, num_classes) if num_classes else NoHead()
        self.head = head
        self.register_buffer(
            "pixel_mean", 255 * torch.tensor(input_spec.mean).view(3, 1, 1), persistent=False
        )
        self.register_buffer("pixel_std", 255 * torch.tensor(input_spec.std).view(3, 1, 1), persistent=False)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Turn raw-scale pixels [B, 3, H, W] (uint8, or float on 0..255) into this network's input."""
        size, mean = self.input_spec.size, cast(Tensor, self.pixel_mean)
        if pixels.shape[-2:] == (size, size):
            images = pixels.to(mean.dtype, memory_format=torch.channels_last)
        else:
            images = pixels.to(mean.dtype)
            images = F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)
        # Floats of the caller are left as they are; what was made here is divided in place.
        images = images - mean if pixels.is_floating_point() else images.sub_(mean)
        return images.div_(cast(Tensor, self.pixel_std)).contiguous(memory_format=torch.channels_last)

    def features(self, pixels: Tensor, want_maps: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Penultimate features [B, D] in float32, and the stage maps where asked for."""
        features, maps = cast(Backbone, self.backbone)(self.normalise(pixels), want_maps)
        return features.float(), maps

    def forward(self, pixels: Tensor, want_maps: bool = False) -> Output:
        """Raw-scale pixels [B, 3, H, W] -> logits, features and, where asked for, maps."""
        features, maps = self.features(pixels, want_maps)
        return Output(self.head(features).float(), features, maps)


class NoHead(nn.Module):
    """The head of a headless network: no logits."""

    def forward(self, features: Tensor) -> Tensor:
        """Return an empty [B, 0]."""
        return features[:, :0]
