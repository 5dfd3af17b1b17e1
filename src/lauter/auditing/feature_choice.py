"""Which features an audit stands on: a backbone's, a file's, an array's, or ones learnt from the images."""

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from numpy.typing import NDArray

from lauter.auditing.extraction import extract_features
from lauter.auditing.feature_store import DTYPES
from lauter.auditing.features import Features, take_array
from lauter.auditing.self_supervised import SelfSupervisedConfig, count_epochs, learn_features
from lauter.data.dataset import Dataset
from lauter.distillation.stored import is_features_file, read_features
from lauter.errors import ConfigError, ModelError
from lauter.models import CIFAR_ZOO, Network, create_network, load_network
from lauter.training.processes import Processes
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime

SELF_SUPERVISED = "simclr"
"""The spec of features that are learnt from the images themselves; also what no spec means."""
CACHE_VARIABLE = "LAUTER_CACHE"

FeatureSpec = str | Path | Network | NDArray[Any] | torch.Tensor | None


@dataclass(frozen=True)
class FeatureConfig:
    """How features are computed and kept.

    Attributes:
        weights: a local weights file for a backbone that is given by name; its pretrained weights where
            empty.
        image_size: side in pixels of a backbone's input; 0 takes its own.
        dtype: float16 or float32, of features on disk.
        batch_size: images at a time.
        store: folder that features are kept in and found again by later audits; the user's cache where empty
            (LAUTER_CACHE, else lauter in XDG_CACHE_HOME or ~/.cache).
        row_order: whether the rows of a .npy file without ids stand in the data's order.
        wait_seconds: of several processes, how long the first waits for the next shard of the others.
        learning: how features are learnt where no weights are at hand.
    """

    weights: str = ""
    image_size: int = 0
    dtype: Literal["float16", "float32"] = "float16"
    batch_size: int = 128
    store: str = ""
    row_order: bool = False
    wait_seconds: float = 1800.0
    learning: SelfSupervisedConfig = field(default_factory=SelfSupervisedConfig)

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"features are stored as {' or '.join(DTYPES)}, not {self.dtype!r}")
        if self.image_size < 0 or self.batch_size < 1 or not self.wait_seconds > 0:
            raise ConfigError(
                "features need image_size 0 or more, batch_size 1 or more and wait_seconds above 0, not "
                f"{self.image_size}, {self.batch_size} and {self.wait_seconds}"
            )


