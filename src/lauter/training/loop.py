"""The loop: runs stages one after the other. Everything in the project that trains goes through here."""

import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lauter.data.counters import derive_seed
from lauter.data.group import Group
from lauter.errors import ConfigError, NonFiniteLossError, RunError
from lauter.training.checkpoint import Checkpoints, Position
from lauter.training.compiling import decide_compiling
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime
from lauter.training.schedule import set_lr
from lauter.training.stage import Stage


class Interrupted(KeyboardInterrupt):
    """The user stopped the run; a checkpoint was written."""


@dataclass
class Cost:
    """What a stage took.

    Attributes:
        seconds: wall-clock, over every start of the run that trained it.
        images: images processed (an image seen twice counts twice, two views count two; stored features,
            on which a head alone is trained, do not count).
        flops: floating-point operations, forward and backward, all networks.
    """

    seconds: float = 0.0
    images: int = 0
    flops: float = 0.0

    def add(self, images: int, flops: float) -> None:
        """Add images and their operations."""
        self.images += images
        self.flops += flops

    def take_further(self, stage: Stage) -> None:
        """Take in what a stage counted beside its steps' own views (see :meth:`Stage.count`)."""
        self.add(stage.further_images, stage.further_flops)
        stage.further_images, stage.further_flops = 0, 0.0


