"""Whether compiling pays: a few steps of the network at hand, both ways, and the faster one is kept.

What torch.compile gains depends on network, batch, precision and machine, and on a processor it often loses.
So nothing is guessed: before a stage begins, each network that it trains is timed eager and compiled. The
choice is said with both rates and written beside the checkpoints, so that a run that resumes computes as it
did before: compiled operators round otherwise.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lauter.files import read_json, write_json
from lauter.models import Network
from lauter.training.checkpoint import Checkpoints
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime, has_compiler
from lauter.training.stage import Stage

WARM_STEPS, TIMED_STEPS = 2, 5


@dataclass(frozen=True)
class CompileChoice:
    """How a network computes, and why.

    Attributes:
        compiled: whether its backbone is compiled.
        reason: in words, with both rates.
        eager_rate: images per second, forward and backward; 0 where nothing was timed.
        compiled_rate: the same compiled.
        compile_seconds: what the first compiled step took.
    """

    compiled: bool
    reason: str
    eager_rate: float = 0.0
    compiled_rate: float = 0.0
    compile_seconds: float = 0.0


def decide_compiling(stage: Stage, runtime: Runtime, checkpoints: Checkpoints, progress: Progress) -> None:
    """Compile those networks of a stage that are faster so; as it was chosen before where a run resumes.

    Frozen networks, and those that an earlier stage of this process compiled, stay as they are.

    Args:
        stage: about to begin; its modules are on the device.
        runtime: device and precision, of one process.
        checkpoints: the choices are kept beside them, in ``STAGE.compile.json``.
        progress: is told.
    """
    networks = {
        name: module
        for name, module in stage.modules.items()
        if isinstance(module, Network)
        and module.backbone._compiled_call_impl is None
        and any(parameter.requires_grad for parameter in module.backbone.parameters())
    }
    place = None
    if checkpoints.directory is not None:
        place = checkpoints.directory / f"{stage.name}.compile.json"
    choices: dict[str, CompileChoice] = {}
    if networks:
        if place is not None and place.exists():
            choices = {name: CompileChoice(**kept) for name, kept in read_json(place).items()}
        elif (images := _take_images(stage)) is not None:
            steps = stage.epochs * len(stage.batches)
            choices = {name: choose(network, images, runtime, steps) for name, network in networks.items()}
            for name, choice in choices.items():
                progress.say(f"compile     {stage.name}, {name}: {choice.reason}")
            if place is not None:
                write_json(place, {name: asdict(choice) for name, choice in choices.items()})
    for name, choice in choices.items():
        if choice.compiled and name in networks:
            networks[name].backbone.compile()


def _take_images(stage: Stage) -> Tensor | None:
    """The first view of the stage's first batch; None where it trains on something else than images."""
    batches = stage.batches.epoch(0)
    batch: Any = next(iter(batches), None)
    if hasattr(batches, "close"):
        batches.close()
    return None if batch is None or batch.images.ndim != 4 else batch.images


def choose(network: Network, images: Tensor, runtime: Runtime, steps: int) -> CompileChoice:
    """Time a network eager and compiled, step by step in turn, and choose.

    Args:
        network: stays as it is; copies of it are timed.
        images: uint8 [B, 3, S, S] of one step, on the device.
        runtime: device and precision.
        steps: how many the stage takes. Compiled it must win back what compiling costs, twice: for the steps,
            and for the passes in eval mode.

    Returns:
        The choice.
    """
    if not has_compiler(runtime.config.device):
        return CompileChoice(False, "eager: there is no C++ compiler, which torch.compile needs here")
    devices = [runtime.device] if runtime.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        eager = _make_step(network, images, runtime, compiled=False)
        compiled = _make_step(network, images, runtime, compiled=True)
        compile_seconds = _time_step(compiled, runtime)
        for _ in range(WARM_STEPS):
            eager()
            compiled()
        pairs = [(_time_step(eager, runtime), _time_step(compiled, runtime)) for _ in range(TIMED_STEPS)]
    eager_seconds, compiled_seconds = (float(np.median(seconds)) for seconds in zip(*pairs, strict=True))
    return weigh(len(images), eager_seconds, compiled_seconds, compile_seconds, steps)


def weigh(
    images: int, eager_seconds: float, compiled_seconds: float, compile_seconds: float, steps: int
) -> CompileChoice:
    """The choice that timings speak for.

    Args:
        images: of a step.
        eager_seconds: of a step.
        compiled_seconds: of a step.
        compile_seconds: of compiling.
        steps: of the stage.

    Example:
        >>> weigh(64, 0.2, 0.1, 60.0, 10_000).reason
        'compiled: 640 images/s, eager 320; over 10,000 steps that saves 1,000 s, and compiling takes 120 s'
        >>> weigh(64, 0.2, 0.1, 60.0, 1_000).compiled
        False
    """
    saved, spent = steps * (eager_seconds - compiled_seconds), 2 * compile_seconds
    rates = images / eager_seconds, images / compiled_seconds
    pays = saved > spent
    kind, other = ("compiled", "eager") if pays else ("eager", "compiled")
    first, second = reversed(rates) if pays else rates
    reason = f"{kind}: {first:,.0f} images/s, {other} {second:,.0f}"
    if saved > 0:
        reason += f"; over {steps:,} steps that saves {saved:,.0f} s, and compiling takes {spent:,.0f} s"
        reason = reason if pays else reason.replace("that saves", "compiling would save")
    return CompileChoice(pays, reason, *rates, compile_seconds)


def _make_step(
    network: Network, images: Tensor, runtime: Runtime, *, compiled: bool
) -> Callable[[], tuple[Tensor, ...]]:
    """A forward and a backward pass of a copy in training mode."""
    trial = copy.deepcopy(network).train()
    if compiled:
        trial.backbone.compile()
    parameters = [parameter for parameter in trial.backbone.parameters() if parameter.requires_grad]

    def step() -> tuple[Tensor, ...]:
        with runtime.autocast():
            features, _ = trial.features(images)
        return torch.autograd.grad(features.square().mean(), parameters, allow_unused=True)

    return step


def _time_step(step: Callable[[], object], runtime: Runtime) -> float:
    began = time.perf_counter()
    step()
    if runtime.device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - began
