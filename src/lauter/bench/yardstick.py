"""A yardstick: feature distillation in a loop as it is usually written, to measure this library's speed by.

Images pass through PIL one by one in a DataLoader, everything is float32 in the default memory layout, and
the teacher runs in every step. Written here from scratch, for measuring alone.
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
    teacher: Network,
    compare: Callable[[Tensor, Tensor], Tensor],
    embed: nn.Module,
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
        teacher: runs in every step.
        compare: student's and teacher's features [B, D] to a loss [B].
        embed: student's features to the teacher's width.
        batch_size: images in a step.
        workers: processes that load.
        device: where the networks run.
        beta: weight of the features' loss.
    """
    student, teacher = student.train(), teacher.eval()
    plain = torch.contiguous_format
    for module in (student, teacher, embed):
        module.to(device, memory_format=plain)  # type: ignore[call-overload]
    parameters = [*student.parameters(), *embed.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4)
    loader: DataLoader[tuple[Tensor, int]] = DataLoader(
        pictures,
        batch_size,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        pin_memory=device.type == "cuda",
    )
    began, seen, total = time.perf_counter(), 0, 0.0
    for images, labels in loader:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        with torch.no_grad():
            wanted, _ = teacher.backbone(images)
        features, _ = student.backbone(images)
        logits = student.head(features)
        loss = nn.functional.cross_entropy(logits, labels) + beta * compare(embed(features), wanted).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        total += loss.item()  # as loops usually do, for their running mean
        seen += len(images)
    return seen / (time.perf_counter() - began)