def choose_features(
    spec: FeatureSpec,
    data: Dataset,
    runtime: Runtime,
    *,
    config: FeatureConfig | None = None,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> Features | None:
    """The features that were asked for, of every image of a data set; labels are not looked at.

    Args:
        spec: 'simclr' or None (learnt from the images themselves); a backbone's name (``timm:NAME``,
            ``torchvision:NAME``; one of the CIFAR zoo with ``config.weights``); the path of a network file of
            this library; a Network; the path of a features file (.npy, .safetensors or .parquet, joined by
            ids); or an array or tensor [N, D] in the data set's order.
        data: images.
        runtime: device and precision.
        config: how they are computed and kept.
        processes: this process's place among several, which share the pass of a backbone; alone where None.
        progress: who is told.

    Returns:
        The features; None in a process that only helped with the pass and is now done.

    Raises:
        ConfigError: a setting does not go with the spec, or several processes would have to train.
        DataError: given features do not fit the data, or an image is broken.
        ModelError: there is no such backbone, or its weights cannot be had or do not fit.
        RunError: the disk does not take the features, or other processes do not deliver theirs.
    """
    config, progress, place = config or FeatureConfig(), progress or Progress(), processes or Processes()
    if not isinstance(spec, str | Path | Network) and spec is not None:
        return take_array(_to_array(spec), data.ids) if place.leads else None
    if isinstance(spec, str | Path) and is_features_file(Path(spec).expanduser()):
        if not place.leads:
            return None
        stored = read_features(spec, data.ids, row_order=config.row_order)
        return take_array(stored.features.numpy(), data.ids, f"features file {stored.name}")
    if config.row_order:
        raise ConfigError(f"row_order is for features files (.npy), and the features are {_name(spec)}")
    root = Path(config.store) if config.store else locate_store()
    named = isinstance(spec, str) and spec != SELF_SUPERVISED and not _is_path(spec)
    if not named and (config.weights or config.image_size):
        raise ConfigError(
            f"features.weights and features.image_size are for a backbone that is given by name, and the "
            f"features are {_name(spec)}; leave {config.weights or config.image_size!r} out"
        )
    began, trained_in = time.monotonic(), 0.0
    if spec is None or spec == SELF_SUPERVISED:
        if place.size > 1:
            raise ConfigError(
                f"WORLD_SIZE is {place.size}, but features are learnt from the images by one process; start "
                "it without torchrun, or name a backbone with weights"
            )
        learning = config.learning
        network = learn_features(data, runtime, root, learning, progress)
        trained_in = time.monotonic() - began
        source = (
            f"{learning.pretrain.method} on these images ({network.name}, "
            f"{count_epochs(learning, len(data))} epochs), {network.input_spec.size} px"
        )
    elif isinstance(spec, Network):
        network, source = spec, f"{spec.name}, {spec.input_spec.size} px"
    else:
        network, source = open_backbone(spec, config)
    found = extract_features(
        network,
        data,
        runtime,
        root,
        source=source,
        dtype=config.dtype,
        batch_size=config.batch_size,
        processes=place,
        wait_seconds=config.wait_seconds,
        progress=progress,
    )
    return None if found is None else replace(found, seconds=found.seconds + trained_in)


def locate_store() -> Path:
    """The user's folder of stored features: LAUTER_CACHE, else lauter in XDG_CACHE_HOME or ~/.cache."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lauter"


def open_backbone(spec: str | Path, config: FeatureConfig) -> tuple[Network, str]:
    """A network with weights, and where they come from, for people.

    Args:
        spec: the path of a network file, or a name of the catalogue.
        config: names a weights file and the input size.

    Raises:
        ModelError: there is no such network, or its weights cannot be had or do not fit.
    """
    if _is_path(spec):
        path = Path(spec).expanduser()
        if path.is_dir():
            raise ModelError(
                f"{str(spec)!r} is a folder; name the network's file in it, teacher.safetensors say"
            )
        network, _ = load_network(path)
        return network, f"{network.name} of {path.name}, {network.input_spec.size} px"
    size = config.image_size or None
    try:
        if config.weights:
            weights = Path(config.weights).expanduser()
            network = create_network(str(spec), 0, image_size=size, weights=weights, load_head=False)
        else:
            network = create_network(str(spec), 0, image_size=size, pretrained=True)
    except ModelError as error:
        raise ModelError(
            f"{error}. A backbone takes its weights from a local file, too (features.weights FILE); or give "
            f"a features file (.npy, .safetensors, .parquet), or {SELF_SUPERVISED!r}, which needs no weights"
        ) from error
    of = Path(config.weights).name if config.weights else "its pretrained weights"
    return network.eval(), f"{network.name} with {of}, {network.input_spec.size} px"


def _is_path(spec: str | Path) -> bool:
    """Whether a spec means a file: it names none of the catalogue, and is there or is called like weights."""
    if isinstance(spec, str) and (spec in CIFAR_ZOO or spec.partition(":")[0] in ("timm", "torchvision")):
        return False
    path = Path(spec).expanduser()
    return isinstance(spec, Path) or path.exists() or path.suffix in (".safetensors", ".pt", ".pth")


def _name(spec: str | Path | Network | None) -> str:
    if isinstance(spec, Network):
        return f"those of the network {spec.name!r}"
    return repr(SELF_SUPERVISED if spec is None else str(spec))


def _to_array(spec: Any) -> Any:
    """What NumPy takes; it knows no bfloat16."""
    if not isinstance(spec, torch.Tensor):
        return spec
    values = spec.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
