"""Where the time of a stage goes: its parts are named from outside, so that training itself pays nothing.

The methods of a stage through which the loop goes are wrapped for one run and unwrapped after it. Every range
is clocked here, and named for ``torch.profiler``, so that a trace of the run shows it. On an accelerator a
range waits for the device before it ends, since its clock would else stop before the work is done.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from lauter.data.batches import Batch
from lauter.models import Network
from lauter.training.loop import Loop
from lauter.training.stage import Stage

RANGES = ("data", "teacher", "student", "loss", "optimizer", "beliefs", "epoch_end", "other")
"""data: waiting for batches; teacher: what it shows; student: forward and backward pass of the backbones that
are trained; loss: heads and terms, forward and backward; optimizer: steps and weight averages; beliefs: the
judge; epoch_end: what else follows an epoch, such as the hold-out's predictions; other: the rest."""


class Ranges:
    """Clocks nested ranges; the time of a range is without that of the ranges within it.

    Attributes:
        seconds: by name.

    Args:
        device: waited for at the end of every range.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = dict.fromkeys(RANGES, 0.0)
        self._device = device
        self._within = [0.0]
        self._reached = 0.0

    def _wait(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize()

    @contextmanager
    def mark(self, name: str) -> Iterator[None]:
        """Clock what is done inside as ``name``."""
        began = time.perf_counter()
        self._within.append(0.0)
        try:
            with record_function(f"lauter {name}"):
                yield
                self._wait()
        finally:
            passed = time.perf_counter() - began
            self.seconds[name] += passed - self._within.pop()
            self._within[-1] += passed

    @contextmanager
    def mark_backward(self) -> Iterator[None]:
        """Clock a backward pass: loss up to where the gradient reaches the features, student from there."""
        began = self._reached = time.perf_counter()
        before = dict(self.seconds)
        with self.mark("student"):
            yield
        loss = min(self._reached - began, self.seconds["student"] - before["student"])
        self.seconds["loss"] += loss
        self.seconds["student"] -= loss

    def note_features(self, features: Tensor) -> None:
        """Let the backward pass say when it reaches these."""
        if features.requires_grad:
            features.register_hook(self._reach)  # type: ignore[no-untyped-call]

    def _reach(self, gradient: Tensor) -> None:
        self._wait()
        self._reached = time.perf_counter()


def share_time(loop: Loop, stage: Stage, trace: Path | None = None) -> dict[str, float]:
    """Run a stage and say which share of its time each of ``RANGES`` took.

    Args:
        loop: runs it.
        stage: from its beginning to its end.
        trace: where a trace for a browser's viewer is written (by ``torch.profiler``, which slows the run);
            None writes none.

    Returns:
        Shares by name; they sum to 1.
    """
    ranges = Ranges(loop.runtime.device)
    with ExitStack() as stack:
        stack.enter_context(name_ranges(stage, loop, ranges))
        profiler = None if trace is None else stack.enter_context(profile(activities=[ProfilerActivity.CPU]))
        with ranges.mark("other"):
            loop.run_stage(stage)
    if profiler is not None and trace is not None:
        trace.parent.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(trace))
    total = sum(ranges.seconds.values())
    return {name: seconds / total for name, seconds in ranges.seconds.items()}


@contextmanager
def name_ranges(stage: Stage, loop: Loop, ranges: Ranges) -> Iterator[None]:
    """Wrap what the loop calls of a stage; everything is as it was afterwards."""
    wrapped: list[tuple[Any, str]] = []

    def wrap(owner: Any, method: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        setattr(owner, method, around(getattr(owner, method)))
        wrapped.append((owner, method))

    def clock(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def around(act: Callable[..., Any]) -> Callable[..., Any]:
            def clocked(*arguments: Any, **options: Any) -> Any:
                with ranges.mark(name):
                    return act(*arguments, **options)

            return clocked

        return around

    def read(epoch: Callable[..., Iterator[Batch]]) -> Callable[..., Iterator[Batch]]:
        def clocked(*arguments: int) -> Iterator[Batch]:
            batches = iter(epoch(*arguments))
            while True:
                with ranges.mark("data"):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch

        return clocked

    def see(features: Callable[..., Any]) -> Callable[..., Any]:
        def clocked(*arguments: Any, **options: Any) -> Any:
            with ranges.mark("student"):
                found = features(*arguments, **options)
            ranges.note_features(found[0])
            return found

        return clocked

    def go_back(backward: Callable[..., Any]) -> Callable[..., Any]:
        def clocked(*arguments: Any, **options: Any) -> None:
            with ranges.mark_backward():
                backward(*arguments, **options)

        return clocked

    try:
        wrap(stage.batches, "epoch", read)
        wrap(loop.runtime.fabric, "backward", go_back)
        for method, name in (("loss", "loss"), ("after_step", "optimizer"), ("end_epoch", "epoch_end")):
            wrap(stage, method, clock(name))
        for module in stage.modules.values():
            if isinstance(module, Network) and any(p.requires_grad for p in module.backbone.parameters()):
                wrap(module, "features", see)
        for part in stage.trained:
            wrap(part.optimizer, "step", clock("optimizer"))
        if (teacher := getattr(stage, "teacher", None)) is not None:
            wrap(teacher, "see", clock("teacher"))
        if (judge := getattr(stage, "judge", None)) is not None:
            wrap(judge, "remember", clock("beliefs"))
            wrap(judge, "close_epoch", clock("beliefs"))
        yield
    finally:
        for owner, method in wrapped:
            delattr(owner, method)
