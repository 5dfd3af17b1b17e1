"""Learning from noisy labels, measured: the recipe, its rivals, and the recipe with single parts changed.

One folder for each (data, seed) keeps a checkpoint of every stage, so a stopped measurement goes on where it
was. Every method trains the same network, for as many epochs on labels, on the same images; what it costs
beside that (pretraining, second networks, inference passes) is counted and shown.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from lauter.auditing.verdicts import make_label_table, score_labels
from lauter.bench.friends import VARIANTS
from lauter.bench.noisy_data import RIVAL_DATA, NoisyData
from lauter.bench.records import Record, read_parts, write_part
from lauter.bench.scores import add_costs, score_stage
from lauter.config import FitConfig, load_preset, to_plain
from lauter.data import Dataset
from lauter.errors import ConfigError
from lauter.files import read_json, write_json
from lauter.models import Network, count_flops
from lauter.noisy.estimates import estimate_noise
from lauter.noisy.judge import Judge
from lauter.noisy.recipe import NoisyConfig, pretrain, train_robustly
from lauter.noisy.rivals import METHODS as RIVALS
from lauter.noisy.rivals import train_rival
from lauter.noisy.rivals.rival import Ground
from lauter.pipeline import build_network, make_setup
from lauter.preparation import resolve_networks
from lauter.run import RunDirectory
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Cost
from lauter.training.progress import Progress
from lauter.training.runtime import RuntimeConfig
from lauter.training.setup import Setup
from lauter.training.tracking import TrackedStage

SUITE = "noisy"
NETWORK = "resnet20"
EPOCHS = 40
FROM_SSL = "-ssl"
AT_COST = "-equal-cost"
SHORT = "fnf-short"
METHODS = ("fnf", SHORT, *RIVALS, "ce-ssl", "ce-prior-ssl", "elr-ssl", "ce-equal-cost", "elr-equal-cost")
"""fnf: the recipe with its defaults; fnf-short: with half of its pretraining; the rivals; NAME-ssl: a rival
from the recipe's own self-supervised weights; NAME-equal-cost: a rival for as many operations as the whole
recipe took."""


def make_config(runtime: RuntimeConfig, seed: int) -> FitConfig:
    """The standard preset, with the same epochs on labels for every method."""
    config = load_preset("standard")
    return dataclasses.replace(
        config,
        teacher=NETWORK,
        student=NETWORK,
        seed=seed,
        robust=dataclasses.replace(config.robust, epochs=EPOCHS),
        supervised=dataclasses.replace(config.supervised, epochs=EPOCHS),
        runtime=runtime,
    )


def measure_noisy(
    name: str,
    seed: int,
    folders: tuple[Path, Path],
    work: Path,
    config: FitConfig,
    methods: Iterable[str] = METHODS,
    console: Console | None = None,
) -> list[Record]:
    """Measure methods on one data set with one seed; what has been measured is not measured again.

    Args:
        name: one of ``RIVAL_DATA``.
        seed: draws noise, hold-out, networks, order.
        folders: of CIFAR-10 and CIFAR-100, with CIFAR-10N's labels as columns of the first.
        work: where checkpoints and parts are kept.
        config: of :func:`make_config`.
        methods: among ``METHODS`` and ``lauter.bench.friends.VARIANTS``.
        console: where progress is shown.

    Returns:
        Every record of this unit so far.

    Raises:
        ConfigError: the work folder was measured with other settings, or a method is unknown.
    """
    if name not in RIVAL_DATA:
        raise ConfigError(f"data must be one of {', '.join(RIVAL_DATA)}, not {name!r}")
    data = RIVAL_DATA[name](*folders, seed)
    config = resolve_networks(dataclasses.replace(config, seed=seed), data.train)
    run = RunDirectory(work / name / str(seed))
    _keep_settings(run, config, data.train.fingerprint())
    with Progress(run.path, console) as progress:
        setup = make_setup(data.train, data.test, config, progress, run)
        unit = _Unit(setup, data, config)
        for method in methods:
            part = run.path / f"{method}.json"
            if not part.exists():
                values = unit.measure(method)
                write_part(
                    part, [Record(SUITE, name, method, seed, metric, v) for metric, v in values.items()]
                )
    return read_parts(run.path)


def _keep_settings(run: RunDirectory, config: FitConfig, fingerprint: str) -> None:
    """Write the settings, or see that those of an earlier start were the same; threads may differ."""
    runtime = dataclasses.replace(config.runtime, threads=0, workers=0)
    plain = {**to_plain(dataclasses.replace(config, runtime=runtime)), "data": fingerprint}
    place = run.path / "settings.json"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, plain)
    elif read_json(place) != plain:
        raise ConfigError(
            f"{run.path} was measured with other settings than today's; choose another --work, or remove it"
        )


@dataclass(frozen=True, eq=False)
class _Unit:
    """The methods on one data set with one seed."""

    setup: Setup
    data: NoisyData
    config: FitConfig

    def measure(self, method: str) -> dict[str, float]:
        """Train by a method and score it: {metric: value}."""
        if method == SHORT:
            return self._shorten()._measure_recipe("fnf")
        if method == "fnf" or method in VARIANTS:
            return self._measure_recipe(method)
        if method not in METHODS:
            known = ", ".join((*METHODS, *VARIANTS))
            raise ConfigError(f"method must be one of {known}, not {method!r}")
        rival = method.removesuffix(FROM_SSL).removesuffix(AT_COST)
        build = self._build_pretrained if method.endswith(FROM_SSL) else self._build
        training = self.config.supervised
        if method.endswith(AT_COST):
            training = dataclasses.replace(training, epochs=self._equal_cost_epochs())
        stage = train_rival(rival, Ground(method, self.setup, build, training))
        costs = self.setup.loop.costs
        spent = [cost for name, cost in costs.items() if name == method or name.startswith(f"{method}.")]
        if method.endswith(FROM_SSL):
            spent.append(costs[self.config.pretrain.stage_name])
        return self._score(stage, add_costs(spent))

    def _shorten(self) -> "_Unit":
        """The same with half of the pretraining, whose checkpoints lie in a folder of their own."""
        pretrain = dataclasses.replace(self.config.pretrain, epochs=self.config.pretrain.epochs // 2)
        loop = self.setup.loop
        place = loop.checkpoints.directory
        checkpoints = Checkpoints(None if place is None else place / "short")
        setup = dataclasses.replace(
            self.setup, loop=dataclasses.replace(loop, checkpoints=checkpoints, costs={})
        )
        return dataclasses.replace(
            self, setup=setup, config=dataclasses.replace(self.config, pretrain=pretrain)
        )

    def _build(self, role: str) -> Network:
        return build_network(self.setup, self.config.teacher, self.config, role)

    def _build_pretrained(self, role: str) -> Network:
        """From the recipe's own self-supervised weights, which every role shares; the head is the role's."""
        network = self._build(role)
        source = self._build("teacher")
        pretrain(self.setup, source, self.config.pretrain)
        network.backbone.load_state_dict(source.backbone.state_dict())
        return network

    def _run_recipe(self, method: str) -> tuple[TrackedStage, Cost, dict[str, float]]:
        recipe = NoisyConfig(self.config.pretrain, self.config.warmup, self.config.robust)
        recipe = VARIANTS[method](recipe) if method in VARIANTS else recipe
        stage = train_robustly(self.setup, self._build("teacher"), recipe, prefix=f"{method}.")
        costs = self.setup.loop.costs
        spent = [cost for name, cost in costs.items() if name.startswith(f"{method}.")]
        if recipe.pretrain.method != "none":
            spent.append(costs[recipe.pretrain.stage_name])
        table = make_label_table(self.setup.data, stage.judge, self.setup.holdout)
        found = {
            f"label_{name}": value
            for name, value in score_labels(self.data.train, table).items()
            if isinstance(value, float)
        }
        found |= compare_rates(self.data.train, stage.judge)
        return stage, add_costs(spent), found

    def _measure_recipe(self, method: str) -> dict[str, float]:
        stage, cost, found = self._run_recipe(method)
        return self._score(stage, cost) | found

    def _equal_cost_epochs(self) -> int:
        """Epochs of one network that take as many operations as the whole recipe."""
        _, cost, _ = self._run_recipe("fnf")
        per_epoch = 3 * count_flops(self._build("first")) * len(self.setup.labelled_train)
        return max(1, round(cost.flops / per_epoch))

    def _score(self, stage: TrackedStage, cost: Cost) -> dict[str, float]:
        values = score_stage(stage, cost, self.data.train, self.data.test, self.config.seed)
        return values | {"cost_images": values["images"], "cost_flops": values["flops"]}


def compare_rates(data: Dataset, judge: Judge) -> dict[str, float]:
    """Estimated noise beside the true: all of it, then closed and open, with the ends of their intervals."""
    if data.true_labels is None:
        raise ConfigError(f"{data.name} has no true labels to compare estimates with")
    known = data.labelled
    truth, given = data.true_labels[known], data.labels[known]
    estimate = estimate_noise(
        judge.beliefs, judge.given, judge.assessment.p_right, judge.prior, np.random.default_rng(0)
    )
    rates = {"closed": estimate.closed_rate, "open": estimate.open_rate}
    found = {"label_noise_estimated": judge.assessment.noise_rate}
    found |= {f"label_{kind}_estimated": rate.value for kind, rate in rates.items()}
    found |= {f"label_{kind}_low": rate.low for kind, rate in rates.items()}
    found |= {f"label_{kind}_high": rate.high for kind, rate in rates.items()}
    found["label_open_true"] = float((truth < 0).mean())
    found["label_closed_true"] = float(((truth >= 0) & (truth != given)).mean())
    return found
