"""Yardsticks: training in a loop as it is usually written, and in a bare one, to measure speed by.

In the usual loop images pass through PIL one by one in a DataLoader, everything is float32 in the default
memory layout, and the teacher, where there is one, runs in every step. The bare loop has no data at all: what
it reaches is the limit for any loop around the same network. Written here from scratch, for measuring alone.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
import torchvision.transforms as T
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lauter.models import Network
from lauter.models.catalog import CIFAR_MEAN, CIFAR_STD
from lauter.training.runtime import Runtime
from lauter.training.schedule import OptimizerConfig, make_optimizer


class PictureFolder(Dataset[tuple[Tensor, int]]):
    """Pictures in memory, decoded to PIL and transformed one at a time."""

    def __init__(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        self.pictures = [Image.fromarray(picture.transpose(1, 2, 0)) for picture in pixels]
        self.labels = labels
        self.transform = T.Compose(
            [
                T.RandomCrop(pixels.shape[-1], padding=4),
                T.RandomHorizontalFlip(),
                T.ToTensor(),
                T.Normalize(CIFAR_MEAN, CIFAR_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.transform(self.pictures[row]), int(self.labels[row])


def time_yardstick(
    pictures: PictureFolder,
    student: Network,
    teacher: Network | None = None,
    compare: Callable[[Tensor, Tensor], Tensor] | None = None,
    embed: nn.Module | None = None,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    beta: float = 6.0,
) -> float:
    """Images per second of one epoch; student, teacher and embedding are moved to the device before it.

    Args:
        pictures: the images.
        student: trained; its input is normalised by the transform.
        teacher: runs in every step; without one the labels alone teach.
        compare: student's and teacher's features [B, D] to a loss [B].
        embed: student's features to the teacher's width; as they are where None.
        batch_size: images in a step.
        workers: processes that load.
        device: where the networks run.
        beta: weight of the features' loss.
    """
    embed = nn.Identity() if embed is None else embed
    for module in (student.train(), embed, *(() if teacher is None else (teacher.eval(),))):
        module.to(device, memory_format=torch.contiguous_format)
    parameters = [*student.parameters(), *embed.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4)
    began, seen, total = time.perf_counter(), 0, 0.0
    for images, labels in _load(pictures, batch_size, workers, device):
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        features, _ = student.backbone(images)
        loss = nn.functional.cross_entropy(student.head(features), labels)
        if teacher is not None and compare is not None:
            with torch.no_grad():
                wanted, _ = teacher.backbone(images)
            loss = loss + beta * compare(embed(features), wanted).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        total += loss.item()  # as loops usually do, for their running mean
        seen += len(images)
    return seen / (time.perf_counter() - began)


def time_yardstick_data(
    pictures: PictureFolder, *, batch_size: int, workers: int, device: torch.device
) -> float:
    """Images per second of the usual data path alone, over one epoch; arguments as above."""
    began, seen = time.perf_counter(), 0
    for images, _ in _load(pictures, batch_size, workers, device):
        seen += len(images.to(device, non_blocking=True))
    return seen / (time.perf_counter() - began)


def _load(
    pictures: PictureFolder, batch_size: int, workers: int, device: torch.device
) -> DataLoader[tuple[Tensor, int]]:
    return DataLoader(
        pictures,
        batch_size,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        pin_memory=device.type == "cuda",
    )


def time_bare(
    network: Network, runtime: Runtime, config: OptimizerConfig, *, batch_size: int, steps: int
) -> float:
    """Images per second of forward pass, backward pass and step on random tensors: the limit for any loop.

    Precision, memory layout and optimiser are those of this library, so that the loop alone is compared.

    Args:
        network: trained; placed on the device.
        runtime: device and precision.
        config: of the optimiser.
        batch_size: images in a step.
        steps: how many.
    """
    runtime.place(network.train())
    size = network.input_spec.size
    shape = (batch_size, 3, size, size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=runtime.device)
    labels = torch.randint(0, network.num_classes, (batch_size,), device=runtime.device)
    optimizer = make_optimizer(network.parameters(), config)
    began = time.perf_counter()
    for _ in range(steps):
        with runtime.autocast():
            loss = nn.functional.cross_entropy(network(images).logits, labels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    if runtime.device.type != "cpu":
        torch.accelerator.synchronize()
    return steps * batch_size / (time.perf_counter() - began)
