"""The one inference pass that beliefs, features, banks and evaluation all use.

Several processes share it: they take turns by whole batches, and all get all predictions. So an image is in
the same company as with one process, and its predictions are the same bit for bit.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lauter.data.batches import read_in_order
from lauter.data.dataset import Images, Int64s
from lauter.data.group import Group
from lauter.data.views import IDENTITY, ViewRecipe
from lauter.models.network import Network, Output
from lauter.training.runtime import Runtime


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a network says about images, in the order asked for.

    Attributes:
        logits: float32 [N, K].
        features: float32 [N, D].
    """

    logits: Tensor
    features: Tensor

    def classes(self) -> NDArray[np.int64]:
        """[N] the most probable class of each image."""
        return np.asarray(self.logits.argmax(1).numpy(), dtype=np.int64)


def predict(
    network: Network,
    images: Images,
    runtime: Runtime,
    *,
    index: Int64s | None = None,
    image_size: int | None = None,
    batch_size: int = 512,
    view: tuple[ViewRecipe, int, int] = (IDENTITY, 0, 0),
) -> Predictions:
    """Run a network over images in eval mode and leave every part of it in the mode it was in.

    Args:
        network: put into eval mode meanwhile, and on the runtime's device.
        images: what to read.
        runtime: device and precision.
        index: rows to predict, all where None.
        image_size: side of the pictures handed to the network; its own input size where None.
        batch_size: images at a time, in each process.
        view: (recipe, seed, view number) of the pictures, the same as in training; the unchanged image by
            default.

    Returns:
        Predictions for ``index`` in its order, on the host.
    """
    logits, features = [torch.zeros(0, network.num_classes)], [torch.zeros(0, network.feature_size)]
    for part in stream_predictions(
        network, images, runtime, index=index, image_size=image_size, batch_size=batch_size, view=view
    ):
        logits.append(part.logits)
        features.append(part.features)
    return Predictions(torch.cat(logits), torch.cat(features))


@torch.no_grad()
def stream_predictions(
    network: Network,
    images: Images,
    runtime: Runtime,
    *,
    index: Int64s | None = None,
    image_size: int | None = None,
    batch_size: int = 512,
    view: tuple[ViewRecipe, int, int] = (IDENTITY, 0, 0),
) -> Generator[Predictions]:
    """What :func:`predict` gives, batch by batch: for more images than their predictions fit into memory.

    Args:
        network: put into eval mode until the last batch is given, and on the runtime's device.
        images: what to read.
        runtime: device and precision.
        index: rows to predict, all where None.
        image_size: side of the pictures handed to the network; its own input size where None.
        batch_size: images at a time, in each process.
        view: (recipe, seed, view number) of the pictures.

    Yields:
        Predictions of each batch of ``index``, of all processes together, in its order, on the host.
    """
    rows = np.arange(len(images)) if index is None else np.asarray(index, dtype=np.int64)
    size = image_size or network.input_spec.size
    runtime.place(network)
    with eval_mode(network):
        workers, group = runtime.config.workers, runtime.group
        together, first = batch_size * group.size, batch_size * group.rank
        rounds = [rows[start : start + together] for start in range(0, len(rows), together)]
        # Every process takes as many batches, so that what is split over them runs in step.
        own = [part[first : first + batch_size] if first < len(part) else part[:1] for part in rounds]
        index = np.concatenate([rows[:0], *own])
        read = read_in_order(images, index, batch_size, size, runtime.device, workers, view)
        for part, batch in zip(rounds, read, strict=True):
            with runtime.autocast():
                output = network(batch.images)
            logits, features = _gather_batches(output, group, batch_size, len(part))
            yield Predictions(logits.float().cpu(), features.float().cpu())


def _gather_batches(output: Output, group: Group, batch_size: int, count: int) -> tuple[Tensor, Tensor]:
    """Logits and features of one batch of every process; only the last batches may be shorter."""
    if group.size == 1:
        return output.logits, output.features
    short = batch_size - len(output.logits)
    whole = [F.pad(values, (0, 0, 0, short)) for values in (output.logits, output.features)]
    logits, features = group.gather(whole, batch_size * group.size)
    return logits[:count], features[:count]


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Eval mode for a while; parts that were frozen in eval mode before stay there afterwards."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
