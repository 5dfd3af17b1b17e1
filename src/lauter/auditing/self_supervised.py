"""Features without any weights at hand: SimCLR trained on the audited images themselves, labels unused."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from lauter.data.batches import read_in_order
from lauter.data.dataset import Dataset, ResidentImages
from lauter.data.loading import SMALL_SIDE
from lauter.data.opening import RESIDENT_LIMIT
from lauter.errors import ConfigError, DataError, ModelError
from lauter.models import Network, create_network, default_networks, load_network, save_network
from lauter.noisy.pretrain import PretrainConfig
from lauter.noisy.recipe import pretrain
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Loop
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime
from lauter.training.setup import Setup, draw_from

VERSION = 1
"""Changes whenever the same settings would train another network."""
PHOTO_SIZE = 64
"""Side in pixels at which larger images are learnt from, where the caller names none."""
FEWEST_IMAGES = 4
_READ_AT_ONCE = 256


@dataclass(frozen=True)
class SelfSupervisedConfig:
    """How features are learnt from the images alone.

    Attributes:
        network: name of the network; chosen by picture size where empty.
        image_size: side of the pictures in pixels; 0 keeps that of small images and takes 64 for larger ones.
        augment: digits (no flips) or objects.
        least_images: an epoch shows at least so many: fewer images are shown several times in one, as they
            would else be met in too few steps to teach anything. 0 shows each image once.
        seed: of everything drawn.
        pretrain: the training. Nothing follows it by labels: monitor_every must be 0.
    """

    network: str = ""
    image_size: int = 0
    augment: Literal["digits", "objects"] = "objects"
    least_images: int = 4096
    seed: int = 0
    pretrain: PretrainConfig = field(default_factory=lambda: PretrainConfig(monitor_every=0))

    def __post_init__(self) -> None:
        if self.augment not in ("digits", "objects"):
            raise ConfigError(f"augment must be digits or objects, not {self.augment!r}")
        if self.image_size and not 8 <= self.image_size <= 1024:
            raise ConfigError(f"image_size must be 8 to 1024 pixels (0: automatic), not {self.image_size}")
        if self.seed < 0 or self.least_images < 0:
            raise ConfigError(
                f"seed and least_images must be 0 or more, not {self.seed} and {self.least_images}"
            )
        if self.pretrain.method == "none":
            raise ConfigError("features are learnt by pretrain.method simclr or moco, not none")
        if self.pretrain.monitor_every:
            raise ConfigError(
                "features for an audit are learnt without a look at labels: pretrain.monitor_every must be "
                f"0, not {self.pretrain.monitor_every}"
            )


def learn_features(
    data: Dataset, runtime: Runtime, root: str | Path, config: SelfSupervisedConfig, progress: Progress
) -> Network:
    """A network trained on the images of a data set, labels unused; trained once and kept.

    It is kept in a folder named after images and settings, and found there by the next audit of the same
    images, whatever their labels. A training that was stopped goes on from its last checkpoint. Images that
    stream are decoded once, where their pictures of this size fit into memory.

    Args:
        data: whose images; labels are not looked at.
        runtime: device and precision. They are not part of what the network is kept under.
        root: folder that such networks are kept in.
        config: how they are learnt.
        progress: who is told.

    Returns:
        A headless network in eval mode.

    Raises:
        DataError: there are too few images, or one is broken.
        ModelError: the network's name is unknown or does not suit the size.
        NonFiniteLossError: the training diverged.
        RunError: a checkpoint cannot be written or read.
        Interrupted: Ctrl-C; a checkpoint was written.

    Source: SimCLR, Chen et al. (2020), arXiv 2002.05709, or MoCo v2 (see :mod:`lauter.noisy.pretrain`); that
        an audit stands on such features is ours.
    """
    if len(data) < FEWEST_IMAGES:
        raise DataError(
            f"{data.name}: {len(data)} images are too few to learn features from (at least {FEWEST_IMAGES}); "
            "take a backbone with weights, or a features file"
        )
    size = config.image_size or choose_learning_size(data)
    name = config.network or default_networks(size)[0]
    folder = Path(root).expanduser() / f"{config.pretrain.method}-{_digest(data, config, name, size)}"
    file = folder / "network.safetensors"
    if file.is_file():
        return _reload(file)
    training = replace(config.pretrain, epochs=count_epochs(config, len(data)))
    progress.say(
        f"features    {config.pretrain.method}: {name} learns from {len(data):,} images of {size} px without "
        f"labels, {training.epochs} epochs"
    )
    unlabelled = replace(
        data.without_truth().with_labels(np.full(len(data), -1)), original_labels=None, trusted=None
    )
    with draw_from(config.seed, "features"):
        network = create_network(name, 0, image_size=size)
    nothing = np.zeros(0, dtype=np.int64)
    setup = Setup(
        hold_pictures(unlabelled, size, runtime, progress),
        train=np.arange(len(data)),
        holdout=nothing,
        test=None,
        loop=Loop(runtime, Checkpoints(folder), progress, config.seed),
        image_size=size,
        augment=config.augment,
    )
    pretrain(setup, network, training)
    network.cpu().eval()
    save_network(network, file, class_names=())
    (folder / f"{config.pretrain.stage_name}.pt").unlink(missing_ok=True)  # the network is what is kept
    return network


def count_epochs(config: SelfSupervisedConfig, images: int) -> int:
    """Passes over so many images, lengthened where an epoch has fewer than ``config.least_images``.

    Example:
        >>> count_epochs(SelfSupervisedConfig(pretrain=PretrainConfig(epochs=60, monitor_every=0)), 1024)
        240
    """
    return math.ceil(config.pretrain.epochs * max(1.0, config.least_images / images))


def choose_learning_size(data: Dataset) -> int:
    """Side in pixels at which images are learnt from: their own where they are small, else 64."""
    pixels = data.images.uniform
    side = SMALL_SIDE + 1 if pixels is None else int(min(pixels.shape[-2:]))
    return side if side <= SMALL_SIDE else PHOTO_SIZE


def hold_pictures(
    data: Dataset, size: int, runtime: Runtime, progress: Progress, limit: int = RESIDENT_LIMIT
) -> Dataset:
    """The same data with its pictures in memory at a size, so that no epoch decodes them again.

    Args:
        data: images that are resident, or too many, are left as they are.
        size: side in pixels; the short side becomes it, and the middle is kept.
        runtime: how many processes read.
        progress: who is told.
        limit: bytes that the pictures may take.
    """
    if data.images.uniform is not None or len(data) * 3 * size * size > limit:
        return data
    pixels = np.empty((len(data), 3, size, size), dtype=np.uint8)
    rows, done = np.arange(len(data)), 0
    progress.say(f"features    decoding {len(data):,} images once, at {size} px")
    for batch in read_in_order(
        data.images, rows, _READ_AT_ONCE, size, torch.device("cpu"), runtime.config.workers
    ):
        pixels[done : done + len(batch)] = batch.images.numpy()
        done += len(batch)
    return replace(data, images=ResidentImages(pixels))


def _digest(data: Dataset, config: SelfSupervisedConfig, name: str, size: int) -> str:
    settings = {**asdict(config), "network": name, "image_size": size}
    content: Sequence[object] = [VERSION, data.fingerprint_images(), settings]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _reload(file: Path) -> Network:
    try:
        return load_network(file)[0]
    except ModelError as error:
        raise ModelError(f"{error}. Delete {file.parent} to have the features learnt again") from error
