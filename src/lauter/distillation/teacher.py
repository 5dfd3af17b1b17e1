"""Teachers: what shows a student, batch by batch, what it should learn; here a network that runs along."""

from typing import Protocol

import torch

from lauter.data.batches import Batch
from lauter.distillation.method import Part, Seen
from lauter.models import Network, count_flops


class Teacher(Protocol):
    """What a distillation stage needs of a teacher.

    Attributes:
        name: for messages.
        shows: the parts of :class:`Seen` that it fills.
        flops_per_image: what showing one image costs.
    """

    name: str
    shows: frozenset[Part]
    flops_per_image: float

    def begin_epoch(self) -> None:
        """Run before the first step of an epoch."""
        ...

    def see(self, batch: Batch) -> Seen:
        """What it shows of the first view of a batch, or of this process's part of it."""
        ...


class LiveTeacher:
    """A network that sees the very pictures that the student sees, at the price of a forward pass.

    Args:
        network: frozen here, and kept in eval mode.
        device: where the batches are.
        want_maps: whether its feature maps are shown too.
    """

    def __init__(self, network: Network, device: torch.device, *, want_maps: bool = False) -> None:
        self.name = network.name
        self.network = network.requires_grad_(False).eval()
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        maps: frozenset[Part] = frozenset({"maps"}) if want_maps else frozenset()
        self.shows: frozenset[Part] = live_parts(network) | maps
        self.flops_per_image = float(count_flops(network))

    def begin_epoch(self) -> None:
        """The network stays in eval mode, whatever else is set to training."""
        self.network.eval()

    @torch.no_grad()
    def see(self, batch: Batch) -> Seen:
        """Features, logits where it has a classifier, maps where they were asked for."""
        logits, features, maps = self.network(batch.images, want_maps="maps" in self.shows)
        return Seen(features, logits if self.network.num_classes else None, maps)


def live_parts(network: Network) -> frozenset[Part]:
    """What a network shows without further cost: features, and logits where it has a classifier."""
    return frozenset({"features", "logits"} if network.num_classes else {"features"})