@dataclass
class Loop:
    """Runs stages under one runtime, with one set of checkpoints and one voice.

    Attributes:
        runtime: device and precision.
        checkpoints: where states are kept.
        progress: who is told.
        seed: of the run; the random state of each step is derived from (seed, stage, epoch, step).
        checkpoint_seconds: a checkpoint is also written inside an epoch when the last is older than this.
        costs: what each stage took.
    """

    runtime: Runtime = field(default_factory=Runtime)
    checkpoints: Checkpoints = field(default_factory=lambda: Checkpoints(None))
    progress: Progress = field(default_factory=Progress)
    seed: int = 0
    checkpoint_seconds: float = 300.0
    costs: dict[str, Cost] = field(default_factory=dict)

    def run(self, stages: Sequence[Stage]) -> None:
        """Run stages in order; a stage that is complete is loaded, not run again."""
        for stage in stages:
            self.run_stage(stage)

    def run_stage(self, stage: Stage) -> None:
        """Train one stage to its end, continuing from its checkpoint where there is one.

        Raises:
            ConfigError: several processes were launched, and the stage does not share its work.
            NonFiniteLossError: a term or a weight became NaN or infinite.
            Interrupted: Ctrl-C; a checkpoint was written.
            RunError: a checkpoint cannot be written or read, or another process has stopped.
        """
        self._prepare(stage)
        position, sums, threads = self.checkpoints.load(stage, self.runtime.device)
        self._check_same(stage, position)
        cost = self.costs[stage.name] = Cost(**sums.pop("cost", {}))
        if position.complete:
            return
        if threads not in (None, torch.get_num_threads()):
            self.progress.say(
                f"note: {stage.name} was begun with {threads} threads and continues with "
                f"{torch.get_num_threads()}; the last bits of its weights may differ"
            )
        devices = [self.runtime.device] if self.runtime.device.type == "cuda" else []
        together = self.runtime.common_norms(stage.modules.values())
        with torch.random.fork_rng(devices), _stop_signal(self.group.size > 1) as stop, together:
            for epoch in range(position.epoch, stage.epochs):
                first_step = position.step if epoch == position.epoch else 0
                self._run_epoch(stage, epoch, first_step, sums, cost, stop)
                done = epoch + 1 == stage.epochs or stage.finished(epoch)
                self._save(stage, Position(epoch + 1, 0, complete=done), {}, cost)
                if any(self.group.agree(stop.is_set(), now=True)):
                    raise Interrupted(stage.name)
                sums = {}
                if done:
                    break

    @property
    def group(self) -> Group:
        """The processes that take every step together."""
        return self.runtime.group

    def _prepare(self, stage: Stage) -> None:
        if self.group.size > 1 and not stage.shares:
            raise ConfigError(
                f"stage {stage.name!r} ({type(stage).__name__}) does not share its steps, and "
                f"{self.group.size} processes were launched; start it without torchrun"
            )
        for module in stage.modules.values():
            self.runtime.place(module)
        # The same seeds gave the same weights; of other machines or files one does not know.
        self.group.align_(value for module in stage.modules.values() for value in _values_of(module))
        if self.runtime.config.compile == "auto":
            decide_compiling(stage, self.runtime, self.checkpoints, self.progress)

    def _check_same(self, stage: Stage, position: Position) -> None:
        """Check that all processes found the same checkpoint."""
        found = self.group.collect((position.epoch, position.step, position.complete))
        if any(place != found[0] for place in found):
            raise RunError(
                f"the processes found different checkpoints of stage {stage.name!r} in "
                f"{self.checkpoints.directory} (epoch, step and whether it is complete, by process: "
                f"{', '.join(map(str, found))}); the run's directory must be one that all machines share"
            )

    def _run_epoch(
        self,
        stage: Stage,
        epoch: int,
        first_step: int,
        sums: dict[str, Any],
        cost: Cost,
        stop: threading.Event,
    ) -> None:
        """Take the steps of an epoch from ``first_step`` on and log it."""
        meter = _Meter(sums, deferred=self.runtime.device.type == "cuda")
        steps = len(stage.batches)
        total_steps = stage.epochs * steps
        began = saved = time.monotonic()
        spent = cost.seconds
        seen = 0
        self._seed(stage, epoch, "begin")
        stage.begin_epoch(epoch)
        for step, batch in enumerate(stage.batches.epoch(epoch, first_step), start=first_step):
            overall = epoch * steps + step
            self._seed(stage, epoch, step)
            with self.runtime.autocast():
                terms = {name: value.mean() for name, value in stage.loss(batch).items()}
            meter.add(step, terms)
            self._check(stage, epoch, meter)
            self._step(stage, terms, overall, total_steps)
            stage.after_step()
            seen += len(batch) * len(batch.views)
            images = len(batch) * sum(view.ndim == 4 for view in batch.views)
            cost.add(images, images * stage.flops_per_image)
            cost.take_further(stage)
            now = time.monotonic()
            cost.seconds = spent + now - began
            rate = seen / max(now - began, 1e-9)
            left = (total_steps - overall - 1) * (now - began) / (step + 1 - first_step)
            self.progress.step(
                stage.name, epoch, stage.epochs, (step + 1) / steps, meter.describe(), rate, left
            )
            late, stopping = self.group.agree(now - saved > self.checkpoint_seconds, stop.is_set())
            if (late or stopping) and step + 1 < steps:
                meter.settle()
                self._check(stage, epoch, meter)
                self._save(stage, Position(epoch, step + 1), meter.sums, cost)
                saved = time.monotonic()
                if stopping:
                    raise Interrupted(stage.name)
        meter.settle()
        self._check(stage, epoch, meter)
        self._seed(stage, epoch, "end")
        self._average_norms(stage)
        metrics = self._tell_end(stage, stage.end_epoch(epoch))
        cost.take_further(stage)
        seconds = time.monotonic() - began
        cost.seconds = spent + seconds
        record = {
            "stage": stage.name,
            "epoch": epoch,
            "loss": meter.means(),
            "metrics": metrics,
            "images_per_second": seen / max(seconds, 1e-9),
            "seconds": seconds,
        }
        self.progress.epoch(record, stage.epochs)

    def _seed(self, stage: Stage, epoch: int, moment: int | str) -> None:
        """Derive torch's random state anew, so that a resumed step (or begin, or end) draws the same.

        Networks draw (dropout) in every process for itself; process 0 draws as one process would.
        """
        own = (self.group.rank,) if self.group.rank else ()
        torch.manual_seed(derive_seed(self.seed, stage.name, epoch, moment, *own))

    def _average_norms(self, stage: Stage) -> None:
        """Bring the running statistics of all processes together: each saw its parts of the batches alone."""
        self.group.average_(value for module in stage.modules.values() for value in _statistics_of(module))

    def _tell_end(self, stage: Stage, metrics: dict[str, float]) -> dict[str, float]:
        """Let all processes go on with what process 0 measured and decided after an epoch."""
        if self.group.size == 1:
            return metrics
        numbers = {name: float(value) for name, value in metrics.items()}
        told, state = self.group.tell((numbers, stage.state()))
        if not self.group.leads:
            stage.load_state(state)
        return told

    def _step(self, stage: Stage, terms: dict[str, Tensor], overall: int, total_steps: int) -> None:
        total = sum(value * stage.weights.get(name, 1.0) for name, value in terms.items())
        if not isinstance(total, Tensor) or not total.requires_grad:
            return  # nothing in this batch is to be learnt from
        for part in stage.trained:
            set_lr(part.optimizer, part.config, overall, total_steps)
            part.optimizer.zero_grad(set_to_none=True)
        self.runtime.fabric.backward(total)
        self.group.average_(_gradients_of(stage))
        if stage.clip:
            torch.nn.utils.clip_grad_norm_(stage.clipped_parameters(), stage.clip)
        for part in stage.trained:
            part.optimizer.step()

    def _check(self, stage: Stage, epoch: int, meter: "_Meter") -> None:
        if meter.broken is None:
            return
        step, terms = meter.broken
        named = ", ".join(f"{name} = {value}" for name, value in terms.items())
        self._give_up(stage, epoch, f"step {step + 1}: the loss is not finite ({named})")

    def _give_up(self, stage: Stage, epoch: int, what: str) -> NoReturn:
        path = self.checkpoints.path(stage.name)
        kept = (
            f"the last good checkpoint is {path}" if path and path.exists() else "there is no checkpoint yet"
        )
        raise NonFiniteLossError(
            f"stage {stage.name!r}, epoch {epoch + 1}, {what}; {kept}. "
            f"A smaller lr, gradient clipping (clip) or --runtime.precision 32 usually helps."
        )

    def _save(self, stage: Stage, position: Position, sums: dict[str, Any], cost: Cost) -> None:
        """Write a checkpoint, unless the last step's update (which no loss has seen) broke a weight."""
        for name, module in stage.modules.items():
            parameters = [parameter.detach() for parameter in module.parameters()]
            if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
                epoch = position.epoch if position.step else position.epoch - 1
                self._give_up(stage, epoch, f"the weights of {name!r} are not finite any more")
        self._average_norms(stage)
        if self.group.leads:
            self.checkpoints.save(stage, position, {**sums, "cost": vars(cost).copy()})


