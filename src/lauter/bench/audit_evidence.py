"""What the judges of the audit's measurement stand on: out-of-fold beliefs, made once for each data set."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lauter.auditing.evidence import EvidenceConfig, gather_evidence
from lauter.auditing.feature_choice import FeatureConfig, choose_features
from lauter.auditing.self_supervised import SelfSupervisedConfig
from lauter.auditing.training_evidence import believe_by_training
from lauter.bench.memory import read_peak, reset_peak
from lauter.bench.scores import add_costs
from lauter.config import load_preset
from lauter.data import Dataset
from lauter.data.counters import derive_seed
from lauter.errors import ConfigError, RunError
from lauter.files import atomic_path, read_json, write_json
from lauter.models import Network, create_network
from lauter.noisy.beliefs import Floats
from lauter.noisy.pretrain import PretrainConfig
from lauter.noisy.recipe import NoisyConfig
from lauter.noisy.rivals.confident import predict_out_of_fold
from lauter.noisy.rivals.rival import Ground
from lauter.noisy.robust import RobustConfig
from lauter.noisy.top_beliefs import TopBeliefs
from lauter.noisy.warmup import WarmupConfig
from lauter.run import RunDirectory
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Loop
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime, RuntimeConfig
from lauter.training.schedule import OptimizerConfig
from lauter.training.setup import Setup, draw_from
from lauter.training.supervised import SupervisedConfig

PIXELS = "pixels"
"""Features that are the grey picture itself."""


@dataclass(frozen=True)
class AuditBenchConfig:
    """Where beliefs come from, the same for every data set and every judge.

    Attributes:
        network: name of the networks.
        augment: how views are made: digits (no flips) or objects.
        pretrain: the self-supervised training of the features, and before robust training.
        evidence: how features become beliefs.
        warmup: of robust training.
        robust: robust training.
        supervised: of the plain networks; 20 epochs, before most wrong labels are known by heart.
        folds: of the plain networks.
    """

    network: str = "resnet20"
    augment: Literal["digits", "objects"] = "objects"
    pretrain: PretrainConfig = field(default_factory=lambda: PretrainConfig(monitor_every=0))
    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    robust: RobustConfig = field(default_factory=RobustConfig)
    supervised: SupervisedConfig = field(
        default_factory=lambda: SupervisedConfig(epochs=20, optimizer=OptimizerConfig(lr=0.1, warmup=0.03))
    )
    folds: int = 2

    @classmethod
    def from_preset(cls, name: str) -> "AuditBenchConfig":
        """With the lengths of a preset of ``lauter fit``: quick, standard or thorough.

        Raises:
            ConfigError: there is no such preset.
        """
        preset = load_preset(name)
        return cls(
            pretrain=replace(preset.pretrain, monitor_every=0), warmup=preset.warmup, robust=preset.robust
        )


@dataclass(frozen=True, eq=False)
class Unit:
    """One data set with one seed, before anything is believed of it.

    Attributes:
        data: images and given labels; never the truth.
        seed: of everything drawn.
        features: simclr, pixels, a backbone's name, or a features file.
        run: where networks and beliefs are kept.
        store: where features are kept, for all seeds and data sets.
        runtime: device and precision.
        progress: who is told.
        config: where beliefs come from.
    """

    data: Dataset
    seed: int
    features: str | Path
    run: RunDirectory
    store: Path
    runtime: RuntimeConfig
    progress: Progress
    config: AuditBenchConfig

    def make_setup(self) -> Setup:
        """Common ground of stages that train on the images."""
        pixels = self.data.images.uniform
        if pixels is None:
            raise ConfigError(f"{self.data.name}: networks are trained on images in memory; these stream")
        loop = Loop(Runtime(self.runtime), Checkpoints(self.run.checkpoints), self.progress, self.seed)
        nobody = np.zeros(0, dtype=np.int64)
        everybody = np.arange(len(self.data))
        return Setup(self.data, everybody, nobody, None, loop, pixels.shape[-1], self.config.augment)

    def build(self, role: str) -> Network:
        """A network with weights drawn from (seed, role)."""
        pixels = self.data.images.uniform
        size = None if pixels is None else pixels.shape[-1]
        with draw_from(self.seed, role):
            return create_network(self.config.network, self.data.num_classes, image_size=size)


@dataclass(frozen=True, eq=False)
class Gathered:
    """Out-of-fold beliefs, what they were made of, and what making them took.

    Attributes:
        beliefs: about every image.
        features: [N, D]; None where networks gave the beliefs.
        costs: by metric: seconds of each part, peak_mib, cost_images and cost_flops through networks. What
            was found rather than made costs nothing and is not in here.
    """

    beliefs: TopBeliefs
    features: NDArray[np.float32] | None
    costs: dict[str, float]


def gather_from_features(unit: Unit) -> Gathered:
    """The audit's own way: features, then neighbours' votes and a cross-fitted head."""
    features, costs = make_features(unit)
    generator = np.random.default_rng(derive_seed(unit.seed, "evidence"))
    found = gather_evidence(
        features, unit.data.labels, unit.data.num_classes, unit.config.evidence, generator
    )
    costs["seconds_evidence"] = sum(found.seconds.values())
    return Gathered(found.beliefs, features, costs)


def make_features(unit: Unit) -> tuple[NDArray[np.float32], dict[str, float]]:
    """Features of every image, and what making them took.

    Returns:
        float32 [N, D]; and seconds_features and images_per_second, where they were not found in the store.

    Raises:
        ConfigError: the grey picture is asked for, and the images stream.
        DataError: a features file does not fit the data.
        ModelError: there is no such backbone, or its weights cannot be had.
    """
    if unit.features == PIXELS:
        pixels = unit.data.images.uniform
        if pixels is None:
            raise ConfigError(f"{unit.data.name}: its images stream; pixels are features of small images")
        return (pixels.mean(1, dtype=np.float32) / 255).reshape(len(pixels), -1), {}
    config = unit.config
    learning = SelfSupervisedConfig(
        network=config.network, augment=config.augment, seed=unit.seed, pretrain=config.pretrain
    )
    found = choose_features(
        unit.features,
        unit.data,
        Runtime(unit.runtime),
        config=FeatureConfig(store=str(unit.store), learning=learning),
        progress=unit.progress,
    )
    if found is None:
        raise RunError("features were shared out over several processes; measurements take one")
    values = np.asarray(found.values, dtype=np.float32)
    if not found.computed:
        return values, {}
    return values, {"seconds_features": found.seconds, "images_per_second": found.images_per_second}


def gather_from_networks(unit: Unit) -> Gathered:
    """The usual way elsewhere: every image is predicted by a plain network trained on the other folds."""
    setup = unit.make_setup()
    probabilities = predict_out_of_fold(
        Ground("plain", setup, unit.build, unit.config.supervised), unit.config.folds
    )
    return Gathered(TopBeliefs.from_dense(probabilities, unit.data.labels), None, _count_costs(setup))


def gather_from_training(unit: Unit) -> Gathered:
    """The audit's longer way: two robustly trained networks, each judging the half it did not learn."""
    setup, config = unit.make_setup(), unit.config
    recipe = NoisyConfig(config.pretrain, config.warmup, config.robust)
    found = believe_by_training(setup, lambda: unit.build("teacher"), recipe)
    beliefs: Floats = found.beliefs
    return Gathered(TopBeliefs.from_dense(beliefs, unit.data.labels), found.features, _count_costs(setup))


