"""Contrastive losses of self-supervised learning: two views of an image attract, other images repel."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lauter.errors import ModelError
from lauter.losses.geometry import split_features
from lauter.losses.inputs import lift, no_autocast, require_pair, require_positive, require_shape


def nt_xent(first: Tensor, second: Tensor, temperature: float = 0.5) -> Tensor:
    r"""Normalised, temperature-scaled cross-entropy between two views of each image (SimCLR).

    .. math:: \ell_b = \frac12 (\ell(b, b') + \ell(b', b)), \qquad
              \ell(i, j) = -\log \frac{\exp(u_i \cdot u_j / \tau)}{\sum_{k \ne i} \exp(u_i \cdot u_k / \tau)}

    where u are the 2B projections at unit length, and b' is the other view of image b.

    Args:
        first: [B, d] projections of one view, gradient flows.
        second: [B, d] projections of the other view, gradient flows.
        temperature: tau, positive, without unit.

    Returns:
        [B], averaged over the two views of each image, in nats, float32 at least whatever the autocast. One
        image alone has nothing to be told from, and the loss 0.

    Raises:
        ModelError: the shapes differ; the message names both.
        ConfigError: the temperature is not positive.

    Example:
        >>> nt_xent(torch.eye(2), torch.eye(2), temperature=1.0)
        tensor([0.5514, 0.5514])

    Source: Chen et al. (2020), arXiv 2002.05709. Departures: averaged per image and not over the batch.
    """
    require_pair(first, second, "the projections of the two views")
    require_positive(temperature, "temperature", "0.1 to 0.5 is usual")
    with no_autocast(first):
        units = split_features(torch.cat(lift(first, second)))[1]
        similarity = units @ units.T / temperature
        similarity = similarity.masked_fill(
            torch.eye(len(units), dtype=torch.bool, device=units.device), -math.inf
        )
        partner = torch.arange(len(units), device=units.device).roll(len(first))
        return F.cross_entropy(similarity, partner, reduction="none").view(2, -1).mean(0)


def info_nce_queue(
    query: Tensor, key: Tensor, queue: Tensor, temperature: float = 0.2, *, own: Tensor | None = None
) -> Tensor:
    r"""InfoNCE of a query against its key and a queue of the keys of other images (MoCo).

    .. math:: \ell_b = -\log \frac{\exp(q_b \cdot k_b / \tau)}
              {\exp(q_b \cdot k_b / \tau) + \sum_{m \notin O_b} \exp(q_b \cdot n_m / \tau)}

    with all vectors at unit length, and O_b the rows of the queue that are of image b itself.

    Args:
        query: [B, d] projections by the network, gradient flows.
        key: [B, d] projections of the other view by the momentum network, detached here.
        queue: [Q, d] keys of earlier images, detached here.
        temperature: tau, positive, without unit.
        own: bool [B, Q], whether a row of the queue is an earlier key of the very image: such a row is no
            negative. Where None, none is.

    Returns:
        [B], in nats, float32 at least whatever the autocast. An image without any negative has the loss 0.

    Raises:
        ModelError: the shapes do not fit, or ``own`` is no mask; the message names them.
        ConfigError: the temperature is not positive.

    Example:
        >>> info_nce_queue(torch.eye(2), torch.eye(2), torch.tensor([[0.0, 0.0]]), temperature=1.0)
        tensor([0.3133, 0.3133])

    Source: He et al. (2020), arXiv 1911.05722; the temperature of v2, Chen et al. (2020), arXiv 2003.04297.
    Departures: ``own`` is ours; in data sets that are many times longer than the queue it hardly matters.
    """
    require_pair(query, key, "query and key")
    require_positive(temperature, "temperature", "0.07 to 0.2 is usual")
    if queue.ndim != 2 or queue.shape[1] != query.shape[1]:
        raise ModelError(
            f"the queue must be [Q, d] beside a query {list(query.shape)}, not {list(queue.shape)}; "
            "its rows are the keys of earlier images"
        )
    if own is not None:
        beside = f"a query {list(query.shape)} and a queue {list(queue.shape)}"
        require_shape(own, (len(query), len(queue)), "own", beside)
        if own.dtype != torch.bool:
            raise ModelError(f"own must be a mask of bool, not {own.dtype}; compare the images of both sides")
    with no_autocast(query):
        query, key, queue = lift(query, key.detach(), queue.detach())
        query, key, queue = (split_features(vectors)[1] for vectors in (query, key, queue))
        positive = (query * key).sum(1, keepdim=True)
        negatives = query @ queue.T
        if own is not None:
            negatives = negatives.masked_fill(own, -math.inf)
        logits = torch.cat([positive, negatives], dim=1) / temperature
        return torch.logsumexp(logits, dim=1) - logits[:, 0]
