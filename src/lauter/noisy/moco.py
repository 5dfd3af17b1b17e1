"""What MoCo remembers: the network that makes keys, and the keys of the images that came last."""

import copy

import torch
from torch import Tensor, nn

from lauter.errors import ConfigError

GROUPS = 8
"""Parts of a batch in which keys are made, as many as the source has devices."""
SMALLEST_GROUP = 8
"""Images in such a part at least; fewer would leave batch normalisation too little to go by."""


class MomentumEncoder:
    r"""A copy of an encoder that follows it slowly, and makes the keys.

    .. math:: \theta_k \leftarrow m \theta_k + (1 - m) \theta_q

    Where query and key of an image were normalised by the same batch, they would know each other by its
    statistics, and nothing need be learnt to tell them from the queue. So keys are made in groups of the
    batch, drawn anew in each step.

    Source: He et al. (2020), arXiv 1911.05722. Departures: there the groups are the parts of a batch that
    several devices get, shuffled for the keys, and queries are made in such parts too.

    Attributes:
        shadow: makes the keys; to be kept in training mode.

    Args:
        encoder: what is followed.
        momentum: m, in [0, 1), constant from the first step on: were it lower at first, all images would fall
            into one moving point, which its older keys are easily told from.
    """

    def __init__(self, encoder: nn.Module, momentum: float) -> None:
        self.momentum = momentum
        self.shadow = copy.deepcopy(encoder).requires_grad_(False)
        self._source = encoder

    @torch.no_grad()
    def make_keys(self, pixels: Tensor, processes: int = 1) -> Tensor:
        """Keys [B, d] of raw-scale pixels [B, 3, H, W]; the groups are drawn from torch's generator.

        Args:
            pixels: of the whole batch, or of this process's part.
            processes: how many have a part; they share the groups out.
        """
        order = torch.randperm(len(pixels), device=pixels.device)
        groups = max(1, min(-(-GROUPS // processes), len(pixels) // SMALLEST_GROUP))
        keys = torch.cat([self.shadow(pixels[group]) for group in order.tensor_split(groups)])
        return keys[order.argsort()]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the encoder's present weights; statistics are those of the shadow's own batches."""
        torch._foreach_lerp_(
            list(self.shadow.parameters()), list(self._source.parameters()), 1 - self.momentum
        )


class KeyQueue:
    """The newest keys, and which image each of them is of. It is empty at first and grows to its length.

    An image comes once in an epoch, but in another order in each: it may come again before its key of the
    epoch before has left the queue. :meth:`own` marks those keys, so that no image is told from itself.

    Source: He et al. (2020), arXiv 1911.05722. Departures: it begins empty, not with random vectors, and
    knows whose its keys are.

    Attributes:
        keys: float32 [M, d], newest first; M is at most ``length``.
        images: int64 [M], rows of the data set.

    Args:
        length: Q, how many keys are held.
        size: d, their width.
        device: where they are held.

    Raises:
        ConfigError: ``length`` is below 1.
    """

    def __init__(self, length: int, size: int, device: torch.device | str = "cpu") -> None:
        if length < 1:
            raise ConfigError(f"a queue must hold 1 key or more, not {length}")
        self.length = length
        self.keys = torch.zeros(0, size, device=device)
        self.images = torch.zeros(0, dtype=torch.int64, device=device)

    def own(self, images: Tensor) -> Tensor:
        """Whose keys are whose: bool [B, M], true where a key of the queue is of the image [B] itself."""
        return images[:, None] == self.images

    def push(self, keys: Tensor, images: Tensor) -> None:
        """Take in the keys [B, d] of images [B]; the oldest ones leave where there is no room."""
        keys, images = keys.detach()[: self.length], images[: self.length]
        room = self.length - len(keys)
        self.keys = torch.cat([keys, self.keys[:room]])
        self.images = torch.cat([images, self.images[:room]])

    def state(self) -> dict[str, Tensor]:
        """For a stage's checkpoint."""
        return {"keys": self.keys, "images": self.images}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what :meth:`state` gave."""
        self.keys = state["keys"].to(self.keys.device)
        self.images = state["images"].to(self.images.device)


def limit_queue(queue: int, images: int) -> int:
    """The length of a queue: as asked for, but no more than half of the images.

    A longer one would hold keys from most of an epoch ago, by a network that has moved on since, and at the
    length of an epoch a key of every image twice.

    Example:
        >>> limit_queue(4096, 50_000), limit_queue(4096, 1_000)
        (4096, 500)
    """
    return max(1, min(queue, images // 2))