def _count_costs(setup: Setup) -> dict[str, float]:
    total = add_costs(setup.loop.costs.values())
    return {
        "seconds_evidence": total.seconds,
        "cost_images": float(total.images),
        "cost_flops": total.flops,
    }


EVIDENCE: dict[str, Callable[[Unit], Gathered]] = {
    "features": gather_from_features,
    "networks": gather_from_networks,
    "training": gather_from_training,
}
"""Ways to beliefs that know nothing of the label they judge."""


def gather(unit: Unit, kind: str) -> Gathered:
    """Beliefs by a way to them; those that the unit's folder holds are taken as they are.

    So every judge, today's and tomorrow's, sees the same ones to the last bit.

    Args:
        unit: one data set with one seed.
        kind: one of ``EVIDENCE``.

    Returns:
        The beliefs, with ``costs`` as they were measured when these were made.
    """
    place = unit.run.path / "beliefs.npz"
    if not place.exists():
        device = Runtime(unit.runtime).device
        reset_peak(device)
        made = EVIDENCE[kind](unit)
        costs = made.costs | {"peak_mib": read_peak(device)}
        write_json(unit.run.path / "costs.json", costs)
        _write_beliefs(place, replace(made, costs=costs))
    return _read_beliefs(place, read_json(unit.run.path / "costs.json"))


def _write_beliefs(place: Path, made: Gathered) -> None:
    arrays = {entry.name: np.asarray(getattr(made.beliefs, entry.name)) for entry in fields(TopBeliefs)}
    if made.features is not None:
        arrays["features"] = made.features
    with atomic_path(place) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)


def _read_beliefs(place: Path, costs: dict[str, float]) -> Gathered:
    with np.load(place, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    features = arrays.pop("features", None)
    classes = int(arrays.pop("num_classes"))
    return Gathered(TopBeliefs(**arrays, num_classes=classes), features, costs)
