"""Two networks that are trained beside each other, seen as one."""

import math
from typing import cast

import torch
from torch import Tensor, nn

from lauter.errors import ModelError
from lauter.models import Backbone, Network


class NetworkPair(Network):
    r"""Two networks whose probabilities are averaged: a network like any other.

    .. math:: x_b = \log \frac{\operatorname{softmax}(x^1_b) + \operatorname{softmax}(x^2_b)}{2}

    are its logits; its features stand side by side [B, D_1 + D_2], its maps one after the other. It holds the
    two networks themselves: training them trains the pair, and its operations are those of both.

    Args:
        first: a network.
        second: another one with the same classes and the same input.

    Raises:
        ModelError: their classes or inputs differ; the message names both.
    """

    def __init__(self, first: Network, second: Network) -> None:
        for what, one, other in (
            ("number of classes", first.num_classes, second.num_classes),
            ("input", first.input_spec, second.input_spec),
        ):
            if one != other:
                raise ModelError(
                    f"two networks can only be averaged where they have the same {what}, not {one} "
                    f"({first.name}) and {other} ({second.name})"
                )
        backbones, heads = _Backbones(first, second), _Heads(first, second)
        name = f"pair of {first.name}"
        super().__init__(backbones, first.num_classes, first.input_spec, heads, name)

    @property
    def networks(self) -> tuple[Network, Network]:
        """The first and the second network."""
        backbones = cast(_Backbones, self.backbone)
        return backbones.first, backbones.second


class _Backbones(nn.Module):
    """Both networks' backbones on the same, normalised images; the networks live here as a whole."""

    def __init__(self, first: Network, second: Network) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.feature_size = first.feature_size + second.feature_size

    def forward(self, images: Tensor, want_maps: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
        (ours, our_maps), (theirs, their_maps) = (
            cast(Backbone, network.backbone)(images, want_maps) for network in (self.first, self.second)
        )
        return torch.cat([ours, theirs], dim=1), our_maps + their_maps


class _Heads(nn.Module):
    """Both networks' heads, each on its own features, and the log of their mean probabilities."""

    def __init__(self, first: Network, second: Network) -> None:
        super().__init__()
        self.first, self.second = first.head, second.head
        self.sizes = [first.feature_size, second.feature_size]

    def forward(self, features: Tensor) -> Tensor:
        ours, theirs = torch.split(features, self.sizes, dim=1)
        logits = torch.stack([self.first(ours), self.second(theirs)]).float()
        return logits.log_softmax(2).logsumexp(0) - math.log(2)