class _Meter:
    """Sums of the loss terms over an epoch, and the first step at which one was not finite.

    On an accelerator values are looked at in blocks, so that no step waits for the device.
    """

    BLOCK = 50

    def __init__(self, sums: dict[str, Any], *, deferred: bool) -> None:
        self.sums: dict[str, Any] = {"counts": {}, "terms": {}, **sums}
        self.broken: tuple[int, dict[str, float]] | None = None
        self._deferred = deferred
        self._waiting: list[tuple[int, list[str], Tensor]] = []

    def add(self, step: int, terms: dict[str, Tensor]) -> None:
        if terms:
            values = torch.stack([value.detach().float() for value in terms.values()])
            self._waiting.append((step, list(terms), values))
        if not self._deferred or len(self._waiting) >= self.BLOCK:
            self.settle()

    def settle(self) -> None:
        for step, names, values in self._waiting:
            numbers = dict(zip(names, values.tolist(), strict=True))
            if self.broken is None and not all(map(math.isfinite, numbers.values())):
                self.broken = (step, numbers)
            for name, number in numbers.items():
                self.sums["counts"][name] = self.sums["counts"].get(name, 0) + 1
                self.sums["terms"][name] = self.sums["terms"].get(name, 0.0) + number
        self._waiting.clear()

    def means(self) -> dict[str, float]:
        """Mean of each term over the steps that had it."""
        return {name: total / self.sums["counts"][name] for name, total in self.sums["terms"].items()}

    def describe(self) -> str:
        return "  ".join(f"{name} {value:.3f}" for name, value in self.means().items())


def _values_of(module: nn.Module) -> Iterator[Tensor]:
    yield from (parameter.detach() for parameter in module.parameters())
    yield from module.buffers()


def _statistics_of(module: nn.Module) -> Iterator[Tensor]:
    """Running means and variances of batch normalisation."""
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            yield from (value for value in (part.running_mean, part.running_var) if value is not None)


def _gradients_of(stage: Stage) -> Iterator[Tensor]:
    for part in stage.trained:
        for group in part.optimizer.param_groups:
            yield from (weight.grad for weight in group["params"] if weight.grad is not None)


@contextmanager
def _stop_signal(launched: bool) -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into a request to stop after this step; a second one stops at once.

    A launcher hands signals on to all processes it ``launched``, Ctrl-C as well as SIGTERM, and ends them
    itself where they take too long: there every signal is such a request.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if event.is_set() and not launched:
            raise KeyboardInterrupt
        event.set()

    signals = (signal.SIGINT, signal.SIGTERM) if launched else (signal.SIGINT,)
    before = [(number, signal.signal(number, ask)) for number in signals]
    try:
        yield event
    finally:
        for number, handler in before:
            signal.signal(number, handler)
